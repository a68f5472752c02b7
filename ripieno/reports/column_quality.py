"""Quality of an ensemble by column of a table: importance of each, and losses by its values."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.dataset import BATCH
from ripieno.errors import EngineError, LibraryError, MissingExtraError, ModelError
from ripieno.library.evaluate import open_member
from ripieno.reports.column_importance import Importances, importances
from ripieno.reports.column_slices import ColumnSlice, slices
from ripieno.reports.explorer import Explorer
from ripieno.reports.run_data import RunData
from ripieno.reports.task_tables import SAMPLE_LOSSES
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.registry import kind_of
from ripieno.types import Column, Dataset, Floats, ProgressFunction

WORST = 12
"""Maximum number of slices listed as the worst."""
NOTABLE = 2.0
"""Standard errors by which the loss of a slice is above that of the other samples to be listed."""


@dataclass(frozen=True)
class ColumnQuality:
    """Quality of the most expensive ensemble by column, on the samples of the explorer."""

    columns: tuple[Column, ...]
    importances: Importances | None
    """None where members cannot be run"""
    slices: tuple[ColumnSlice, ...]
    loss: float
    """mean of all samples"""

    @property
    def ordered(self) -> list[str]:
        """Names of the columns, the most important first."""
        measured = [one.name for one in self.importances.columns] if self.importances else []
        return list(dict.fromkeys([*measured, *(column.name for column in self.columns)]))

    @property
    def worst(self) -> list[ColumnSlice]:
        """Slices with a loss notably above that of the other samples, the most notable first."""
        notable = [one for one in self.slices if one.excess > NOTABLE]
        return sorted(notable, key=lambda one: -one.excess)[:WORST]


def columns_of(dataset: Dataset) -> tuple[Column, ...]:
    """Return the columns of a table; numbers by their places where they have no names."""
    return dataset.columns or tuple(Column(f"column {place}") for place in range(dataset.inputs.shape[1]))


def column_quality(reading: RunData, explored: Explorer | None, progress: ProgressFunction) -> ColumnQuality | None:
    """Return the quality by column; None for data that are no table, and for predictions of other samples."""
    dataset = reading.dataset
    if explored is None or explored.predictions is None or dataset is None or dataset.kind != "table":
        return None
    rows = explored.dataset_rows(dataset)
    if rows is None:
        return None
    columns, inputs = columns_of(dataset), np.asarray(dataset.inputs[rows])
    losses = SAMPLE_LOSSES[reading.task.kind](explored.predictions, explored.targets)
    measured = _importances(reading, explored, columns, inputs, progress)
    return ColumnQuality(columns, measured, tuple(slices(columns, inputs, losses)), float(losses.mean()))


def _importances(
    reading: RunData,
    explored: Explorer,
    columns: tuple[Column, ...],
    inputs: NDArray[Any],
    progress: ProgressFunction,
) -> Importances | None:
    """Run the members of the most expensive ensemble with shuffled columns; None where they cannot be run."""
    ensemble, task = explored.spots[-1].ensemble, reading.task
    with contextlib.ExitStack() as stack:
        runners = []
        try:
            for member in ensemble.members:
                runners.append(open_member(reading.library, member))
                stack.callback(runners[-1].close)
        except (EngineError, LibraryError, ModelError, MissingExtraError):
            return None

        def loss(given: NDArray[Any], rows: NDArray[np.int64]) -> Floats:
            starts = range(0, len(given), BATCH)
            tables = [np.concatenate([runner.infer(given[i : i + BATCH]) for i in starts]) for runner in runners]
            predictions = combine_calibrated(tables, ensemble, kind_of(task))
            return SAMPLE_LOSSES[task.kind](predictions, explored.targets[rows])

        return importances(columns, inputs, loss, progress)
