"""Expected loss of a selection on samples that it has not seen, by cross-validation over the selection samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ripieno.selection.member_data import sample_losses
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.validation import Loss
from ripieno.tasks import metrics
from ripieno.tasks.calibration import apply_temperature, fold_masks
from ripieno.types import Combiner, Floats

Expected = tuple[float, float]
"""Mean loss of held-out samples, and its standard error."""


def cross_validate(
    problem: SelectionProblem,
    budgets: Sequence[Floats],
    select: Callable[[SelectionProblem, Sequence[Floats]], list[Members]],
    folds: int,
    loss: Loss,
    combiner: Combiner,
) -> list[Expected]:
    """Return the expected loss for each of `budgets`, limits as `Costs.limits` returns them.

    In each fold, temperatures, members and weights are those that `select` finds without its samples. The standard
    error is that of the mean over samples; for macro-F1, which is no mean, it is that over folds.
    """
    data = problem.data
    losses = np.empty((len(budgets), data.samples))
    scores = np.empty((len(budgets), folds))
    for number, held in enumerate(fold_masks(data.samples, folds)):
        fold = problem.without(held)
        known: dict[Members, Floats | float] = {}
        for row, members in enumerate(select(fold, budgets)):
            if members not in known:
                combined = fold.data.combined(members, combiner)
                combined = apply_temperature(combined, fold.data.ensemble_temperature(combined))[held]
                labels = None if data.labels is None else data.labels[held]
                if loss == "macro-f1":
                    assert labels is not None
                    known[members] = 1.0 - metrics.macro_f1(combined, labels)
                else:
                    known[members] = sample_losses(loss, combined, labels)
            if loss == "macro-f1":
                scores[row, number] = known[members]
            else:
                losses[row, held] = known[members]
    table = scores if loss == "macro-f1" else losses
    return [(float(row.mean()), float(row.std(ddof=1) / len(row) ** 0.5)) for row in table]
