"""Growth of cells along the predicted front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.errors import SearchError
from ripieno.models import cell_config
from ripieno.models.cell_config import cell_of, cell_slots
from ripieno.models.cell_spec import Cell, Edge, are_equal, canonical_cell
from ripieno.pipeline.search_request import check_growth
from ripieno.search import Categorical, Continuous, Integer, Settings, Space, simulate
from ripieno.search.algorithms import Algorithm, algorithm_to_plain, change_algorithm, find_algorithm
from ripieno.search.built_in_spaces import find_space
from ripieno.search.constraints import Bounds, Constraint
from ripieno.search.encoding import Encoding
from ripieno.search.growth import CellGrowth, draw_evenly, find_growth
from ripieno.search.growth_predictors import Drawn, Predictors
from ripieno.search.in_memory_study import Result
from ripieno.search.journal import Journal
from ripieno.search.popnas import PopnasSampler, exploring_places, front
from ripieno.search.samplers import bind_sampler
from ripieno.search.space import distributions

OPERATORS = ("identity", "conv3x3", "sep5x5", "max3x3")
SLOTS = {name: Categorical(values) for name, values in cell_config.slot_values(OPERATORS).items()}
CELLS = Space("cells", "cell", {"blocks": Integer(1, 5), **SLOTS})
WITH_MACRO = Space("cells", "cell", {**CELLS.ranges, "rate": Continuous(0.001, 0.1, log=True)})
ALGORITHM = Algorithm(brackets="full", sampler="popnas", first=10, beam=6, candidates=30)


def cell(values: Mapping[str, Any]) -> Cell:
    return cell_of(dict(values), "image")


def curve(values: Mapping[str, Any], epoch: int) -> tuple[float, float]:
    """Convolutions learn and take time; pools do neither."""
    counts = Counter(cell(values).operators)
    loss = 2.0 - 0.15 * min(counts["conv3x3"], 4) - 0.1 * min(counts["sep5x5"], 3) + 0.1 * counts["max3x3"]
    loss += 0.2 * abs(np.log10(values.get("rate", 0.01) / 0.01))
    return loss * (1 + 1 / epoch), epoch * (1.0 + 2 * counts["conv3x3"] + 4 * counts["sep5x5"])


def search(space: Space = CELLS, workers: int = 1, trials: int = 40, **options: Any) -> list[dict[str, Any]]:
    """Configurations of the trials, in the order of their numbers."""
    settings = Settings(space, options.pop("algorithm", ALGORITHM), epochs=options.pop("epochs", 1), trials=trials)
    found = simulate(settings, curve, workers, **options)
    drawn = {outcome.job.trial: outcome.job.configuration for outcome in found.outcomes}
    return [dict(drawn[trial]) for trial in sorted(drawn)]


def test_each_step_has_cells_of_one_block_more_and_no_cell_comes_twice() -> None:
    trials = search()
    steps = [len(cell(values).blocks) for values in trials]
    assert steps == [1] * 10 + [2] * 6 + [3] * 6 + [4] * 6 + [5] * 12
    assert len({cell(values) for values in trials}) == len(trials)


def parents(grown: Cell) -> set[Cell]:
    """Cells from which `grown` may have grown: without a block that no other reads."""
    found = set()
    for number in grown.outputs:
        left = [block for n, block in enumerate(grown.blocks) if n != number]
        lower = [[Edge(e.input - (e.input > number), e.operator) for e in block] for block in left]
        found.add(canonical_cell(Cell(tuple((first, second) for first, second in lower))))
    return found


def test_cells_grow_from_the_better_half_of_the_step_before_or_from_its_front() -> None:
    drawn: list[Cell] = []
    for values in search(trials=34):
        grown = cell(values)
        if len(grown.blocks) > 1:
            before = [c for c in drawn if len(c.blocks) == len(grown.blocks) - 1]
            known = {c: curve(cell_slots(c), 1) for c in before}
            ranked = sorted(before, key=lambda c: known[c][0])
            on_front = {
                c for c in before if not any(loss < known[c][0] and s < known[c][1] for loss, s in known.values())
            }
            assert parents(grown) & ({*ranked[: (len(ranked) + 1) // 2]} | on_front)
        drawn.append(grown)


def test_it_finds_better_cells_than_random_search() -> None:
    found, drawn = (
        min(curve(values, 1)[0] for values in search(trials=50, algorithm=algorithm))
        for algorithm in (ALGORITHM, "random")
    )
    assert found < drawn


def test_the_first_cells_have_all_parts_evenly() -> None:
    growth = CellGrowth(distributions(CELLS))
    every = growth.first()
    assert len(every) == len(set(every)) == 36  # pairs of 8 edges
    counts = Counter(part for one in draw_evenly(growth, every, 8) for part in growth.parts(one))
    assert {counts[name] for name in OPERATORS} == {4}
    assert counts["input -1"] == counts["input -2"] == 8
    assert draw_evenly(growth, every, 100) != every
    assert set(draw_evenly(growth, every, 100)) == set(every)


def test_cells_have_values_that_stand_for_them_and_grow_by_one_block() -> None:
    growth, random = CellGrowth(distributions(CELLS)), np.random.default_rng(0)
    for one in growth.first()[:5]:
        for grown in growth.grow(one, 5, random):
            values = growth.values(grown)
            assert set(values) == set(CELLS.ranges)
            assert growth.candidate(values) == grown
            assert growth.step(grown) == 2
            assert are_equal(grown, cell(values))


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    losses, seconds = np.array([3.0, 1.0, 2.0, 2.0, 1.5]), np.array([1.0, 9.0, 2.0, 3.0, 9.0])
    assert front(losses, seconds) == [1, 2, 0]


def test_exploration_takes_candidates_with_most_of_what_the_front_neglects() -> None:
    common = ("conv", "conv", "input -1", "input -2")
    parts = [common, common, ("conv", "pool", "input -1", "input -1"), ("pool", "pool", "input -1", "input 0")]
    assert exploring_places(parts, [0, 1]) == [3]
    assert exploring_places([*parts, ("pool", "gru", "input 0", "input -2")], [0, 1]) == [3, 4]
    assert exploring_places(parts, [0, 2, 3]) == []


def test_about_a_ninth_of_a_middle_step_explores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def noted(parts: Sequence[Sequence[str]], best: Sequence[int]) -> list[int]:
        asked.append(len(best))
        return exploring_places(parts, best)

    monkeypatch.setattr("ripieno.search.popnas.exploring_places", noted)
    search(trials=60, algorithm=change_algorithm(ALGORITHM, first=4, beam=16))
    assert 1 <= len(asked) <= 16  # of 48 in the steps of 2, 3 and 4 blocks


def test_a_search_that_was_interrupted_draws_the_same_cells() -> None:
    whole = search(WITH_MACRO, workers=3, trials=30)
    assert search(WITH_MACRO, workers=3, trials=30) == whole
    assert search(WITH_MACRO, workers=3, trials=22) == whole[:22]


def test_workers_never_wait_for_a_step_to_end() -> None:
    settings = Settings(CELLS, ALGORITHM, epochs=1, trials=80)
    assert simulate(settings, curve, 8).summary.occupancy > 0.85


def test_rungs_pause_and_promote_cells_and_teach_from_all_of_them() -> None:
    algorithm = Algorithm(sampler="popnas", first=10, beam=6, candidates=30)
    settings = Settings(CELLS, algorithm, epochs=9, trials=40)
    outcomes = simulate(settings, curve, 2).outcomes
    assert any(outcome.job.start > 0 for outcome in outcomes)
    assert max(len(cell(o.job.configuration).blocks) for o in outcomes) == 5


def test_macro_hyperparameters_are_searched_along_or_after() -> None:
    along = search(WITH_MACRO, trials=30)
    assert len({values["rate"] for values in along}) > 25
    after = search(WITH_MACRO, trials=50, algorithm=change_algorithm(ALGORITHM, macro="after"))
    assert [values["rate"] for values in after[:34]] == pytest.approx([0.01] * 34)
    last = after[34:]
    assert len({values["rate"] for values in last}) > 14
    best = min(curve({**values, "rate": 0.01}, 1)[0] for values in after[:34])
    again = [values for values in last if cell(values) in {cell(before) for before in after[:34]}]
    assert again
    assert min(curve({**values, "rate": 0.01}, 1)[0] for values in again) == best


def test_under_a_bound_cells_that_cannot_meet_it_are_left_out_and_the_search_grows_on() -> None:
    def pools(values: Mapping[str, Any]) -> dict[str, float]:
        return {"pools": float(cell(values).operators.count("max3x3")) + values.get("rate", 0.0)}

    for space in (CELLS, WITH_MACRO):
        bounds = Bounds((Constraint("pools", "<=", 0.05),), pools)
        journal = Journal(None, space, PARTIAL, 0, bounds)
        steps = []
        for trial in range(14):
            values = journal.configuration(trial)
            assert pools(values)["pools"] <= 0.05
            steps.append(len(cell(values).blocks))
            loss, seconds = curve(values, 1)
            journal.tell(trial, 1, loss, last=True, seconds=seconds)
        assert steps == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 2


def PARTIAL(seed: int) -> PopnasSampler:  # noqa: N802
    return PopnasSampler(seed, 0.0, 20, "extra-trees", 4, 4, "along")


def test_predictions_are_kept_with_their_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", CELLS, PARTIAL, 0)
    for trial in range(20):
        values = journal.configuration(trial)
        loss, seconds = curve(values, 1)
        journal.tell(trial, 1, loss, last=True, seconds=seconds)
    journal.sync()
    steps = {trial: found.step for trial, found in journal.predictions.items()}
    assert steps == {trial: len(cell(journal.configuration(trial)).blocks) for trial in range(20)}
    late = [journal.predictions[trial] for trial in range(12, 20)]
    real = [curve(journal.configuration(trial), 1) for trial in range(12, 20)]
    assert all(one.loss is not None and one.seconds is not None for one in late)
    seconds = [(one.seconds, true[1]) for one, true in zip(late, real, strict=True)]
    assert np.corrcoef(*zip(*seconds, strict=True))[0, 1] > 0.5
    assert Journal(tmp_path / "journal.jsonl", CELLS, PARTIAL, 0).predictions == journal.predictions


def test_options_are_those_of_popnas_alone() -> None:
    found = find_algorithm("popnas")
    assert (found.brackets, found.first, found.beam, found.macro) == ("full", 32, 24, "along")
    assert find_algorithm("hyperband+popnas").beam == 24
    assert {"first", "beam", "macro"} <= algorithm_to_plain(found).keys()
    assert not {"first", "beam", "macro"} & algorithm_to_plain(find_algorithm("hyperband")).keys()
    with pytest.raises(SearchError, match="sampler random has no option beam"):
        change_algorithm("random", beam=3)
    with pytest.raises(SearchError, match="macro 'later'"):
        Algorithm(sampler="popnas", macro="later")  # type: ignore[arg-type]
    for wrong in ({"learner": "oracle"}, {"time_learner": "clock"}):
        with pytest.raises(SearchError, match=f"no {next(iter(wrong))} '{next(iter(wrong.values()))}'; there are: "):
            Journal(None, CELLS, bind_sampler("popnas", wrong), 0).configuration(0)
    with pytest.raises(SearchError, match="no learner 'oracle'; there are: extra-trees"):
        Journal(None, CELLS, lambda seed: PopnasSampler(seed, 0, 9, "oracle", 4, 4, "along"), 0).configuration(0)


def test_a_space_without_growth_is_refused() -> None:
    other = Space("other", "resnet", {"rate": Continuous(0.0, 1.0)})
    assert find_growth(distributions(other)) is None
    with pytest.raises(SearchError, match="do not grow: popnas needs a space of family cell"):
        Journal(None, other, PARTIAL, 0).configuration(0)


@pytest.mark.parametrize("name", ["cell", "cell-series", "cell-segmentation"])
def test_built_in_spaces_of_cells_grow(name: str) -> None:
    assert find_growth(distributions(find_space(name))) is not None


@pytest.mark.parametrize(
    "limit", [{"blocks": Integer(2, 5)}, {"input_1a": Categorical((-1,))}, {"operator_2b": Categorical(OPERATORS[:2])}]
)
def test_a_space_that_limits_some_slots_does_not_grow(limit: dict[str, Any]) -> None:
    space = Space("limited", "cell", {**CELLS.ranges, **limit})
    assert find_growth(distributions(space)) is None
    with pytest.raises(SearchError, match="space limited of family cell cannot: give it blocks from 1"):
        check_growth(Settings(space, "popnas"))


def test_losses_of_zero_are_predicted_as_they_are_measured() -> None:
    journal = Journal(None, CELLS, PARTIAL, 0)
    losses = []
    for trial in range(24):
        loss, seconds = curve(journal.configuration(trial), 1)
        losses.append(max(0.0, loss - 3.0))
        journal.tell(trial, 1, losses[-1], last=True, seconds=seconds)
    assert min(losses) == 0 < max(losses)
    predicted = [one.loss for one in journal.predictions.values() if one.loss is not None]
    assert min(predicted) >= 0


@pytest.mark.parametrize("learner", ["ridge", "extra-trees"])
def test_seconds_are_predicted_by_the_model_of_that_name(learner: str) -> None:
    growth, macro = CellGrowth(distributions(CELLS)), Encoding({})
    drawn = [Drawn(one, np.empty((1, 0))) for one in growth.first()]
    times = [curve(growth.values(one.candidate), 1) for one in drawn]
    results = [Result(trial, 1, *pair, last=True) for trial, pair in enumerate(times[:24])]
    found = Predictors(growth, macro, drawn, results, time_learner=learner).seconds(drawn[24:])
    assert np.corrcoef(np.log(found), np.log([seconds for _, seconds in times[24:]]))[0, 1] > 0.8


def test_a_step_whose_cells_are_used_up_gives_way_to_the_next() -> None:
    few = {name: Categorical(values) for name, values in cell_config.slot_values(("conv3x3",)).items()}
    space = Space("few", "cell", {"blocks": Integer(1, 3), **few})
    trials = search(space, trials=40, algorithm=change_algorithm(ALGORITHM, first=3, beam=30))
    steps = Counter(len(cell(values).blocks) for values in trials)
    # of one operator there are three cells of one block, and 15 of two
    assert (steps[1], steps[2]) == (3, 15)
    assert len({cell(values) for values in trials}) == 40


def test_where_no_cell_grows_any_more_new_ones_are_drawn_at_random() -> None:
    space = Space("one", "cell", {**CELLS.ranges, "blocks": Integer(1, 1)})
    trials = search(space, trials=25)
    assert len({cell(values) for values in trials}) == 25
