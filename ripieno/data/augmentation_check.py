"""Check of which changes of augmentation images can bear, by the images themselves.

Theory of operation. Half of at most 2,000 training images name the class of the other half, by their nearest
neighbours on small grey or coloured thumbnails, whose contrast is made the same. The other half is then mirrored. Where
fewer than half as many are recognised as before, beyond chance, mirroring makes one class of another: so it does with
digits and letters (0.33 of handwritten digits, against 0.68 of clothes, 0.60 of plankton, and 0.83 and more of photos).
Then rotation is checked likewise, by turning images upside down: where mirrored images are recognised, so are turned
ones after training, even if no neighbour shows it. A change of saturation needs colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.dataset import spread_rows
from ripieno.types import Dataset, Float32s, Ints

SAMPLES, VALUES = 2000, 50_000_000
"""Training images, and values of them, that the check reads at most."""
SIDE = 16
"""Pixels of a thumbnail's shorter side, at least, of images that have as many."""
LEAST_SHARE = 0.5
"""Share of the images recognised that a change may leave recognised, at least."""
CERTAINTY = 4.0
"""Standard errors by which fewer images must be recognised."""


@dataclass(frozen=True)
class UnfitAugmentation:
    """A change that images cannot bear, and the reason, a part of a sentence."""

    name: str
    reason: str


def find_unfit(dataset: Dataset) -> list[UnfitAugmentation]:
    """Return the changes that the images of `dataset` cannot bear: of `flip`, `rotate` and `colour`.

    Flips and rotations are checked where each image has one class. The result is the same for the same data.
    """
    if dataset.kind != "image":
        return []
    count = max(2, min(SAMPLES, VALUES // max(1, dataset.inputs[0].size)))
    rows = spread_rows(dataset.rows("train"), count)
    images = np.asarray(dataset.inputs[rows])
    found = []
    if images.shape[-1] != 3 or (images == images[..., :1]).all():
        found.append(UnfitAugmentation("colour", "the images are not in colour"))
    if dataset.task.kind == "classification":
        found += _unfit_moves(_thumbnails(images), np.asarray(dataset.targets[rows]))
    return found


def _unfit_moves(images: Float32s, labels: Ints) -> list[UnfitAugmentation]:
    """Return which of `flip` and `rotate` thumbnails cannot bear."""
    known, asked = (_Recognition(images[half::2], labels[half::2]) for half in (0, 1))
    before = known.count(asked.images, asked.labels)
    found: list[UnfitAugmentation] = []
    changes: tuple[tuple[str, str, Callable[[Float32s], Float32s]], ...] = (
        ("flip", "mirrored", lambda given: given[:, :, ::-1]),
        ("rotate", "turned", lambda given: given[:, ::-1, ::-1]),
    )
    for name, how, change in changes:
        after = known.count(change(asked.images), asked.labels)
        is_certain = before - after > CERTAINTY * math.sqrt(before + after)
        if not is_certain or after >= LEAST_SHARE * before:
            break  # without `flip` no `rotate`
        share = f"{100 * after / before:.0f} %"
        found.append(UnfitAugmentation(name, f"{how} training images are recognised {share} as often as others"))
    return found


@dataclass(frozen=True)
class _Recognition:
    """Recognition of thumbnails (samples, height, width, channels) by their nearest neighbours among `images`."""

    images: Float32s
    labels: Ints

    def count(self, images: Float32s, labels: Ints) -> int:
        """Return how many of `images` have the label of their neighbour."""
        known, asked = _features(self.images), _features(images)
        nearest = (asked @ known.T).argmax(1)  # of vectors of length one
        return int((self.labels[nearest] == labels).sum())


def _features(images: Float32s) -> Float32s:
    """Return the values of each image about their mean, as vectors of length one."""
    values = images.reshape(len(images), -1)
    values = values - values.mean(1, keepdims=True)
    lengths: Float32s = np.linalg.norm(values, axis=1, keepdims=True)
    directions: Float32s = values / np.maximum(lengths, 1e-6)
    return directions


def _thumbnails(images: NDArray[Any]) -> Float32s:
    """Return means of squares of pixels of `images` (samples, height, width, channels), `SIDE` or more a side."""
    height, width = images.shape[1:3]
    square = max(1, min(height, width) // SIDE)
    rows, columns = height // square, width // square
    cut = images[:, : rows * square, : columns * square]
    parts = cut.reshape(len(images), rows, square, columns, square, images.shape[-1])
    means: Float32s = np.nan_to_num(parts.mean((2, 4), dtype=np.float32))
    return means
