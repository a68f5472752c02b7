"""The benchmarks of searches of cells: the table of EC-NAS, and the figures of a search."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.search.predictions import StepCorrelation

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    before = list(sys.path)
    sys.path[:0] = [str(BENCHMARKS / folder) for folder in ("nas", "search", "tasks", "selection", "engine")]
    try:
        import ecnas
        import ecnas_cells

        if not ecnas_cells.FILE.exists():
            pytest.skip("ecnas_cells.csv.gz is not here: it is in the folder shared/data/nas beside the project")
        yield ecnas, ecnas_cells
    finally:
        sys.path[:] = before


def test_each_cell_of_the_table_has_one_configuration(scripts: Any) -> None:
    _, cells = scripts
    table = cells.EcNas()
    assert set(table.configurations) == set(table.rows)
    assert len(table.rows) == 2532
    for cell, values in list(table.configurations.items())[::20]:
        assert table.cell(dict(zip(table.space.ranges, values, strict=True))) == cell


def test_isomorphic_cells_are_equal_and_loose_vertices_are_left_out(scripts: Any) -> None:
    _, cells = scripts
    one = cells.pruned((-1, 0, 1, 2, -2), [(0, 1), (1, 4), (0, 2), (2, 4), (0, 3)])
    assert one == cells.pruned((-1, 1, 2, 0, -2), [(0, 1), (1, 4), (0, 3), (3, 4)])
    assert len(one[0]) == 4


def test_a_cell_grows_into_those_that_have_it_and_one_vertex_more(scripts: Any) -> None:
    _, cells = scripts
    import ecnas_growth

    table = cells.EcNas()
    growth = ecnas_growth.EcNasGrowth(table)
    random = np.random.default_rng(0)
    assert {len(cell[0]) for cell in growth.first()} == {2, 3}
    reached = set(growth.first())
    for cell in sorted(reached, key=lambda cell: len(cell[0])):
        for child in growth.grow(cell, 50, random):
            assert len(child[0]) == len(cell[0]) + 1
            assert cell in {ecnas_growth.without(child, vertex) for vertex in range(1, len(child[0]) - 1)}
    assert all(growth.candidate(growth.values(cell)) == cell for cell in reached)
    chain = ((-1, 0, 1, -2), ((0, 1), (1, 2), (2, 3)))
    found = growth.features(chain, {"conv3x3": 1.0, "conv1x1": 0.25})
    assert (found["paths"], found["longest"], found["heaviest"], found["shortcut"]) == (1, 2, 1.25, 0)
    cut = ((-1, 0, 1, -2), ((0, 1), (0, 3), (1, 2), (2, 3)))
    assert sorted(ecnas_growth.find_paths(cut)) == [(), (1, 2)]


def test_a_search_trains_no_cell_twice_and_states_its_best_so_far(scripts: Any) -> None:
    ecnas, _ = scripts
    runs = []
    original = ecnas.figures
    ecnas.figures = lambda run, seconds: runs.append(run) or original(run, seconds)
    try:
        found = ecnas.search("random", 2, 0, 1500.0)
    finally:
        ecnas.figures = original
    members = list(ecnas.trained(runs[0]))
    assert found["cells"] == len(members) > 15
    best = min((cell for when, cell, _ in members if when <= 1000), key=lambda cell: cell.errors[1])
    assert found["after 1000"] == pytest.approx(100 * (1 - best.test_errors[1]))
    budget = ecnas.budgets()[0]
    within = min((c for _, c, _ in members if c.predict_seconds <= budget), key=lambda cell: cell.errors[1])
    assert found[f"within {budget:.2f} s"] == pytest.approx(100 * (1 - within.test_errors[1]))
    assert 50 < found["occupancy"] <= 100


def test_the_hypervolume_of_a_library_grows_with_better_cells(scripts: Any) -> None:
    ecnas, cells = scripts
    slow = cells.TrainedCell((0.5,), (0.5,), (1.0,), (1.0,), 3.0)
    fast = cells.TrainedCell((0.6,), (0.6,), (1.0,), (1.0,), 1.0)
    worse = cells.TrainedCell((0.7,), (0.1,), (1.0,), (1.0,), 2.0)  # lucky on test images: it is not chosen
    assert 0 < ecnas.library_volume([(slow, 1)]) < ecnas.library_volume([(slow, 1), (fast, 1)])
    assert ecnas.library_volume([(slow, 1), (fast, 1), (worse, 1)]) == ecnas.library_volume([(slow, 1), (fast, 1)])


def test_rank_correlations_of_steps_are_averaged_by_trials(scripts: Any) -> None:
    assert scripts
    import searched

    steps = [StepCorrelation(1, 30, 0.2, 0.9), StepCorrelation(2, 10, 0.6, None), StepCorrelation(3, 2, None, None)]
    assert searched.mean_correlations(steps) == pytest.approx({"rank of loss": 0.3, "rank of seconds": 0.9})
    assert searched.mean_correlations([]) == {}
