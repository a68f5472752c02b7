"""Metrics of pixels: likelihoods, and counts by class from which IoU, Dice and accuracy follow.

`predictions` are probabilities (samples, height, width, classes), `targets` (samples, height, width) uint8, a class or
`IGNORED`. Ignored pixels count nowhere. Arrays may be memory-mapped: they are read in blocks of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import IGNORED, Floats, Ints

BLOCK = 1 << 22
"""Numbers of predictions read at a time, unless one sample has more."""
FLOOR = 2.0**-24
"""Least likelihood of a pixel, the smallest float16: predictions on disk and those served have the same loss."""


def sample_blocks(samples: int, numbers: int) -> Iterator[slice]:
    """Yield slices of `samples`, each with about `BLOCK` numbers; `numbers` are those of one sample."""
    step = max(1, BLOCK // max(1, numbers))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def prediction_blocks(predictions: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of the samples of `predictions` that fit in memory together."""
    yield from sample_blocks(len(predictions), int(np.prod(predictions.shape[1:])))


def pixel_likelihood(predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    """Return the probability of the true class of each counted pixel, (counted pixels,), in sample order.

    The type is that of `predictions`. Values below `FLOOR` are raised to it.
    """
    rows = [_block_likelihood(predictions[block], targets[block]) for block in prediction_blocks(predictions)]
    return np.concatenate(rows) if rows else np.zeros(0, predictions.dtype)


def _block_likelihood(predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
    flat, classes = np.asarray(predictions).reshape(-1, predictions.shape[-1]), np.asarray(targets).reshape(-1)
    counted = np.flatnonzero(classes != IGNORED)
    return np.asarray(np.maximum(flat[counted, classes[counted]], flat.dtype.type(FLOOR)))


def sample_rows(images: Ints, most: int | None) -> tuple[Ints | None, Ints]:
    """Return the rows of at most `most` pixels of each image, and their number by image; None: all rows.

    `images` (images,) are the rows of each, which follow each other. The sample is always the same, without
    repetition, and in the order of the rows.
    """
    if most is None or images.max(initial=0) <= most:
        return None, images
    generator = np.random.default_rng(0)
    starts = np.cumsum(images) - images
    drawn = [
        start + (np.sort(generator.choice(count, most, replace=False)) if count > most else np.arange(count))
        for start, count in zip(starts, images, strict=True)
    ]
    return np.concatenate(drawn), np.minimum(images, most)


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Pixels by class, (..., classes): for each sample, or of all."""

    hits: Ints
    """pixels of the class that are predicted as it"""
    truth: Ints
    """pixels of the class"""
    predicted: Ints
    """counted pixels that are predicted as the class"""

    @property
    def total(self) -> ClassCounts:
        """Counts of all samples together."""
        return ClassCounts(self.hits.sum(axis=0), self.truth.sum(axis=0), self.predicted.sum(axis=0))

    def iou(self) -> Floats:
        """Return the intersection over union of each class; NaN for one that is absent in truth and predictions."""
        return _ratio(self.hits, self.truth + self.predicted - self.hits)

    def dice(self) -> Floats:
        """Return the Dice coefficient of each class; NaN for one that is absent in truth and predictions."""
        return _ratio(2 * self.hits, self.truth + self.predicted)

    def mean_iou(self) -> Floats:
        """Return the mean over the classes that occur, (...); 1 where none occurs."""
        return _mean(self.iou())

    def mean_dice(self) -> Floats:
        """Return the mean over the classes that occur, (...); 1 where none occurs."""
        return _mean(self.dice())

    def accuracy(self) -> Floats:
        """Return the share of counted pixels that are right, (...); 1 where none is counted."""
        return np.nan_to_num(_ratio(self.hits.sum(axis=-1), self.truth.sum(axis=-1)), nan=1.0)


def _ratio(part: Ints, whole: Ints) -> Floats:
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan), np.float64)


def _mean(values: Floats) -> Floats:
    held = ~np.isnan(values)
    count = held.sum(axis=-1)
    return np.asarray(np.where(count > 0, np.where(held, values, 0.0).sum(axis=-1) / np.maximum(count, 1), 1.0))


def confusion(predicted: NDArray[Any], targets: NDArray[Any], classes: int) -> Ints:
    """Return counted pixels by true and predicted class, (classes, classes); both arguments are masks of one shape."""
    truth, found = np.asarray(targets).reshape(-1), np.asarray(predicted).reshape(-1)
    counted = truth != IGNORED
    pairs = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def most_likely(predictions: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the mask (..., height, width) of the most likely class of each pixel (ties: the lowest)."""
    mask: NDArray[np.uint8] = np.asarray(predictions).argmax(axis=-1).astype(np.uint8)
    return mask


def mask_counts(predicted: NDArray[Any], targets: NDArray[Any], classes: int) -> ClassCounts:
    """Return the counts (samples, classes) of masks (samples, height, width)."""
    pairs = (confusion(own, truth, classes) for own, truth in zip(predicted, targets, strict=True))
    rows = [(matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)) for matrix in pairs]
    table = np.array(rows, np.int64).reshape(-1, 3, classes)
    return ClassCounts(table[:, 0], table[:, 1], table[:, 2])


COUNTED = ("hits", "truth", "predicted")
"""Fields of `ClassCounts`."""


@dataclass(frozen=True, eq=False)
class PixelTotals:
    """Losses and counts of samples, from which the metrics of any choice of them can be computed."""

    losses: Floats
    """(samples,), sum over the counted pixels of the negative logarithm of their likelihood, in nats"""
    counts: ClassCounts
    """of each sample, (samples, classes)"""

    @classmethod
    def of(cls, predictions: NDArray[Any], targets: NDArray[Any]) -> PixelTotals:
        """Return the totals of each sample."""
        classes = predictions.shape[-1]
        parts = [cls._of_block(predictions[b], targets[b], classes) for b in prediction_blocks(predictions)]
        return cls.joined(parts, classes)

    @classmethod
    def _of_block(cls, predictions: NDArray[Any], targets: NDArray[Any], classes: int) -> PixelTotals:
        pairs = zip(predictions, targets, strict=True)
        losses = [len(row) * pixel_cross_entropy(row) for row in (_block_likelihood(*pair) for pair in pairs)]
        return cls(np.array(losses), mask_counts(most_likely(predictions), targets, classes))

    @classmethod
    def joined(cls, parts: Sequence[PixelTotals], classes: int) -> PixelTotals:
        """Return the totals of the samples of all `parts`."""
        empty = np.zeros((0, classes), np.int64)
        fields = ([getattr(part.counts, name) for part in parts] for name in COUNTED)
        losses: list[Floats] = [np.zeros(0), *(part.losses for part in parts)]
        return cls(np.concatenate(losses), ClassCounts(*(np.concatenate([empty, *field]) for field in fields)))

    @classmethod
    def chosen(cls, among: Sequence[PixelTotals], numbers: NDArray[np.integer]) -> PixelTotals:
        """Return for each sample its totals in the one of `among` that `numbers` (samples,) names."""
        rows = np.arange(len(numbers))
        counts = [np.stack([getattr(t.counts, name) for t in among])[numbers, rows] for name in COUNTED]
        return cls(np.stack([totals.losses for totals in among])[numbers, rows], ClassCounts(*counts))

    @property
    def pixels(self) -> Ints:
        """Return the counted pixels of each sample, (samples,)."""
        return np.asarray(self.counts.truth.sum(axis=1))

    def scores(self, repeats: Ints | None = None) -> dict[str, float]:
        """Return the metrics by name, of all samples, or of each as often as `repeats` (samples,) says."""
        often = np.ones(len(self.losses), np.int64) if repeats is None else repeats
        total = ClassCounts(often @ self.counts.hits, often @ self.counts.truth, often @ self.counts.predicted)
        return {
            "cross_entropy": float(often @ self.losses) / max(1, int(often @ self.pixels)),
            "mean_iou": float(total.mean_iou()),
            "mean_dice": float(total.mean_dice()),
            "pixel_accuracy": float(total.accuracy()),
        }


def _score(name: str) -> Callable[[NDArray[Any], NDArray[Any]], float]:
    def score(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
        if targets.ndim == 1:  # pixels without images
            predictions, targets = predictions[None, None], targets[None, None]
        return PixelTotals.of(predictions, targets).scores()[name]

    return score


mean_iou = _score("mean_iou")
"""Return the mean intersection over union, from the pixels of all samples; see `ClassCounts`."""
mean_dice = _score("mean_dice")
"""Return the mean Dice coefficient, from the pixels of all samples; see `ClassCounts`."""
pixel_accuracy = _score("pixel_accuracy")
"""Return the share of counted pixels whose most likely class is the true one."""


def pixel_cross_entropy(likelihoods: NDArray[Any]) -> float:
    """Return the mean negative logarithm of `likelihoods` (counted pixels,), in nats; 0 without pixels.

    The sum is by blocks, so that millions of pixels need no copy in double.
    """
    total = 0.0
    for start in range(0, len(likelihoods), BLOCK):
        block = np.asarray(likelihoods[start : start + BLOCK], np.float64)
        total -= float(np.log(np.maximum(block, FLOOR)).sum())
    return total / max(1, len(likelihoods))
