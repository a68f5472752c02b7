"""Task of policies: its actions, its seeds, and the returns that judge it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ripieno.errors import DataError
from ripieno.tasks.registry import check_task, kind_of
from ripieno.types import Task, ranking_loss

BOX = Task("policy", (2,), ("0", "1"), "return", (-1.0, 0.0), (1.0, 2.0))
DISCRETE = Task("policy", (3,), ("0", "1", "2"), "return")
SEEDS = np.array([[3], [4], [5]], np.float32)


def test_the_loss_is_minus_the_mean_return():
    losses = kind_of(BOX).losses(np.array([[1.0], [2.0], [6.0]]), SEEDS, BOX)
    assert losses == {"valid_negative_return": -3.0, "valid_return": 3.0}
    assert ranking_loss(losses) == -3.0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"high": (1.0,)}, "2 lower and 1 upper bounds"),
        ({"low": (-1.0,), "high": (1.0,)}, "2 dimensions and bounds of 1"),
        ({"low": (-1.0, 2.0)}, "action '1' is bounded by 2 and 2"),
        ({"low": (-float("inf"), 0.0)}, "action '0' is bounded by -inf and 1"),
        ({"names": ("0", "0")}, "0"),
        ({"output": (3,)}, "3"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(change, error):
    check_task(BOX, "the run", DataError)
    with pytest.raises(DataError, match=error):
        check_task(dataclasses.replace(BOX, **change), "the run", DataError)


def test_a_single_discrete_action_is_no_task():
    check_task(DISCRETE, "the run", DataError)
    with pytest.raises(DataError, match="nothing is to be decided"):
        check_task(Task("policy", (1,), ("0",)), "the run", DataError)


def test_seeds_are_different_whole_numbers():
    kind = kind_of(BOX)
    kind.check_targets(SEEDS, BOX, "the run", DataError)
    assert np.array_equal(kind.read_targets([3, 4, 5], BOX, "seeds", DataError), SEEDS)
    for wrong in ([0.5], [-1], [1 << 25]):
        with pytest.raises(DataError, match="must be seeds"):
            kind.read_targets(wrong, BOX, "seeds", DataError)
    with pytest.raises(DataError, match="seed 3 stands twice"):
        kind.check_targets(np.array([[3], [3]], np.float32), BOX, "the run", DataError)


def test_returns_are_finite_numbers_one_an_episode():
    kind = kind_of(BOX)
    assert kind.read_predictions("a", np.array([1, 2, 3]), BOX, DataError).shape == (3, 1)
    with pytest.raises(DataError, match=r"must be \(episodes, 1\)"):
        kind.read_predictions("a", np.zeros((3, 2)), BOX, DataError)
    with pytest.raises(DataError, match="a: returns"):
        kind.read_predictions("a", np.array([[1.0], [np.nan]]), BOX, DataError)


def test_the_disagreement_of_returns_is_their_mean_difference():
    returns = [np.array([[0.0], [0.0]]), np.array([[2.0], [4.0]]), np.array([[2.0], [4.0]])]
    assert kind_of(BOX).disagreement(returns, SEEDS[:2]) == [3.0, 1.5, 1.5]
