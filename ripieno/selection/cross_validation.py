"""Expected loss of a selection on samples that it has not seen, by cross-validation over the selection samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ripieno.selection.losses import MEASURES, sample_losses
from ripieno.selection.pixel_data import thin
from ripieno.selection.problem import Members, SelectionProblem
from ripieno.selection.validation import Loss
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.evidence import fold_masks
from ripieno.types import Combiner, Floats

PIXELS = 1 << 19
"""Pixels of all images that the expected loss is computed from, where there are more."""
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

    In each fold, temperatures, members and weights are those that `select` finds without its samples; all pixels of an
    image are in one fold. The standard error is that of the mean over samples, or over images; for a loss that is no
    such mean, as macro-F1, it is that over folds. Of many pixels a sample of each image is used.
    """
    data = thin(problem.data, PIXELS)
    problem = replace(problem, data=data)
    sizes = np.ones(data.units) if data.images is None else data.images.astype(np.float64)
    losses = np.empty((len(budgets), data.units))
    scores = np.full((len(budgets), folds), np.nan)
    for number, units in enumerate(fold_masks(data.units, folds)):
        held = data.samples_of(units)
        fold = problem.without(held)
        known: dict[Members, Floats | float] = {}
        for row, members in enumerate(select(fold, budgets)):
            if members not in known:
                combined = fold.data.combined(members, combiner)
                temperature = fold.data.ensemble_temperature(combined)
                combined = apply_temperature(combined, temperature, data.kind)[held]
                targets = None if data.targets is None else data.targets[held]
                own = sample_losses(loss, combined, targets)
                if own is not None:
                    everywhere = np.zeros(len(held))
                    everywhere[held] = own
                    known[members] = data.unit_sums(everywhere)[units]
                else:
                    assert targets is not None  # only the cross-entropy needs none
                    known[members] = MEASURES[loss](combined, targets)
            if isinstance(known[members], float):
                scores[row, number] = known[members]
            else:
                losses[row, units] = known[members]
    if np.isnan(scores).any():
        return [_ratio(row, sizes) for row in losses]
    return [_ratio(row, np.ones(folds)) for row in scores]


def _ratio(sums: Floats, sizes: Floats) -> Expected:
    """Return the mean of what has these `sums` over units of these `sizes`, and its standard error over the units."""
    mean, units = sums.sum() / sizes.sum(), len(sums)
    residuals = sums - mean * sizes
    return float(mean), float((residuals @ residuals * units / (units - 1)) ** 0.5 / sizes.sum())
