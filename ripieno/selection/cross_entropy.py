"""Cross-entropy of a mean, computed from true-class probabilities alone.

Theory of operation. The cross-entropy of the mean of k members needs one number per member and sample, t, the
probability of the true class: with the running sum S of the chosen members, a candidate's loss is
`log(k+1) - mean log(S + t)`. Three optimisations leave the result unchanged:

- One logarithm per 16 factors: S + t >= 1e-15, so a product of 16 cannot underflow a double (1e-240). The matrix is
  padded to a multiple of 16 with ones: their mean is one and its logarithm is zero.
- A lower bound for every candidate from one matrix-vector product. The logarithm is concave, so with u = t/S (Jensen)
  `mean log(S + t) = mean log S + mean log(1 + u) <= mean log S + log(1 + mean u)`; this is tighter than the tangent
  `mean u` at the same cost. The caller evaluates candidates in the order of their bounds and stops when a bound exceeds
  the best loss. The product runs in single precision; its worst rounding error is added, so that the bound stays
  valid.
- The clip at 1e-15 is skipped when S alone is above it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.selection.tree import ParentBounds
from ripieno.tasks.metrics import FLOOR
from ripieno.types import Floats, Ints

FACTORS = 16
"""Probabilities multiplied before one logarithm is taken: 1e-15 ** 16 is still a normal double."""
ITERATIONS = 500
ENOUGH = 1e-6
"""Gap in nats at which the iteration stops."""
CACHED = 1 << 15
"""Entries of candidate sums computed together: they fit in a core's cache."""


class CrossEntropySum(NamedTuple):
    """Running sum of true-class probabilities (padded samples,) over `members` members."""

    total: Floats
    members: int
    lowest: float
    """smallest entry of `total`"""


class CrossEntropy:
    """Objective over a matrix `truth` (members, samples), or its rows; floats in 0..1. Memory must hold it twice."""

    submodular = False

    def __init__(self, truth: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        self.size, self.samples = len(truth), len(truth[0])
        self._rows = _padded(truth)
        self._single = self._rows.astype(np.float32, copy=False)
        self._sums = np.empty((max(1, CACHED // self._rows.shape[1]), self._rows.shape[1]))
        # relative error of a dot product of non-negative numbers in single precision, and of its rounded factors
        self._slack = 1.0 + (self.samples + 4) * 2.0**-24

    @property
    def truth(self) -> NDArray[Any]:
        """The matrix (members, samples)."""
        return self._rows[:, : self.samples]

    def state(self, members: tuple[int, ...]) -> CrossEntropySum:
        """Return the sum of `members` in their order."""
        state = CrossEntropySum(np.zeros(self._rows.shape[1]), 0, 0.0)
        for member in members:
            state = self.extend(state, member)
        return state

    def extend(self, state: CrossEntropySum, member: int) -> CrossEntropySum:
        """Return the sum with one more member."""
        total = state.total + self._rows[member]
        return CrossEntropySum(total, state.members + 1, float(total.min()))

    def losses(self, state: CrossEntropySum, candidates: Ints) -> Floats:
        """Return the cross-entropy of the mean with each candidate."""
        count = state.members + 1
        logarithms = np.empty(len(candidates))
        for start in range(0, len(candidates), len(self._sums)):
            part = candidates[start : start + len(self._sums)]
            sums = np.add(self._rows[part], state.total, out=self._sums[: len(part)])
            if state.lowest < count * FLOOR:
                np.maximum(sums, count * FLOOR, out=sums)
            products = np.multiply.reduce(sums.reshape(len(part), FACTORS, -1), axis=1)
            logarithms[start : start + len(part)] = np.log(products, out=products).sum(axis=1)
        losses: Floats = (self._rows.shape[1] * math.log(count) - logarithms) / self.samples
        return losses

    def lower_bounds(self, state: CrossEntropySum, loss: float, _above: ParentBounds | None) -> Floats:
        """Return `loss` minus the largest possible gain (Jensen)."""
        count = state.members
        if count == 0:
            return np.full(self.size, -1e300)
        total = state.total if state.lowest >= count * FLOOR else np.maximum(state.total, count * FLOOR)
        inverse = np.reciprocal(total.astype(np.float32))
        inverse[self.samples :] = 0.0
        # a clipped candidate is at most t + 1e-15: max(a + b, x + y) <= max(a, x) + max(b, y)
        clipped = FLOOR * float(inverse.sum()) / self.samples
        ratios = (self._single @ inverse).astype(np.float64)
        gains: Floats = np.log1p((ratios / self.samples + clipped) * self._slack)
        rounding = 1e-12 * (1.0 + abs(loss))
        return loss + math.log1p(1 / count) - rounding - gains

    def nbytes(self) -> int:
        """Return the bytes of a running sum."""
        return int(self._rows.shape[1]) * 8


def _padded(truth: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Pad `truth` with ones to a multiple of 16, in float64 if any row is, else float32; copy only if needed."""
    dtype = np.float64 if any(row.dtype == np.float64 for row in truth) else np.float32
    samples = len(truth[0])
    if isinstance(truth, np.ndarray) and truth.dtype == dtype and samples % FACTORS == 0:
        return np.ascontiguousarray(truth)
    rows = np.empty((len(truth), samples + -samples % FACTORS), dtype=dtype)
    rows[:, samples:] = 1.0
    for target, row in zip(rows, truth, strict=True):
        target[:samples] = row
    return rows


def best_weights(truth: NDArray[Any], iterations: int = ITERATIONS) -> tuple[Floats, float, float]:
    """Return EM weights (members,) of `truth` (members, samples), their cross-entropy and its lower bound.

    Finding weights w on the simplex that maximise `mean log sum_m w_m t_m` means estimating the proportions of a
    mixture. The problem is concave and solved by expectation-maximisation, `w_m <- w_m * g_m` with
    g_m = mean(t_m / sum w t), which keeps the sum at one. At any w, Jensen's inequality bounds the remaining gain by
    `log max g`: a certificate. A mean of some members is one such w, so the bound holds for every method that takes
    means.
    """
    matrix = np.maximum(truth.astype(np.float64), FLOOR)
    weights = np.full(len(matrix), 1.0 / len(matrix))
    lowest = -np.inf
    for _ in range(iterations):
        mixed = weights @ matrix
        gradient = matrix @ (1.0 / mixed) / matrix.shape[1]
        loss = float(-np.log(mixed).mean())
        lowest = max(lowest, loss - float(np.log(gradient.max())))
        if loss - lowest < ENOUGH:
            break
        # over-relaxed: the square of the ratio converges twice as fast; reverted if the loss rises
        bold = weights * gradient**2
        bold /= bold.sum()
        weights = bold if -np.log(bold @ matrix).mean() <= loss else weights * gradient
    return weights, float(-np.log(weights @ matrix).mean()), lowest
