"""Squared error of a mean, computed from the Gram matrix of the residuals.

With residuals e_i = p_i - y of each member, the error of the mean of a set A of k members is `sum_ij e_i . e_j / k^2`
over i and j in A. It needs only the matrix of scalar products (members, members), computed once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.tree import ParentBounds
from ripieno.types import Floats, Ints

BLOCK_BYTES = 32 << 20
"""Bytes of residuals held in double at a time."""


class Products(NamedTuple):
    """Scalar products of the residual sum over `members` members: with each member's residuals, and with itself."""

    each: Floats
    itself: float
    members: int


class SquaredError:
    """Objective over `predictions` (members, samples[, outputs]) and `targets` (samples[, outputs])."""

    submodular = False

    def __init__(self, predictions: NDArray[Any], targets: NDArray[Any]) -> None:
        self.size, self.samples = predictions.shape[:2]
        self._gram = np.zeros((self.size, self.size))
        block = max(1, BLOCK_BYTES // (8 * predictions[:, 0].size))
        for start in range(0, self.samples, block):
            residuals = predictions[:, start : start + block] - targets[start : start + block].astype(np.float64)
            residuals = residuals.reshape(self.size, -1)
            self._gram += residuals @ residuals.T
        self._gram /= self.samples
        self._own = self._gram.diagonal().copy()

    def state(self, members: tuple[int, ...]) -> Products:
        """Return the products of the sum of `members`."""
        state = Products(np.zeros(self.size), 0.0, 0)
        for member in members:
            state = self.extend(state, member)
        return state

    def extend(self, state: Products, member: int) -> Products:
        """Return the products with one more member."""
        itself = state.itself + 2 * state.each[member] + self._own[member]
        return Products(state.each + self._gram[member], float(itself), state.members + 1)

    def losses(self, state: Products, candidates: Ints) -> Floats:
        """Return the squared error of the mean with each candidate."""
        total = state.itself + 2 * state.each[candidates] + self._own[candidates]
        losses: Floats = np.maximum(total, 0.0) / (state.members + 1) ** 2
        return losses

    def lower_bounds(self, state: Products, _loss: float, _above: ParentBounds | None) -> Floats:
        """Return the losses themselves."""
        return self.losses(state, np.arange(self.size))

    def nbytes(self) -> int:
        """Return the bytes of the products."""
        return int(self.size) * 8
