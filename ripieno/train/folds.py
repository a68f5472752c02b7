"""Training with folds: a model for each fold, whose predictions validate, and one of all samples, which is kept.

Theory of operation. The models of a trial are trained side by side, an epoch each in turn: those of the folds, each
without the samples of its fold, which it predicts, and the refit on all training samples. All have the configuration
and the seed of the trial, as one model is compared on several parts of the data. A trial is ranked by the predictions
out of fold. The member is the refit: it is exported, and predicts the test split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.folds import fold_dataset
from ripieno.errors import ModelError
from ripieno.library.prediction_arrays import empty_predictions
from ripieno.train.evaluate import predict_rows
from ripieno.train.trainer import (
    BatchReport,
    Tensors,
    Trainer,
    close,
    ignore_batch,
    report_batches,
    tensors_of,
    unit_of,
)
from ripieno.types import Dataset, Job, TrainingUnit

_REFIT = "refit."
"""Prefix of names of the refit's tensors in a checkpoint; those of a fold have `fold0.` and so on."""


class FoldTrainer:
    """Trainer of a trial on a data set with folds, from trainers that `make` makes: see `ripieno.train.trainer`."""

    def __init__(self, make: Callable[[], Trainer], folds: int) -> None:
        self.refit = make()
        self._report: BatchReport = ignore_batch
        self.held: list[Trainer] = []
        """trainer of each fold"""
        try:
            for _ in range(folds):
                self.held.append(make())
        except BaseException:
            self.close()
            raise

    @property
    def on_batch(self) -> BatchReport:
        """Report of the batches of all models, of which each trains its epoch in turn."""
        return self._report

    @on_batch.setter
    def on_batch(self, report: BatchReport) -> None:
        self._report = report
        trainers = [*self.held, self.refit]
        for number, trainer in enumerate(trainers):
            report_batches(trainer, partial(_report_part, report, number, len(trainers)))

    @property
    def unit(self) -> TrainingUnit:
        """Unit of the epochs of the trainers."""
        return unit_of(self.refit)

    def start(self, job: Job, data: Dataset) -> None:
        """Start the trainer of each fold without the fold's samples, and the refit with all."""
        for fold, trainer in enumerate(self.held):
            trainer.start(job, fold_dataset(data, fold))
        self.refit.start(job, data)

    def epoch(self) -> float | None:
        """Train all models one epoch; return the mean training loss of those of the folds, or None."""
        losses = [trainer.epoch() for trainer in self.held]
        last = self.refit.epoch()
        if last is not None and not math.isfinite(last):
            return last
        known = [float(loss) for loss in losses if loss is not None]
        return float(np.mean(known)) if known else None

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Predict `inputs` (samples, *shape) by the refit: float32 (samples, *task.output)."""
        return self.refit.predict(inputs)

    def predict_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Predict samples by their rows by the refit; None where it needs their inputs."""
        found: NDArray[np.float32] | None = (
            self.refit.predict_rows(rows) if hasattr(self.refit, "predict_rows") else None
        )
        return found

    def predict_out_of_fold(self, data: Dataset) -> NDArray[np.floating[Any]]:
        """Predict the validation samples of `data`, each by the model that was trained without its fold."""
        assert data.folds is not None
        rows = data.rows("valid")
        predictions = empty_predictions(data, len(rows))
        for fold, trainer in enumerate(self.held):
            own = data.folds[rows] == fold
            predictions[own] = predict_rows(trainer, data, rows[own])
        return predictions

    def tensors(self) -> Tensors | None:
        """Return the states of all trainers; None where one keeps none."""
        whole: dict[str, NDArray[Any]] = {}
        for prefix, trainer in self._named():
            state = tensors_of(trainer)
            if state is None:
                return None
            whole |= {prefix + name: array for name, array in state.items()}
        return whole

    def load(self, tensors: Tensors) -> None:
        """Continue from `tensors`. Raises ModelError when they are of another number of folds."""
        states: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in tensors.items():
            prefix, _, own = name.partition(".")
            states.setdefault(f"{prefix}.", {})[own] = array
        if states.keys() != dict(self._named()).keys():
            raise ModelError("the checkpoint is of another number of folds")
        for prefix, trainer in self._named():
            trainer.load(states[prefix])

    def waited(self) -> float:
        """Return the seconds since the last call in which a trainer waited for data."""
        return sum(float(t.waited()) for _, t in self._named() if hasattr(t, "waited"))

    def close(self) -> None:
        """Close all trainers."""
        for _, trainer in self._named():
            close(trainer)

    def _named(self) -> list[tuple[str, Trainer]]:
        return [*((f"fold{i}.", trainer) for i, trainer in enumerate(self.held)), (_REFIT, self.refit)]


def _report_part(report: BatchReport, number: int, count: int, done: int, total: int) -> None:
    """Report the batches of model `number` of `count` as those of all."""
    report(number * total + done, count * total)


def predict_valid(trainer: Trainer, data: Dataset) -> NDArray[np.floating[Any]]:
    """Predict the validation samples of `data`: out of fold where it has folds. Errors as `predict_rows`."""
    if isinstance(trainer, FoldTrainer):
        return trainer.predict_out_of_fold(data)
    return predict_rows(trainer, data, data.rows("valid"))


def kept_trainer(trainer: Trainer) -> Trainer:
    """Return the trainer of the model that is kept: with folds, the refit."""
    return trainer.refit if isinstance(trainer, FoldTrainer) else trainer
