"""Fronts and their hypervolume, against Optuna's."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.selection.hypervolume import hypervolume, pareto_front, reference_point

optuna = pytest.importorskip("optuna._hypervolume")


@pytest.mark.parametrize("seed", range(20))
def test_the_hypervolume_is_that_of_optuna(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.round(rng.random((rng.integers(1, 30), 2)), 1)  # ties in cost and loss, and points twice
    expected = optuna.compute_hypervolume(points, np.array([1.0, 1.0]))
    assert hypervolume([tuple(point) for point in points.tolist()], (1.0, 1.0)) == pytest.approx(expected)


def test_points_that_do_not_dominate_the_reference_add_nothing() -> None:
    inside, outside = [(1.0, 2.0), (2.0, 1.0)], [(0.5, 5.0), (5.0, 0.5), (3.0, 0.1), (0.1, 3.0)]
    assert hypervolume(inside, (3.0, 3.0)) == 3.0
    assert hypervolume([*outside, *inside], (3.0, 3.0)) == 3.0
    assert hypervolume(outside, (3.0, 3.0)) == 0.0


def test_a_front_has_no_dominated_point_and_none_twice() -> None:
    points = [(2.0, 1.0), (1.0, 2.0), (2.0, 1.0), (3.0, 1.0), (2.0, 3.0), (1.0, 2.5)]
    assert pareto_front(points) == ((1.0, 2.0), (2.0, 1.0))


def test_the_reference_is_above_all_fronts() -> None:
    assert reference_point([[(1.0, 10.0)], [], [(20.0, 4.0)]], margin=1.5) == (30.0, 15.0)
    assert reference_point([[], []]) is None
