"""Result of a selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.selection.member_data import combine_rows
from ripieno.tasks.calibration import apply_temperature
from ripieno.tasks.registry import TASKS
from ripieno.types import Combiner, Ensemble


@dataclass(frozen=True)
class Choice:
    """An ensemble, as indices into the arrays that `select_members` was given."""

    members: tuple[int, ...]
    """in selection order, without repeats"""
    weights: tuple[float, ...]
    """in the same order; they sum to 1"""
    loss: float
    """of what `combine` returns for the given samples; 1 - score where higher is better, as for accuracy"""
    cost: float
    """sum over the members and the parts they share; with several kinds of cost, the largest fraction of a budget"""
    costs: Mapping[str, float] = field(default_factory=dict)
    """sum over the members and the parts they share, by kind of cost"""
    combiner: Combiner = "mean"
    """combiner of the members' predictions; "weighted" where the weights differ"""
    steps: tuple[int, ...] = ()
    """all picks in order; methods "smobf-r" and "replacement" may repeat a member"""
    certificate: float | None = None
    """if requested: upper bound on the loss reduction of any weighting, hence of any mean, of the candidates"""
    temperatures: tuple[float, ...] = ()
    """of the members, in the same order; empty: all are 1"""
    temperature: float = 1.0
    """of the combined predictions"""
    expected_loss: float | None = None
    """mean loss of samples that the selection has not seen, by cross-validation; None where not computed"""
    expected_loss_error: float | None = None
    """its standard error"""
    task: str = "classification"
    """kind of task of the predictions"""

    def ensemble(
        self,
        name: str,
        ids: Sequence[str],
        budget: Mapping[str, float],
        method: str,
        loss: str = "cross-entropy",
        calibration: str = "none",
    ) -> Ensemble:
        """Return the choice as an ensemble without losses; `ids` are of all members that the selection was given."""
        return Ensemble(
            name=name,
            members=tuple(ids[i] for i in self.members),
            weights=self.weights,
            method=method,
            budget=budget,
            cost=dict(self.costs),
            losses={},
            combiner=self.combiner,
            loss=loss,
            temperatures=() if calibration == "none" else self.temperatures,
            temperature=self.temperature,
            calibration=calibration,
            expected_loss=self.expected_loss,
            expected_loss_error=self.expected_loss_error,
        )

    def combine(self, predictions: ArrayLike | Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return what the ensemble predicts, as served: (samples, *output), such as (samples, classes).

        `predictions` are of all members that the selection was given, (members, samples, *output), of any samples.
        """
        temperatures = self.temperatures or (1.0,) * len(self.members)
        rows: Any = predictions
        kind = TASKS[self.task]
        pairs = zip(self.members, temperatures, strict=True)
        chosen = [apply_temperature(np.asarray(rows[m]), t, kind) for m, t in pairs]
        combined = combine_rows(np.stack(chosen), self.weights, self.combiner, kind)
        return apply_temperature(combined, self.temperature, kind)
