"""Greedy steps over an objective whose losses and floors are given."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.selection.objective import Floats, Ints, ParentBounds
from ripieno.selection.tree import CHUNK, Tree


class Given:
    """Every ensemble's loss with a further member is that member's of `losses`, its floor that of `floors`."""

    diminishing = False

    def __init__(self, losses: Floats, floors: Floats) -> None:
        self.size = len(losses)
        self._losses, self._floors = losses, floors

    def state(self, members: tuple[int, ...]) -> tuple[int, ...]:
        return members

    def extend(self, state: tuple[int, ...], member: int) -> tuple[int, ...]:
        return (*state, member)

    def losses(self, state: tuple[int, ...], candidates: Ints) -> Floats:
        return self._losses[candidates]

    def floors(self, state: tuple[int, ...], loss: float, above: ParentBounds | None, /) -> Floats:
        return self._floors

    def nbytes(self) -> int:
        return 8


def step(losses: Floats, floors: Floats, ceiling: float = np.inf) -> tuple[int | None, int]:
    """The member that the first step takes, and how many were evaluated for it."""
    tree = Tree(Given(losses, floors))
    found = tree.step(tree.root, np.arange(len(losses)), 1.0, np.zeros(len(losses)), ceiling)
    return found, tree.evaluations


@pytest.mark.parametrize("lowest", [0, 1, 40])
def test_of_equal_losses_the_lowest_index_is_taken_though_its_floor_is_looked_at_last(lowest: int) -> None:
    members = 3 * CHUNK
    losses, floors = np.full(members, 2.0), np.full(members, 0.5)
    losses[[lowest, members - 1]] = 1.0
    floors[[lowest, members - 1]] = 0.9, 0.0
    assert step(losses, floors)[0] == lowest


def test_members_whose_floor_is_above_the_best_loss_are_not_evaluated() -> None:
    losses = np.linspace(1.0, 2.0, 10 * CHUNK)
    assert step(losses, losses - 0.01) == (0, CHUNK)


def test_nothing_is_taken_that_is_not_below_the_ceiling() -> None:
    losses = np.array([1.0, 2.0])
    assert step(losses, losses - 0.5, ceiling=1.0)[0] is None
    assert step(losses, losses - 0.5, ceiling=1.0 + 1e-9)[0] == 0
