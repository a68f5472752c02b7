"""Greedy steps over an objective with given losses and lower bounds."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.selection.tree import CHUNK, FEW, ParentBounds, Tree
from ripieno.types import Floats, Ints


class Given:
    """An objective in which a further member has its entry of `losses` as loss and of `bounds` as lower bound."""

    submodular = False

    def __init__(self, losses: Floats, bounds: Floats) -> None:
        self.size = len(losses)
        self._losses, self._bounds = losses, bounds

    def state(self, members: tuple[int, ...]) -> tuple[int, ...]:
        return members

    def extend(self, state: tuple[int, ...], member: int) -> tuple[int, ...]:
        return (*state, member)

    def losses(self, state: tuple[int, ...], candidates: Ints) -> Floats:
        return self._losses[candidates]

    def lower_bounds(self, state: tuple[int, ...], loss: float, above: ParentBounds | None, /) -> Floats:
        return self._bounds

    def nbytes(self) -> int:
        return 8


def step(losses: Floats, bounds: Floats, ceiling: float = np.inf) -> tuple[int | None, int]:
    """Return the member selected by the first step, and the number of evaluations."""
    tree = Tree(Given(losses, bounds))
    found = tree.step(tree.root, np.arange(len(losses)), 1.0, np.zeros(len(losses)), ceiling)
    return found, tree.evaluations


@pytest.mark.parametrize("lowest", [0, 1, 40])
def test_of_equal_losses_the_lowest_index_is_taken_though_it_is_evaluated_last(lowest: int) -> None:
    members = 3 * FEW
    losses, bounds = np.full(members, 2.0), np.full(members, 0.5)
    losses[[lowest, members - 1]] = 1.0
    bounds[[lowest, members - 1]] = 0.9, 0.0
    assert step(losses, bounds)[0] == lowest


def test_members_with_a_bound_above_the_best_loss_are_not_evaluated() -> None:
    losses = np.linspace(1.0, 2.0, 10 * CHUNK)
    assert step(losses, losses - 0.01) == (0, CHUNK)


def test_nothing_is_taken_that_is_not_below_the_ceiling() -> None:
    losses = np.array([1.0, 2.0])
    assert step(losses, losses - 0.5, ceiling=1.0)[0] is None
    assert step(losses, losses - 0.5, ceiling=1.0 + 1e-9)[0] == 0
