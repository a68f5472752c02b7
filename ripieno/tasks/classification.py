"""Classification: one of several classes for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import check_classes, label_indices, read_labels
from ripieno.tasks.metrics import true_class
from ripieno.tasks.probabilities import check_probabilities
from ripieno.tasks.spread import deviation
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Combiner, CoverageScore, Float32s, Floats, Ints, OutputActivation, Split, Task


@final
class Classification(TaskKind):
    """See `TaskKind`. Targets are indices of classes, (samples,) int64; predictions are probabilities."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[str, ...]] = ("cross_entropy", "accuracy", "macro_f1")
    default_metric: ClassVar[str] = "accuracy"
    activation: ClassVar[OutputActivation] = "softmax"
    training_losses: ClassVar[tuple[str, ...]] = ("cross-entropy",)
    training_options: ClassVar[tuple[str, ...]] = (
        *("label_smoothing", "class_weights", "sampling"),
        *("mixup", "cutmix", "erasing"),
    )
    combiners: ClassVar[tuple[Combiner, ...]] = ("mean", "weighted", "vote", "median")
    targets_name: ClassVar[str] = "labels"
    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "label")
    coverage_scores: ClassVar[tuple[CoverageScore, ...]] = ("lac", "aps", "raps")
    names_title: ClassVar[str] = "classes"
    calibrates: ClassVar[bool] = True
    keeps_likelihood: ClassVar[bool] = True
    diversity_title: ClassVar[str] = "share of samples with another class"

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless there are two or more classes, all different."""
        check_classes(task.names, where, error)
        if task.output != (len(task.names),):
            raise error(f"{where}: predictions of shape {task.output} do not fit {len(task.names)} classes")

    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> Ints:
        """Return indices of classes, from names or indices."""
        array = np.asarray(values)
        if array.ndim != 1 or not len(array):
            raise error(f"{where} have shape {array.shape}, must be (samples,) with at least one sample")
        return label_indices(array, task.names, where, error)

    def as_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> Ints:
        """Return indices of classes, from whole numbers of any type."""
        return read_labels(values, len(task.names), where, error)

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
        absent = self.absent(targets, task)
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise error(f"{where} has no training sample of class {absent[0]!r}{more}; add some or leave it out")

    def absent(self, targets: NDArray[Any], task: Task) -> list[str]:
        """Return the classes that no sample has."""
        return [task.names[i] for i in np.flatnonzero(np.bincount(targets, minlength=len(task.names)) == 0)]

    def check_sizes(
        self, targets: NDArray[Any], task: Task, splits: Sequence[Split], error: type[RipienoError]
    ) -> None:
        """Raise `error`, naming a class, unless each has enough samples for one in each of `splits`."""
        check_classes(task.names, "the data", error)
        counts = np.bincount(targets, minlength=len(task.names))
        short = np.flatnonzero(counts < len(splits))
        if not len(short):
            return
        others = f" (so do {len(short) - 1} more classes)" if len(short) > 1 else ""
        count = int(counts[short[0]])
        samples = {0: "no sample", 1: "1 sample"}.get(count, f"{count:,} samples")
        raise error(
            f"class {task.names[short[0]]!r} has {samples} for {', '.join(splits)}{others}; "
            f"expected at least {len(splits)}; add some or leave the class out"
        )

    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return notes on imbalance, and on classes that a split lacks."""
        notes = []
        counts = np.bincount(targets, minlength=len(task.names))
        if counts.max() >= 3 * counts.min():
            advice = "consider select --loss macro-f1, which weights all classes equally"
            notes.append(f"classes hold {counts.min():,} to {counts.max():,} samples; {advice}")
        return notes + self.absent_notes(targets, split, task, "class")

    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return indices of the classes of `task`, matched by name."""
        return label_indices(np.array(names)[targets], task.names, "the data's labels", error)

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
        """Return the largest probability."""
        return np.asarray(mean.max(axis=-1))

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the deviation of the probabilities of the class that is predicted, (samples,)."""
        predicted = mean.argmax(axis=1)
        return deviation(np.take_along_axis(predictions, predicted[None, :, None], 2)[:, :, 0], weights)

    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return 1 for each sample whose predicted class is wrong, else 0."""
        return np.asarray(predictions.argmax(axis=1) != targets, np.float64)

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return the name of the most likely class of each sample (ties: the first)."""
        return [task.names[i] for i in predictions.argmax(axis=1)]

    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return the mean share of samples on which a member's class differs from another's.

        This is Kuncheva and Whitaker's disagreement measure, averaged over pairs. It is computed from the votes for
        each class on each sample.
        """
        predicted = [p.argmax(axis=1) for p in predictions]
        samples = np.arange(len(predicted[0]))
        votes = np.zeros((len(samples), 1 + max(int(own.max()) for own in predicted)), dtype=np.int64)
        for own in predicted:
            votes[samples, own] += 1
        others = len(predicted) - 1
        return [1.0 - float((votes[samples, own] - 1).mean()) / others for own in predicted]
