"""Several objectives: layers and priorities by hand, and searches whose results are known."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import synthetic
from synthetic import LABELS, member_of

from ripieno.cluster import InlinePool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.search import Settings, Simulation, run_search, simulate
from ripieno.search.algorithms import SCHEDULERS, find_mismatch
from ripieno.search.asha import Asha
from ripieno.search.in_memory_study import InMemoryStudy
from ripieno.search.journal import STUDY, JobSubmitted, Journal
from ripieno.search.nsga import NsgaThreeSampler
from ripieno.search.objectives import (
    LEAST,
    PriorityTable,
    SearchObjective,
    check_objectives,
    dominates,
    find_objectives,
    layers,
    parse_objectives,
    priorities,
    scalarize,
    vector,
)
from ripieno.search.samplers import bind_sampler, sample
from ripieno.search.scheduler import TrialStep
from ripieno.search.settings import resolve_settings
from ripieno.search.space import Continuous, Space, distributions
from ripieno.types import Configuration, Failure, Job, JobResult

PLANE = Space("plane", "none", {"x": Continuous(0.0, 1.0), "y": Continuous(0.0, 1.0)})
"""`x` trades the loss for joules, `y` makes both worse."""
TWO = find_objectives(["loss", "joules"])


def curve(configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
    x, y = float(configuration["x"]), float(configuration["y"])
    return 0.2 + x**2 + y + 1 / epoch, epoch * (1 + x), {"joules": 0.2 + (1 - x) ** 2 + y}


def settings_of(algorithm: str, trials: int = 40, **more: Any) -> Settings:
    return Settings(PLANE, algorithm, trials=trials, epochs=9, objective=("loss", "joules"), **more)


def searched(algorithm: str, trials: int = 40, **more: Any) -> Simulation:
    return simulate(settings_of(algorithm, trials, **more), curve, 3)


def test_names_are_read_from_a_text_and_from_a_sequence() -> None:
    assert parse_objectives("loss, train_seconds") == ("loss", "train_seconds")
    assert parse_objectives(("accuracy", "flops")) == ("accuracy", "flops")


@pytest.mark.parametrize(
    ("asked", "said"),
    [("", "separated by commas"), ("loss,", "separated by commas"), ("loss,flops,loss", "loss is given twice")],
)
def test_names_that_cannot_be_read_are_refused(asked: str, said: str) -> None:
    with pytest.raises(SearchError, match=said):
        parse_objectives(asked)


def test_a_cost_alone_is_refused_with_the_mend() -> None:
    with pytest.raises(
        SearchError, match="flops alone is best for a model that learns nothing: add loss, as in loss,flops"
    ):
        Settings(PLANE, objective=("flops",))


def test_an_unknown_word_is_answered_with_all_that_are_known() -> None:
    check_objectives(["loss", "macro-f1", "macro_f1", "joules"], ["accuracy", "macro_f1"], ["joules"])
    with pytest.raises(
        SearchError, match=r"no objective speed; there are: loss, train_seconds, .*, accuracy, macro-f1$"
    ):
        check_objectives(["loss", "speed"], ["accuracy", "macro_f1"])


def test_a_metric_that_is_better_when_larger_is_made_large() -> None:
    assert find_objectives(["loss", "accuracy", "macro-f1", "rmse", "bytes"]) == (
        *(SearchObjective("loss"), SearchObjective("accuracy", True), SearchObjective("macro-f1", True)),
        *(SearchObjective("rmse"), SearchObjective("bytes")),
    )
    assert vector(find_objectives(["loss", "accuracy"]), 0.5, {"accuracy": 0.9}) == (0.5, -0.9)


def test_a_result_without_a_value_or_with_an_infinite_one_has_no_vector() -> None:
    assert vector(TWO, 0.5, {}) is None
    assert vector(TWO, None, {"joules": 1.0}) is None
    assert vector(TWO, 0.5, {"joules": float("nan")}) is None


def test_layers_of_points_placed_by_hand() -> None:
    points = np.array([[1, 4], [2, 2], [4, 1], [2, 4], [3, 3], [4, 4], [2, 2], [1, 5]], float)
    assert layers(points).tolist() == [0, 0, 0, 1, 1, 2, 0, 1]
    assert layers(np.zeros((0, 2))).tolist() == []


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_layers_are_those_of_the_definition(objectives: int) -> None:
    generator = np.random.default_rng(objectives)
    for count in (1, 7, 40):
        points = generator.integers(0, 9, (count, objectives)).astype(float)  # with ties and repeats
        left, expected, layer = set(range(count)), np.zeros(count, int), 0
        while left:
            front = {n for n in left if not any(dominates(tuple(points[m]), tuple(points[n])) for m in left)}
            expected[list(front)] = layer
            left, layer = left - front, layer + 1
        assert layers(points).tolist() == expected.tolist()


def test_priorities_rank_by_layer_and_within_one_by_loss() -> None:
    points = {0: (4.0, 1.0), 1: (1.0, 4.0), 2: (3.0, 5.0), 3: (2.0, 2.0), 4: (5.0, 5.0)}
    found = priorities(points, {trial: point[0] for trial, point in points.items()})
    assert sorted(found, key=found.__getitem__) == [1, 3, 0, 2, 4]
    assert [int(found[trial]) for trial in range(5)] == [0, 0, 1, 0, 2]


def test_the_priority_for_one_objective_is_the_loss_and_a_failure_has_none() -> None:
    table = PriorityTable()
    assert table.add(3, 1, 0.25, {"joules": 9.0}) == {3: 0.25}
    assert table.add(4, 1, None, {}) == {}


def test_priorities_are_by_epoch_and_change_as_results_arrive() -> None:
    table = PriorityTable(TWO)
    assert table.add(0, 1, 2.0, {"joules": 2.0}) == {0: 0.0}
    assert table.add(1, 3, 1.0, {"joules": 1.0}) == {1: 0.0}
    assert table.add(2, 1, 1.0, {"joules": 1.0}) == {0: 1.0, 2: 0.0}


@pytest.mark.parametrize("stopping", [False, True])
def test_asha_promotes_by_layers_that_later_results_change(stopping: bool) -> None:
    asha, table = Asha(((1, 3),), keep=3, stopping=stopping), PriorityTable(TWO)

    def told(trial: int, loss: float | None, joules: float) -> None:
        step = TrialStep(trial, 0, 1)
        asha.start(step)
        found = table.add(trial, 1, loss, {"joules": joules})
        asha.set_priorities(1, found)
        asha.tell(step, found.get(trial))

    told(0, 5.0, 2.0)
    told(1, None, 0.0)
    told(2, 4.0, 3.0)
    if stopping:  # 0 and 2 are of the first layer, and only 2 was among the best third when it came: the first
        assert [step.trial for step in asha.candidates()][:1] == [2]
        return
    assert [step.trial for step in asha.candidates()][:1] == [2]  # of the layer the lowest loss
    told(3, 4.5, 1.0)  # dominates 0
    told(4, 3.9, 2.5)  # dominates 2
    told(5, 6.0, 0.5)
    assert [step.trial for step in asha.candidates()][:2] == [4, 3]
    assert asha.rank(TrialStep(5, 1, 3)) == (3, 6)
    assert asha.rank(TrialStep(1, 1, 3)) == (6, 6)  # failed


def test_a_promoted_trial_is_not_promoted_again_when_priorities_change() -> None:
    asha = Asha(((1, 3),), keep=2)
    for trial in range(4):
        asha.start(TrialStep(trial, 0, 1))
        asha.tell(TrialStep(trial, 0, 1), float(trial))
    asha.start(next(iter(asha.candidates())))
    asha.set_priorities(1, {0: 3.0, 1: 2.0, 2: 1.0, 3: 0.0, 9: -1.0})
    assert [step.trial for step in asha.candidates()] == [3, 2, 4]


def test_scalars_are_normalised_and_the_worst_tenth_is_alike() -> None:
    vectors = [(1.0, 100.0), (10.0, 10.0), (100.0, 1.0), None]
    clipped = 1 / (2 - 0.2)  # the quantile 0.9 of 0, 1 and 2 is 1.8
    assert scalarize(vectors, (1.0, 0.0)) == pytest.approx(
        [LEAST, LEAST + 1.05 * clipped, LEAST + 1.05, None]  # type: ignore[list-item]
    )
    even = scalarize(vectors, (0.5, 0.5))
    assert even[0] == even[2] > even[1]  # type: ignore[operator]
    assert scalarize([None], (1.0,)) == [None]


NATIVE = ["tpe", "multivariate-tpe", "forest", "genetic", "nsga2", "nsga3"]


@pytest.mark.parametrize("sampler", [*NATIVE, "random", "parego-tpe"])
def test_samplers_keep_near_the_front_and_along_it(sampler: str) -> None:
    view = InMemoryStudy(distributions(PLANE), objectives=TWO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for trial in range(45 if "forest" in sampler else 130):
            values = sample(bind_sampler(sampler, {}), view, 5)
            view.start(values)
            for epoch in (1, 9):
                loss, seconds, others = curve(values, epoch)
                view.tell(trial, epoch, None if trial % 11 == 3 else loss, epoch == 9, seconds, others)
    later = [t.params for t in view.get_all_trials(0)[-len(view) // 3 :]]
    far, spread = np.mean([v["y"] for v in later]), np.ptp([v["x"] for v in later])
    # of two ranges the genetic samplers draw more than half of the values at random
    assert far > 0.46 if sampler == "random" else far < (0.45 if sampler in ("genetic", "nsga2", "nsga3") else 0.36), (
        far,
        spread,
    )
    assert spread > 0.5, (far, spread)


def test_all_trials_of_a_generation_have_the_same_parents_also_after_a_restart() -> None:
    view, generator = InMemoryStudy(distributions(PLANE), objectives=TWO), np.random.default_rng(0)
    for trial in range(110):
        view.start({"x": 0.5, "y": 0.5})
        x = float(generator.random())
        view.tell(trial, 9, x, True, 1.0, {"joules": 1.0 - x})  # all are on the front
    found = []
    for seed in (1, 2):
        view.cache.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append([t.number for t in NsgaThreeSampler(seed=seed).get_parent_population(view.study(), 2)])
    assert found[0] == found[1]
    assert len(found[0]) == 50
    assert set(found[0]) & set(range(50))  # and parents of before stay candidates


def test_a_sampler_for_one_objective_sees_random_scalars() -> None:
    view, seen = InMemoryStudy(distributions(PLANE), objectives=TWO), []

    class Spy(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            assert not study._is_multi_objective()
            seen.append([t.value for t in study.get_trials(deepcopy=False)])
            return {}

    for trial in range(5):
        view.start({"x": 0.5, "y": 0.5})
        view.tell(trial, 9, 1.0 + trial, True, 1.0, {"joules": 5.0 - trial})
    for seed in (0, 1, 0):
        sample(lambda seed: Spy(seed), view, seed)
    assert seen[0] == seen[2] != seen[1]  # weights by the seed
    assert all(value > 0 for value in seen[0])


@pytest.mark.parametrize(
    "algorithm", ["hyperband", "asha-stopping+random", "forest", "genetic", "full+nsga2", "asha+parego-tpe"]
)
def test_a_search_for_several_objectives_ends_with_its_front(algorithm: str) -> None:
    run = searched(algorithm)
    front = run.summary.trial_front
    points = {
        o.member.id: (o.member.losses["valid_cross_entropy"], o.values["joules"]) for o in run.outcomes if o.member
    }
    expected = {m for m, p in points.items() if not any(dominates(q, p) for q in points.values())}
    assert {trial.member for trial in front} == expected
    assert [trial.values["loss"] for trial in front] == sorted(points[m][0] for m in expected)
    assert all(trial.values == dict(zip(("loss", "joules"), points[trial.member], strict=True)) for trial in front)


def test_the_driver_tells_a_scheduler_all_priorities_that_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[int, float]] = []

    class Watched(Asha):
        def set_priorities(self, epoch: int, priorities: Mapping[int, float]) -> None:
            told.append(dict(priorities))
            super().set_priorities(epoch, priorities)

    monkeypatch.setitem(SCHEDULERS, "watched", lambda epochs, keep, trials: Watched(((epochs,),), keep, trials))
    run = searched("watched+random", trials=9)
    points = {
        o.job.trial: (o.member.losses["valid_cross_entropy"], o.values["joules"]) for o in run.outcomes if o.member
    }
    assert len(points) == 9
    assert told[-1] == priorities(points, {trial: point[0] for trial, point in points.items()})


def test_a_search_by_the_loss_alone_has_no_front() -> None:
    run = simulate(Settings(PLANE, trials=5, epochs=9), curve, 2)
    assert run.summary.trial_front == ()


def test_promotion_keeps_both_ends_of_the_front() -> None:
    """By the loss alone no trial with few joules is promoted."""

    def promoted(settings: Settings) -> list[float]:
        outcomes = simulate(settings, curve, 3).outcomes
        return [float(o.job.configuration["x"]) for o in outcomes if o.job.start == 1]

    both, alone = promoted(settings_of("asha", 60)), promoted(replace(settings_of("asha", 60), objective=("loss",)))
    assert np.mean(both) > np.mean(alone) + 0.1


def keep(run: Path, most: list[int], job: Job) -> JobResult:
    """Write the member like real training; raise KeyboardInterrupt when `most` jobs have ended."""
    most[0] -= 1
    if most[0] < 0:
        raise KeyboardInterrupt
    if job.trial % 7 == 5:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"))
    member = replace(member_of(job), seconds=random.random())  # of a clock
    Library(run).add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member, values={"joules": float(job.configuration["rate"])})


@pytest.mark.parametrize("algorithm", ["forest", "full+nsga3"])
def test_a_search_that_is_killed_again_and_again_decides_the_same(tmp_path: Path, algorithm: str) -> None:
    objective = ("loss", "joules", "train_seconds")
    settings = Settings(synthetic.SPACE, algorithm, trials=20, epochs=9, window=4, objective=objective)

    def issued(run: Path, most: int) -> list[Any]:
        starts = 0
        while starts < 50:
            starts += 1
            try:
                pool = InlinePool(partial(keep, run, [most]))
                run_search(Library(run), settings, pool, weight=synthetic.weight)
                break
            except KeyboardInterrupt:
                continue
        journal = Journal(Library(run).journal_path, synthetic.SPACE, "random", 0, objectives=objective)
        jobs = [(e.trial, e.start, e.stop) for e in journal.events() if isinstance(e, JobSubmitted)]
        return [jobs, [journal.configuration(n) for n in range(20)], starts]

    whole, broken = issued(tmp_path / "whole", 1000), issued(tmp_path / "broken", 5)
    assert whole[:2] == broken[:2]
    assert broken[2] > 3


def test_optunas_tools_see_all_values_with_their_directions(tmp_path: Path) -> None:
    settings = Settings(synthetic.SPACE, trials=8, epochs=3, window=4, objective=("loss", "accuracy"))

    def work(job: Job) -> JobResult:
        return JobResult(job, member_of(job), values={"accuracy": job.trial / 10})

    run_search(Library(tmp_path), settings, InlinePool(work), weight=synthetic.weight)
    backend = optuna.storages.journal.JournalFileBackend(str(Library(tmp_path).journal_path))
    study = optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend))
    assert [d.name for d in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["loss", "accuracy"]
    assert [t.values[1] for t in study.trials] == [n / 10 for n in range(8)]


def test_a_search_without_a_value_that_it_needs_stops_and_says_which(tmp_path: Path) -> None:
    settings = Settings(synthetic.SPACE, trials=8, epochs=3, objective=("loss", "joules"))
    pool = InlinePool(lambda job: JobResult(job, member_of(job), values={"watts": 3.0}))
    with pytest.raises(SearchError, match=r"jobs failed, .* with: joules of .* is not known, but loss, watts"):
        run_search(Library(tmp_path), settings, pool)


def test_the_run_keeps_its_objectives_and_refuses_others(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    asked = settings_of("hyperband")
    assert resolve_settings(path, asked, 2, None).objective == ("loss", "joules")
    assert resolve_settings(path, asked, 2, None).objective == ("loss", "joules")
    with pytest.raises(SearchError, match="a search with objective loss,joules, requested is objective loss:"):
        resolve_settings(path, replace(asked, objective=("loss",)), 2, None)
    resolve_settings(tmp_path / "other.json", replace(asked, objective=("loss",)), 2, None)
    assert "objective" not in (tmp_path / "other.json").read_text()  # as in runs of older versions


def test_pairs_that_hardly_help_are_named() -> None:
    assert "use full+nsga2" in find_mismatch("hyperband+nsga2", 2)
    assert find_mismatch("full+nsga2", 2) == ""
    assert "this search has one" in find_mismatch("hyperband+parego-tpe")
    assert find_mismatch("hyperband+parego-tpe", 2) == ""
    assert "learns only from trials at their last epoch" in find_mismatch("asha+parego-gp", 2)


def test_what_is_measured_after_the_first_job_of_a_trial_counts_at_its_later_rungs(tmp_path: Path) -> None:
    settings = Settings(synthetic.SPACE, "asha", trials=12, epochs=9, objective=("loss", "seconds"))

    def work(job: Job) -> JobResult:
        return JobResult(job, member_of(job), values={} if job.start else {"seconds": float(1 + job.trial)})

    last = run_search(Library(tmp_path), settings, InlinePool(work), weight=synthetic.weight)
    assert (last.failures, last.members > 12) == (0, True)
