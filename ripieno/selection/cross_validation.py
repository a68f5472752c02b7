"""Expected loss of a selection on samples that it has not seen, by cross-validation over the selection samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ripieno.selection.losses import MEASURES, sample_losses
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.validation import Loss
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
    error is that of the mean over samples; for a loss that is no such mean, as macro-F1, it is that over folds.
    """
    data = problem.data
    losses = np.empty((len(budgets), data.samples))
    scores = np.full((len(budgets), folds), np.nan)
    for number, held in enumerate(fold_masks(data.samples, folds)):
        fold = problem.without(held)
        known: dict[Members, Floats | float] = {}
        for row, members in enumerate(select(fold, budgets)):
            if members not in known:
                combined = fold.data.combined(members, combiner)
                combined = apply_temperature(combined, fold.data.ensemble_temperature(combined))[held]
                targets = None if data.targets is None else data.targets[held]
                own = sample_losses(loss, combined, targets)
                if own is not None:
                    known[members] = own
                else:
                    assert targets is not None  # only the cross-entropy needs none
                    known[members] = MEASURES[loss](combined, targets)
            if isinstance(known[members], float):
                scores[row, number] = known[members]
            else:
                losses[row, held] = known[members]
    table = losses if np.isnan(scores).any() else scores
    return [(float(row.mean()), float(row.std(ddof=1) / len(row) ** 0.5)) for row in table]
