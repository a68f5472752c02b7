"""Constraints of a search: what is known before training bounds what is drawn, what is measured ranks and teaches."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from synthetic import LABELS, loss_of, member_of

from ripieno.cluster import InlinePool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.search import Algorithm, Settings, Simulation, Summary, run_search, simulate
from ripieno.search.constraints import (
    Constraint,
    draw_configuration,
    parse_constraint,
    parse_constraints,
    penalised,
    read_value,
    split_constraints,
    total_violation,
)
from ripieno.search.encoding import Encoding
from ripieno.search.forest import learn
from ripieno.search.in_memory_study import Result
from ripieno.search.journal import Journal
from ripieno.search.settings import kept_settings, resolve_settings
from ripieno.search.space import Continuous, Integer, Space, distributions
from ripieno.types import Configuration, Job, JobResult

SETTINGS = Settings(synthetic.SPACE, trials=45, epochs=9)


def costs(configuration: Configuration) -> dict[str, float]:
    return {"parameters": 100.0 * float(configuration["width"])}


def latency(configuration: Configuration) -> float:
    return float(configuration["width"]) / 1000


def curve(configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
    return loss_of(configuration, epoch), epoch * synthetic.weight(configuration), {"latency": latency(configuration)}


def run(algorithm: str, *constraints: str) -> Simulation:
    settings = replace(SETTINGS, algorithm=algorithm, constraints=constraints)
    return simulate(settings, curve, 4, costs=costs)


def widths(simulation: Simulation, *, promoted: bool = False) -> list[int]:
    """Return the widths of the trials, or of those that were promoted, in the order of their jobs."""
    return [int(o.job.configuration["width"]) for o in simulation.outcomes if bool(o.job.start) == promoted]


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("latency<=0.010", Constraint("latency", "<=", 0.01)),
        (" bytes <= 4MiB ", Constraint("bytes", "<=", 4 * 2.0**20)),
        ("parameters<=1.5M", Constraint("parameters", "<=", 1.5e6)),
        ("macro-f1>=8e-1", Constraint("macro-f1", ">=", 0.8)),
    ],
)
def test_a_constraint_is_a_name_and_a_bound_and_its_text_reads_back(text: str, constraint: Constraint) -> None:
    assert parse_constraint(text) == constraint
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize("text", ["latency", "latency<0.01", "latency==1", "<=3", "latency<=fast", "bytes<=inf"])
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SearchError, match=r"cannot be read: write NAME<=NUMBER .* bytes<=4MiB"):
        parse_constraint(text)


def test_a_number_is_bounded_once_from_each_side() -> None:
    assert len(parse_constraints(["flops<=2", "flops>=1"])) == 2
    with pytest.raises(SearchError, match=r"flops<=3 bounds flops a second time"):
        parse_constraints(["flops<=2", "flops<=3"])


def test_violations_are_shares_of_the_bounds_and_unknown_numbers_break_nothing() -> None:
    bounds = parse_constraints(["latency<=0.01", "accuracy>=0.8"])
    assert total_violation(bounds, {"latency": 0.02, "accuracy": 0.6}) == pytest.approx(1.25)
    assert total_violation(bounds, {"latency": 0.01, "accuracy": 0.8}) == 0
    assert total_violation(bounds, {"latency": 0.001, "accuracy": 0.6}) == pytest.approx(0.25)
    assert total_violation(bounds, {}) == 0
    ranks = [penalised(9.0, 0.0), penalised(0.1, 0.001), penalised(0.2, 0.5)]
    assert ranks == sorted(ranks)
    assert penalised(0.3, 0.0) == 0.3


@pytest.mark.parametrize("algorithm", ["hyperband", "forest", "bohb", "genetic"])
def test_what_is_known_before_training_bounds_every_trial(algorithm: str) -> None:
    free, bounded = run(algorithm), run(algorithm, "parameters<=700")
    assert max(widths(free)) > 7
    assert max(widths(bounded)) <= 7
    assert len(widths(bounded)) == len(widths(free)) == 45
    assert (free.summary.redrawn, free.summary.infeasible) == (0, None)
    assert bounded.summary.redrawn > 10


def test_the_forest_proposes_what_meets_the_bounds() -> None:
    """Its first trials are random; none of its own proposals is drawn again, although wide networks have less loss."""
    algorithm = Algorithm(sampler="forest", random_share=0.0)
    settings = replace(SETTINGS, algorithm=algorithm, constraints=("parameters<=600",))
    short, long = (simulate(replace(settings, trials=trials), curve, 4, costs=costs) for trials in (20, 45))
    assert short.summary.redrawn == long.summary.redrawn > 0


def test_the_forest_rates_what_probably_breaks_a_measured_bound_low() -> None:
    encoding = Encoding(distributions(synthetic.SPACE))
    random = np.random.default_rng(0)
    configurations = [draw_configuration(synthetic.SPACE, random) for _ in range(60)]
    results = [Result(n, 9, loss_of(c, 9), 1.0, {"latency": latency(c)}) for n, c in enumerate(configurations)]
    wide, narrow = ({"rate": 0.05, "width": width, "kind": "a"} for width in (15, 7))
    rows = encoding.features(encoding.rows([wide, narrow]))
    free, bounded = (
        learn(encoding, configurations, results, constraints=constraints).improvement(rows, np.ones(1))
        for constraints in ((), (parse_constraint("latency<=0.0085"),))
    )
    assert free[0] > free[1]
    assert bounded[0] < 0.01 * bounded[1]


def test_what_is_not_known_of_the_users_own_networks_is_measured() -> None:
    constraints = parse_constraints(["parameters<=700", "latency<=0.01"])
    for costs_of in (None, lambda _: {}):
        bounds, measured = split_constraints(constraints, synthetic.SPACE, costs_of)
        assert not bounds
        assert measured == constraints
    bounds, measured = split_constraints(constraints, synthetic.SPACE, costs)
    assert (bounds.constraints, measured) == (constraints[:1], constraints[1:])


def test_trials_that_break_what_is_measured_rank_last() -> None:
    simulation = run("hyperband", "latency<=0.010")
    broken = [width for width in widths(simulation) if width > 10]
    assert len(broken) == simulation.summary.infeasible
    assert len(broken) > 10
    assert max(widths(simulation, promoted=True)[5:]) <= 10  # the first rungs have too few results
    assert max(widths(run("hyperband"), promoted=True)[5:]) > 10


@pytest.mark.parametrize("algorithm", ["forest", "bohb"])
def test_samplers_learn_what_is_measured(algorithm: str) -> None:
    plain, learnt = run("hyperband", "latency<=0.007"), run(algorithm, "latency<=0.007")
    assert plain.summary.infeasible is not None
    assert learnt.summary.infeasible is not None
    assert learnt.summary.infeasible < 0.8 * plain.summary.infeasible


def test_bounds_that_no_configuration_meets_are_refused_in_one_line_before_the_search() -> None:
    with pytest.raises(SearchError) as error:
        run("hyperband", "parameters<=399")
    assert str(error.value) == (
        "none of 1,000 random configurations of space synthetic meets parameters<=399: the nearest has parameters 400; "
        "give another bound, or use another space"
    )


def test_a_configuration_is_drawn_of_all_ranges_also_of_one_value() -> None:
    space = Space("one", "none", {"a": Integer(3, 3), "b": Continuous(0.0, 1.0), "c": Continuous(2.0, 2.0)}, {"d": "x"})
    drawn = draw_configuration(space, np.random.default_rng(0))
    assert list(drawn) == ["a", "b", "c", "d"]
    assert (drawn["a"], drawn["c"], drawn["d"]) == (3, 2.0, "x")


def test_scores_and_seconds_of_training_are_read_from_the_member() -> None:
    member = replace(member_of(Job(0, {"rate": 0.1, "width": 4}, 0, 1)), seconds=3.0, costs={"joules": 2.0})
    member = replace(member, losses={"valid_macro_f1": 0.5, "valid_accuracy": float("nan")})
    names = ("train_seconds", "macro-f1", "joules", "accuracy", "latency")
    assert [read_value(name, member) for name in names] == [3.0, 0.5, 2.0, None, None]


class Pool(InlinePool):
    """A pool that is killed after `most` results."""

    def __init__(self, folder: Path, most: int = 10**9) -> None:
        self.most = most
        super().__init__(lambda job: measured(folder, job))

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        if self.most == 0:
            super().wait(timeout)  # the member is there, its result is lost
            raise KeyboardInterrupt
        self.most -= 1
        return super().wait(timeout)


def measured(folder: Path, job: Job) -> JobResult:
    library = Library(folder)
    if (member := library.find_job_member(job)) is None:
        member = member_of(job)
        library.add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member, values={} if job.start else {"latency": latency(job.configuration)})


BOTH = replace(SETTINGS, algorithm="forest", trials=20, window=4, constraints=("latency<=0.006", "parameters<=1000"))


def search(folder: Path, settings: Settings = BOTH, most: int = 10**9) -> Summary:
    return run_search(Library(folder), settings, Pool(folder, most), weight=synthetic.weight, costs=costs)


def test_a_killed_search_goes_on_with_the_same_trials_and_counts(tmp_path: Path) -> None:
    quiet, kills = search(tmp_path / "quiet"), random.Random(0)
    for _ in range(100):
        try:
            killed = search(tmp_path / "killed", most=kills.randrange(3, 12))
            break
        except KeyboardInterrupt:
            continue
    found = [{m.id: m.configuration for m in Library(tmp_path / name).members()} for name in ("quiet", "killed")]
    assert found[0] == found[1]
    assert killed.redrawn == quiet.redrawn > 0
    assert killed.infeasible == quiet.infeasible
    assert quiet.infeasible


def test_optuna_reads_the_violations_in_the_journal(tmp_path: Path) -> None:
    search(tmp_path)
    journal = Journal(Library(tmp_path).journal_path, synthetic.SPACE, "random", 0)
    trials = journal._storage.get_all_trials(journal._id)
    broken = [t.constraints["latency<="] > 0 for t in trials]
    assert broken == [t.params["width"] > 6 for t in trials]
    assert len(set(broken)) == 2


def test_a_resumed_search_keeps_its_constraints_and_refuses_others(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    resolve_settings(path, BOTH, 2, None)
    kept = kept_settings(path)
    assert kept is not None
    assert kept.constraints == BOTH.constraints
    resolve_settings(path, replace(BOTH, constraints=BOTH.constraints[::-1]), 2, None)
    with pytest.raises(SearchError, match=r"with constraints .*latency<=0.006.*, requested is .* none"):
        resolve_settings(path, replace(BOTH, constraints=()), 2, None)


def test_a_search_without_constraints_writes_none(tmp_path: Path) -> None:
    resolve_settings(tmp_path / "run.json", SETTINGS, 2, None)
    assert "constraints" not in (tmp_path / "run.json").read_text()
    kept = kept_settings(tmp_path / "run.json")
    assert kept is not None
    assert kept.constraints == ()
