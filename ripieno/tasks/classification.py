"""Classification: one of several classes for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import check_classes
from ripieno.tasks.metrics import true_class
from ripieno.tasks.probabilities import check_probabilities
from ripieno.tasks.spread import deviation
from ripieno.tasks.task_kind import OutputActivation
from ripieno.types import Combiner, Float32s, Floats, Ints, Task


@final
class Classification:
    """See `TaskKind`. Targets are indices of classes, (samples,) int64; predictions are probabilities."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[str, ...]] = ("cross_entropy", "accuracy", "macro_f1")
    activation: ClassVar[OutputActivation] = "softmax"
    combiners: ClassVar[tuple[Combiner, ...]] = ("mean", "weighted", "vote", "median")
    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "label")

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless there are two or more classes, all different."""
        check_classes(task.names, where, error)
        if task.output != (len(task.names),):
            raise error(f"{where}: predictions of shape {task.output} do not fit {len(task.names)} classes")

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless these are indices of classes."""
        classes = len(task.names)
        if targets.ndim != 1:
            raise error(f"{where}: labels have shape {targets.shape}, expected ({len(targets)},)")
        if targets.dtype != np.int64:
            raise error(f"{where}: labels hold {targets.dtype}, expected int64")
        if len(targets) and (targets.min() < 0 or targets.max() >= classes):
            span = f"labels run from {targets.min()} to {targets.max()}"
            raise error(f"{where}: {span}, expected 0 to {classes - 1}")

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless every class has a sample."""
        absent = np.flatnonzero(np.bincount(targets, minlength=len(task.names)) == 0)
        if len(absent):
            raise error(f"{where} has no training image of class {task.names[absent[0]]!r}; add some or leave it out")

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return the classes."""
        return targets

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats. Raises `error` unless they are probabilities (samples, classes)."""
        if values.dtype.kind not in "fiub":
            raise error(f"{name}: predictions are of type {values.dtype}, must be numbers")
        if values.ndim != 2:
            raise error(f"{name}: predictions have shape {values.shape}, must be (samples, classes)")
        if values.shape[1] != len(task.names):
            raise error(f"{name}: predictions of {values.shape[1]} classes, must be of {len(task.names)}")
        values = values if values.dtype.kind == "f" else values.astype(np.float64)
        check_probabilities(name, values, error)
        return values

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return the probabilities of the true class (samples,)."""
        return true_class(predictions, targets)

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return the largest probability of each sample."""
        return np.asarray(mean.max(axis=1))

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the standard deviation of the probability of the class that `mean` predicts, (samples,)."""
        predicted = mean.argmax(axis=1)[None, :, None]
        return deviation(np.take_along_axis(predictions, predicted, 2)[:, :, 0], weights)

    def labels(
        self,
        predictions: NDArray[Any],
        task: Task,
        thresholds: Sequence[float] = (),  # noqa: ARG002
    ) -> list[str] | None:
        """Return the name of the most likely class of each sample (ties: the first)."""
        return [task.names[i] for i in predictions.argmax(axis=1)]
