"""Segmentation: one of several classes for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import check_classes, label_indices
from ripieno.tasks.pixels import (
    FLOOR,
    PixelTotals,
    most_likely,
    pixel_likelihood,
    prediction_blocks,
    sample_blocks,
)
from ripieno.tasks.probabilities import check_probabilities
from ripieno.tasks.spread import deviation
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, Combiner, CoverageScore, Float32s, Floats, Ints, OutputActivation, Task

COMPARED = 1 << 18
"""Pixels on which members are compared with each other, where there are more."""
RARE = 0.001
"""Share of the counted pixels below which a note reports a class."""
MOSTLY = 0.5
"""Share of ignored pixels above which a note reports them."""


@final
class Segmentation(TaskKind):
    """See `TaskKind`. Targets are masks, (samples, height, width) uint8: indices of classes, or `IGNORED`.

    Predictions are probabilities (samples, height, width, classes). Both may be memory-mapped: they are read in blocks
    of samples.
    """

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[str, ...]] = ("cross_entropy", "mean_iou", "mean_dice", "pixel_accuracy")
    default_metric: ClassVar[str] = "mean_iou"
    activation: ClassVar[OutputActivation] = "softmax"
    training_losses: ClassVar[tuple[str, ...]] = ("cross-entropy-dice", "cross-entropy")
    training_options: ClassVar[tuple[str, ...]] = ("label_smoothing", "class_weights")
    combiners: ClassVar[tuple[Combiner, ...]] = ("mean", "weighted", "vote")
    targets_name: ClassVar[str] = "masks"
    outputs: ClassVar[tuple[str, ...]] = ("probabilities", "mask")
    coverage_scores: ClassVar[tuple[CoverageScore, ...]] = ("fnr",)
    names_title: ClassVar[str] = "classes"
    calibrates: ClassVar[bool] = True
    floor: ClassVar[float] = FLOOR
    keeps_likelihood: ClassVar[bool] = True
    is_pixelwise: ClassVar[bool] = True
    diversity_title: ClassVar[str] = "share of pixels with another class"

    def check_task(self, task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless there are 2 to 255 classes, all different, and predictions of height and width."""
        check_classes(task.names, where, error)
        if len(task.names) > IGNORED:
            raise error(f"{where}: there are {len(task.names)} classes; masks hold at most {IGNORED}")
        if len(task.output) != 3 or task.output[2] != len(task.names) or min(task.output) < 1:
            due = f"(height, width, {len(task.names)})"
            raise error(f"{where}: predictions of shape {task.output} do not fit {len(task.names)} classes: {due}")

    def read_targets(self, values: Any, task: Task, where: str, error: type[RipienoError]) -> NDArray[Any]:
        """Return masks as uint8, from whole numbers of any type, (samples, height, width)."""
        try:
            array = np.asarray(values)
        except ValueError as problem:
            raise error(f"{where} are no array: give all masks one height and width") from problem
        if array.ndim != 3 or not len(array):
            raise error(f"{where} have shape {array.shape}, must be (samples, height, width) with at least one sample")
        if array.dtype.kind not in "iufb":
            raise error(f"{where} have type {array.dtype}, expected whole numbers, the indices of the classes")
        if array.shape[1:] != task.output[:2]:
            size = " x ".join(map(str, array.shape[1:]))
            raise error(f"{where} are {size} pixels, expected {task.output[0]} x {task.output[1]} as the predictions")
        masks = np.empty(array.shape, np.uint8)
        for block in sample_blocks(len(array), array[0].size):
            part = array[block]
            known = (part >= 0) & (part < len(task.names)) | (part == IGNORED)
            if array.dtype.kind == "f":
                known &= part == np.floor(part)
            if not known.all():
                sample = int(np.argwhere(~known)[0, 0])
                self._refuse(part[sample][~known[sample]][0], block.start + sample, task, where, error)
            masks[block] = part
        return masks

    def check_targets(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless these are masks as uint8, (samples, height, width), of known classes."""
        if targets.ndim != 3 or targets.shape[1:] != task.output[:2]:
            due = f"(samples, {task.output[0]}, {task.output[1]})"
            raise error(f"{where}: masks have shape {targets.shape}, expected {due}")
        if targets.dtype != np.uint8:
            raise error(f"{where}: masks hold {targets.dtype}, expected uint8")
        for sample, mask in enumerate(targets):
            highest = int(np.where(mask == IGNORED, 0, mask).max(initial=0))
            if highest >= len(task.names):
                self._refuse(highest, sample, task, f"{where}: masks", error)

    def _refuse(self, value: Any, sample: int, task: Task, where: str, error: type[RipienoError]) -> None:
        due = f"expected 0 to {len(task.names) - 1} for {len(task.names)} classes, or {IGNORED} for an ignored pixel"
        raise error(f"{where} contain {value:g} in sample {sample}: {due}")

    def check_training(self, targets: NDArray[Any], task: Task, where: str, error: type[RipienoError]) -> None:
        """Raise `error` unless every class has a pixel."""
        absent = self.absent(targets, task)
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise error(f"{where} has no training mask with class {absent[0]!r}{more}; add some or leave it out")

    def absent(self, targets: NDArray[Any], task: Task) -> list[str]:
        """Return the classes that no pixel has."""
        return [task.names[i] for i in np.flatnonzero(_pixels(targets)[: len(task.names)] == 0)]

    def balance_notes(self, targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
        """Return notes on rare classes, on many ignored pixels, and on classes that a split lacks."""
        notes = []
        pixels = _pixels(targets)
        shares = pixels[: len(task.names)] / max(1, pixels[: len(task.names)].sum())
        rare = np.flatnonzero(shares < RARE)
        if len(rare):
            more = f" (so do {len(rare) - 1} more classes)" if len(rare) > 1 else ""
            notes.append(
                f"class {task.names[rare[0]]!r} has {shares[rare[0]]:.3%} of the pixels{more}; its IoU says little"
            )
        ignored = pixels[IGNORED] / max(1, pixels.sum())
        if ignored > MOSTLY:
            notes.append(f"{ignored:.0%} of the pixels are ignored")
        return notes + self.absent_notes(targets, split, task, "class")

    def match_targets(
        self, targets: NDArray[Any], names: Sequence[str], task: Task, error: type[RipienoError]
    ) -> NDArray[Any]:
        """Return masks with the classes of `task`, matched by name; classes that no pixel has may have any name."""
        used = np.flatnonzero(_pixels(targets)[: len(names)]).tolist()
        table = np.full(IGNORED + 1, IGNORED, np.uint8)
        table[used] = label_indices([names[i] for i in used], task.names, "the data's masks", error)
        if np.array_equal(table[used], used):
            return targets
        matched = np.empty(targets.shape, np.uint8)
        for sample, mask in enumerate(targets):
            matched[sample] = table[mask]
        return matched

    def strata(self, targets: NDArray[Any]) -> Ints | None:
        """Return the class of each mask that the fewest masks hold, so that rare classes are in every split."""
        held = np.stack(
            [np.bincount(np.asarray(mask).reshape(-1), minlength=IGNORED + 1)[:IGNORED] for mask in targets]
        )
        masks = np.count_nonzero(held, axis=0)
        return np.asarray(np.where(held > 0, masks, len(held) + 1).argmin(axis=1), np.int64)

    def read_predictions(self, name: str, values: NDArray[Any], task: Task, error: type[RipienoError]) -> NDArray[Any]:
        """Return `values` as floats. Raises `error` unless they are probabilities (samples, height, width, classes)."""
        if values.dtype.kind not in "fiub":
            raise error(f"{name}: predictions are of type {values.dtype}, must be numbers")
        if values.ndim != 4:
            due = "(samples, height, width, classes)"
            raise error(f"{name}: predictions have shape {values.shape}, must be {due}")
        if values.shape[3] != len(task.names):
            raise error(f"{name}: predictions of {values.shape[3]} classes, must be of {len(task.names)}")
        if values.shape[1:3] != task.output[:2]:
            size = f"{values.shape[1]} x {values.shape[2]}"
            raise error(f"{name}: predictions of {size} pixels, must be of {task.output[0]} x {task.output[1]}")
        values = values if values.dtype.kind == "f" else values.astype(np.float32)
        check_probabilities(name, values, error)
        return values

    def likelihood(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any] | None:
        """Return the probability of the true class of each counted pixel, (counted pixels,), in sample order."""
        return pixel_likelihood(predictions, targets)

    def confidence(self, mean: NDArray[Any]) -> NDArray[Any] | None:
        """Return the mean over the pixels of the largest probability."""
        return np.array([sample.max(axis=-1).mean(dtype=np.float64) for sample in mean])

    def spread(self, predictions: NDArray[Any], mean: NDArray[Any], weights: Floats) -> Float32s:
        """Return the mean over the pixels of the deviation of the class that is predicted, (samples,)."""
        found = np.empty(len(mean), np.float32)
        for sample, own in enumerate(mean):
            predicted = own.argmax(axis=-1)[None, ..., None]
            chosen = np.take_along_axis(np.asarray(predictions[:, sample]), predicted, axis=-1)
            found[sample] = deviation(chosen, weights).mean(dtype=np.float64)
        return found

    def errors(self, predictions: NDArray[Any], targets: NDArray[Any], thresholds: Sequence[float] = ()) -> Floats:
        """Return the share of each sample's counted pixels that are wrong; 0 where none is counted."""
        return 1 - PixelTotals.of(predictions, targets).counts.accuracy()

    def labels(self, predictions: NDArray[Any], task: Task, thresholds: Sequence[float] = ()) -> list[str] | None:
        """Return None: a mask is no text."""
        return None

    def disagreement(self, predictions: Sequence[NDArray[Any]], targets: NDArray[Any]) -> list[float]:
        """Return the mean share of counted pixels on which a member's class differs from another's.

        It is computed as that of `Classification`, from the votes for each class on each pixel. Of many pixels, some
        rows of each image are compared.
        """
        others, pixels = len(predictions) - 1, 0
        agreed = np.zeros(len(predictions), np.int64)
        for predicted, counted in _member_masks(predictions, targets):
            rows = np.arange(predicted.shape[1])
            votes = np.zeros((len(rows), 1 + int(predicted.max(initial=0))), np.int32)
            for own in predicted:
                votes[rows, own] += 1
            agreed += [int((votes[rows, own] - 1).sum()) for own in predicted]
            pixels += counted
        return [1.0 - float(own) / others / max(1, pixels) for own in agreed]

    def scores(
        self, predictions: NDArray[Any], targets: NDArray[Any], task: Task, thresholds: Sequence[float] = ()
    ) -> dict[str, float]:
        """Return the metrics by name, from the counted pixels of all samples together."""
        return PixelTotals.of(predictions, targets).scores()

    def score_blocks(
        self,
        blocks: Iterable[tuple[NDArray[Any], NDArray[Any]]],
        task: Task,
        thresholds: Sequence[float] = (),
    ) -> dict[str, float]:
        """Return the metrics of all blocks together, of which one is in memory at a time."""
        parts = [PixelTotals.of(predictions, targets) for predictions, targets in blocks]
        return PixelTotals.joined(parts, len(task.names)).scores()


def _pixels(targets: NDArray[Any]) -> Ints:
    """Return the number of pixels of each value, (256,)."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for mask in targets:
        counts += np.bincount(np.asarray(mask).reshape(-1), minlength=IGNORED + 1)
    return counts


def _member_masks(
    predictions: Sequence[NDArray[Any]], targets: NDArray[Any]
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Yield by blocks of samples the classes that the members predict, (members, counted pixels), and the pixels."""
    height = targets.shape[1]
    step = min(height, max(1, targets.size // COMPARED))
    rows = slice(min(step // 2, height - 1), None, step)
    for block in prediction_blocks(predictions[0]):
        counted = np.asarray(targets[block, rows]) != IGNORED
        yield np.stack([most_likely(own[block, rows])[counted] for own in predictions]), int(counted.sum())
