"""Contract of every sampler, and the view of the trials that samplers get."""

from __future__ import annotations

from itertools import combinations
from math import log
from typing import Any

import pytest
from optuna.trial import TrialState

from ripieno.errors import SearchError
from ripieno.search.algorithms import ALGORITHMS, Algorithm, find_algorithm, find_mismatch
from ripieno.search.generations import POPULATION, Generations
from ripieno.search.in_memory_study import InMemoryStudy, ranked
from ripieno.search.samplers import SAMPLERS, find_sampler, sample, trial_seed
from ripieno.search.scheduler import TrialStep
from ripieno.search.space import Categorical, Continuous, Integer, Space, distributions

SPACE = Space(
    "mixed",
    "none",
    {
        "rate": Continuous(1e-4, 1.0, log=True),
        "share": Continuous(0.0, 1.0),
        "width": Integer(4, 64, log=True),
        "blocks": Integer(2, 10, step=2),
        "kind": Categorical(("a", "b", True)),
        "only": Integer(3, 3),
    },
)


def loss_of(values: dict[str, Any]) -> float:
    """Return a loss: best at rate 0.01, share 0.3, many blocks, kind b; always above zero."""
    near = abs(log(values["rate"] / 0.01)) / 4 + abs(values["share"] - 0.3)
    return float(near + (10 - values["blocks"]) / 20 + (values["kind"] != "b") * 0.5) + 0.1


def search(name: str, trials: int, seed: int = 0) -> InMemoryStudy:
    """Run trials one after the other and report each at once; the seventh fails."""
    view = InMemoryStudy(distributions(SPACE))
    for trial in range(trials):
        view.start(sample(find_sampler(name), view, seed))
        values = view.get_all_trials(0)[trial].params
        view.tell(trial, 9, None if trial == 7 else loss_of(values), last=True)
    return view


def values_of(view: InMemoryStudy) -> list[dict[str, Any]]:
    return [t.params for t in view.get_all_trials(0)]


GENERAL = [name for name in SAMPLERS if name != "popnas"]
"""Samplers of any space; the other grows cells, see test_popnas.py."""


@pytest.fixture(params=GENERAL)
def sampler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "smac":
        pytest.importorskip("smac", reason="needs the extra smac")
    return name


def test_a_sampler_asked_again_with_the_same_results_answers_the_same(sampler: str) -> None:
    view = search("random", 14)
    answers = [sample(find_sampler(sampler), view, 3) for _ in range(2)]
    assert answers[0] == answers[1]
    assert sample(find_sampler(sampler), view, 4) != answers[0]
    assert len(view) == 14  # asking leaves no trace


def test_every_value_is_one_its_range_allows(sampler: str) -> None:
    for values in values_of(search(sampler, 12)):
        assert values.keys() == SPACE.ranges.keys()
        assert 1e-4 <= values["rate"] <= 1.0
        assert type(values["width"]) is int
        assert 4 <= values["width"] <= 64
        assert values["blocks"] in (2, 4, 6, 8, 10)
        assert values["kind"] in ("a", "b", True)
        assert values["only"] == 3


@pytest.mark.parametrize("name", [s for s in GENERAL if s not in ("random", "smac", "gp", "parego-gp")])
def test_a_sampler_that_learns_finds_better_trials_than_random_draws(name: str) -> None:
    trials = 150 if name.startswith("nsga") else 60  # their generations are of 50
    late = {
        n: [loss_of(v) for s in range(2) for v in values_of(search(n, trials, s))[trials - 20 :]]
        for n in (name, "random")
    }
    assert sum(late[name]) < 0.8 * sum(late["random"])


@pytest.mark.parametrize("name", ["gp", "smac"])
def test_a_slow_sampler_that_learns_finds_better_trials_than_random_draws(name: str) -> None:
    if name == "smac":
        pytest.importorskip("smac", reason="needs the extra smac")
    late = {n: sorted(loss_of(v) for v in values_of(search(n, 16))[11:])[2] for n in (name, "random")}
    assert late[name] < 0.8 * late["random"]  # the median of five


def test_samplers_see_a_paused_trial_with_its_losses_and_a_promoted_one_as_it_was() -> None:
    view = InMemoryStudy(distributions(SPACE))
    for _ in range(4):
        view.start(sample(find_sampler("random"), view, 0))
    view.tell(0, 1, 0.9, last=False)
    view.tell(1, 1, 0.8, last=False)
    view.tell(0, 3, 0.5, last=True)
    view.tell(2, 1, 0.1, last=False)
    view.tell(2, 3, None, last=True)
    seen = view.study().get_trials()
    assert [t.state for t in seen] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.RUNNING]
    assert [t.intermediate_values for t in seen] == [{1: 0.9, 3: 0.5}, {1: 0.8}, {}, {}]
    assert [t.value for t in seen] == [0.5, 0.8, None, None]
    assert [t.number for t in ranked(view.study())] == [0, 1]  # further is better; what failed has no rank


def test_trials_of_a_higher_rung_rank_before_better_losses_of_a_lower_one() -> None:
    view = InMemoryStudy(distributions(SPACE))
    for trial, (epoch, loss) in enumerate([(1, 0.1), (9, 0.7), (3, 0.3), (9, 0.6)]):
        view.start(sample(find_sampler("random"), view, 0))
        view.tell(trial, epoch, loss, last=epoch == 9)
    assert [t.number for t in ranked(view.study())] == [3, 1, 2, 0]


def test_equal_trials_rank_in_the_order_of_their_start() -> None:
    view = InMemoryStudy(distributions(SPACE))
    for trial, loss in enumerate([0.5, 0.3, 0.5, 0.3, 0.5]):
        view.start(sample(find_sampler("random"), view, 0))
        view.tell(trial, 9, loss, last=True)
    assert [t.number for t in ranked(view.study())] == [1, 3, 0, 2, 4]


def test_no_two_trials_of_any_seeds_draw_alike() -> None:
    assert len({trial_seed(seed, trial) for seed in range(30) for trial in range(30)}) == 900
    assert trial_seed(3, 5) == trial_seed(3, 5)


def test_a_child_has_only_values_of_its_parents_and_new_ones_and_is_hardly_ever_a_copy() -> None:
    view = search("genetic", POPULATION)
    known = values_of(view)
    parents = [t.params for t in ranked(view.study())[:POPULATION]]
    inherited = copies = 0
    for seed in range(30):
        child = sample(find_sampler("genetic"), view, seed)
        copies += child in known
        inherited += sum(any(child[name] == p[name] for p in parents) for name in ("rate", "share"))
    assert copies <= 3  # a new draw may give the same of three kinds
    assert inherited > 30  # of 60 that could be; a new draw hits none of them


WIDE = Space("wide", "none", {name: Continuous(0.0, 1.0) for name in "abcd"} | {"only": Integer(3, 3)})
"""A space with distinct values: each identifies its trial."""


def children(trials: int, count: int) -> list[dict[str, int]]:
    """Return the parent's rank of each inherited value, for `count` children of the given number of trials."""
    view = InMemoryStudy(distributions(WIDE))
    for trial in range(trials):
        view.start(sample(find_sampler("random"), view, 0))
        view.tell(trial, 9, ((trial * 7) % trials) / trials, last=True)
    ranks = {t.params[name]: place for place, t in enumerate(ranked(view.study())) for name in "abcd"}
    study, new = view.study(), view.new()
    bred = []
    for seed in range(count):
        genetic = find_sampler("genetic")(seed)
        values = genetic.sample_relative(study, new, genetic.infer_relative_search_space(study, new))
        bred.append({name: ranks[value] for name, value in values.items() if name != "only"})
    return bred


def test_a_parent_is_the_better_of_two_drawn_from_the_best_dozen() -> None:
    found = [rank for child in children(20, 1500) for rank in child.values()]
    assert max(found) < POPULATION == 12
    # of two of twelve the better is of rank r with probability (23 - 2 r) / 144
    for rank in range(12):
        assert found.count(rank) / len(found) == pytest.approx((23 - 2 * rank) / 144, abs=0.025)


def test_nine_children_of_ten_have_two_parents_and_take_after_each_alike() -> None:
    pairs = [pair for child in children(12, 3000) for pair in combinations(child.values(), 2)]
    # two values are of two parents when there are two (0.9), not the same (8/9), and each gave one (1/2)
    assert sum(a != b for a, b in pairs) / len(pairs) == pytest.approx(0.9 * 8 / 9 / 2, abs=0.02)


def test_a_child_has_a_value_of_its_own_and_each_mutates_equally_often() -> None:
    bred = children(12, 1500)
    assert all(len(child) < 4 for child in bred)
    # one of the four in any case, and each of five ranges with probability 1/5
    for name in "abcd":
        drawn = sum(name not in child for child in bred) / len(bred)
        assert drawn == pytest.approx(1 - 3 / 4 * 4 / 5, abs=0.04)


def test_the_first_generation_is_drawn_at_random() -> None:
    assert all(child == {} for child in children(POPULATION - 1, 20))
    assert any(child for child in children(POPULATION, 20))


def test_a_generation_waits_for_all_of_the_one_before() -> None:
    scheduler = Generations(9, population=3, trials=7)
    for trial in range(3):
        (step,) = scheduler.candidates()
        assert step == TrialStep(trial, 0, 9)
        scheduler.start(step)
    for trial in (2, 0):
        assert list(scheduler.candidates()) == []
        scheduler.tell(TrialStep(trial, 0, 9), 0.5)
    scheduler.tell(TrialStep(1, 0, 9), None)  # a failure is a result too
    for _ in range(3, 6):
        (step,) = scheduler.candidates()
        scheduler.start(step)
    for trial in range(3, 6):
        assert list(scheduler.candidates()) == []
        scheduler.tell(TrialStep(trial, 0, 9), 0.5)
    assert list(scheduler.candidates()) == [TrialStep(6, 0, 9)]
    scheduler.start(TrialStep(6, 0, 9))
    scheduler.tell(TrialStep(6, 0, 9), 0.1)
    assert list(scheduler.candidates()) == []
    with pytest.raises(SearchError, match="at least 1"):
        Generations(9, trials=0)


def test_every_algorithm_has_its_name_and_a_sampler_there_is() -> None:
    assert {"random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic"} <= ALGORITHMS.keys()
    for name, algorithm in ALGORITHMS.items():
        assert find_algorithm(name) == algorithm
        assert algorithm.name == name
        assert algorithm.sampler in SAMPLERS


def test_any_scheduler_and_sampler_make_an_algorithm() -> None:
    assert find_algorithm("asha+tpe") == Algorithm(brackets="one", sampler="tpe")
    with pytest.raises(SearchError, match="no scheduler 'ash'; there are: full"):
        find_algorithm("ash+tpe")
    with pytest.raises(SearchError, match="no sampler 'tpee'; there are: random"):
        find_algorithm("asha+tpee")


@pytest.mark.parametrize("name", ["asha+gp", "hyperband+gp", "hyperband-stopping+gp"])
def test_gp_with_a_scheduler_that_ends_few_trials_is_warned_of(name: str) -> None:
    assert find_mismatch(name).startswith("sampler gp learns only from trials at their last epoch")


def test_generations_with_a_sampler_that_needs_none_are_warned_of() -> None:
    assert find_mismatch("generations+random").endswith("use full+random")


def test_pairs_that_work_together_are_not_warned_of() -> None:
    assert {find_mismatch(name) for name in (*ALGORITHMS, "full+gp", "generations+gp", "asha+forest")} - {""} == {
        find_mismatch("generations+gp")
    }
