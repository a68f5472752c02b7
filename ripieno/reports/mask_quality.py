"""Quality of an ensemble's masks: figures by class, errors near boundaries, and the hardest images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ripieno.reports.task_tables import Row, pixel_rows
from ripieno.tasks.pixels import PixelTotals
from ripieno.types import IGNORED, Ints, Task

DISTANCES = (1, 2, 4, 8, 16)
"""Pixels from a boundary."""
HARDEST = 12
"""Number of images that are drawn."""

Masks = NDArray[np.uint8]
"""(height, width): indices of classes, or `IGNORED`."""


@dataclass(frozen=True)
class BoundaryError:
    """Counted pixels, and wrong ones, within a distance of a boundary of the true mask and elsewhere."""

    distance: int
    """pixels, along rows and columns"""
    near: int
    near_wrong: int
    far: int
    far_wrong: int

    @property
    def near_share(self) -> float | None:
        """Share of the near pixels that are wrong; None where there are none."""
        return self.near_wrong / self.near if self.near else None

    @property
    def far_share(self) -> float | None:
        """Share of the other pixels that are wrong; None where there are none."""
        return self.far_wrong / self.far if self.far else None

    @property
    def share_of_wrong(self) -> float | None:
        """Share of the wrong pixels that are near; None where none is wrong."""
        wrong = self.near_wrong + self.far_wrong
        return self.near_wrong / wrong if wrong else None


@dataclass(frozen=True, eq=False)
class HardMask:
    """An image of high loss, with its true and its predicted mask."""

    row: int
    """of the split"""
    loss: float
    wrong: float
    """share of its counted pixels"""
    truth: Masks
    predicted: Masks


@dataclass(frozen=True)
class MaskQuality:
    """Quality of masks on the samples used of a split."""

    rows: Sequence[Row]
    """figures of each class, see `task_tables.pixel_rows`"""
    boundaries: Sequence[BoundaryError]
    """one for each of `DISTANCES`"""
    hardest: Sequence[HardMask]
    """those of the highest loss first"""


def mask_quality(
    totals: PixelTotals,
    pairs: Iterable[tuple[Masks, Masks]],
    read: Callable[[int], tuple[Masks, Masks]],
    rows: Ints,
    task: Task,
) -> MaskQuality:
    """Return the quality of masks; `pairs` are true and predicted masks of all samples, one in memory at a time.

    `totals` are those of the samples, whose rows in the split are `rows`. `read` returns the pair of one of them.
    """
    counts = sum((_boundary_counts(*pair) for pair in pairs), np.zeros((len(DISTANCES), 4), np.int64))
    boundaries = [BoundaryError(k, *own) for k, own in zip(DISTANCES, counts.tolist(), strict=True)]
    losses, wrong = totals.losses / np.maximum(1, totals.pixels), 1 - totals.counts.accuracy()
    hardest = [
        HardMask(int(rows[i]), float(losses[i]), float(wrong[i]), *read(int(i)))
        for i in np.argsort(-losses, kind="stable")[:HARDEST]
    ]
    return MaskQuality(pixel_rows(totals.counts.total, task), boundaries, hardest)


def near_boundary(mask: NDArray[Any], distance: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask (height, width) with one of another value at most `distance` rows and columns away.

    Ignored pixels are a value of their own: data sets often draw them around objects. The edge of the image is no
    boundary.
    """
    size = 2 * distance + 1
    highest: NDArray[Any] = ndimage.maximum_filter(mask, size, mode="nearest")
    lowest: NDArray[Any] = ndimage.minimum_filter(mask, size, mode="nearest")
    return np.asarray(highest != lowest)


def _boundary_counts(truth: Masks, predicted: Masks) -> Ints:
    """Return near pixels, wrong ones among them, other pixels, wrong ones among them, by distance, (distances, 4)."""
    counted = truth != IGNORED
    wrong = counted & (truth != predicted)
    found = []
    for distance in DISTANCES:
        near = near_boundary(truth, distance)
        pixels, errors = int((near & counted).sum()), int((near & wrong).sum())
        found.append((pixels, errors, int(counted.sum()) - pixels, int(wrong.sum()) - errors))
    return np.array(found, np.int64)
