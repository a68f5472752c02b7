"""Best weights of a mean, and the distance of an ensemble from their cross-entropy.

Finding weights w on the simplex that maximise `mean log sum_m w_m t_m` means estimating the proportions of a
mixture. The problem is concave and solved by expectation-maximisation, `w_m <- w_m * g_m` with
g_m = mean(t_m / sum w t), which keeps the sum at one. At any w, Jensen's inequality bounds the remaining gain by
`log max g`: a certificate. A mean of some members is one such w, so the bound holds for every method that takes means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.metrics import FLOOR
from ripieno.types import Floats

ITERATIONS = 500
ENOUGH = 1e-6
"""Gap in nats at which the iteration stops."""


def best_weights(truth: NDArray[Any], iterations: int = ITERATIONS) -> tuple[Floats, float, float]:
    """Return EM weights (members,) of `truth` (members, samples), their cross-entropy and its lower bound."""
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
