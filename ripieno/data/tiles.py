"""Pictures of any size as samples of a network of one size, and the predictions of these as those of the picture.

A picture that is larger than the network's input is cut into tiles at its own resolution. Neighbouring tiles overlap,
and each tile's predictions are weighted by a window that falls towards its edges, where the network sees least. The
weights of each pixel sum to 1. A smaller picture, and one that should be shrunk, is one sample, and its predictions are
resized. Predictions are returned as bands of finished rows, so that those of a whole picture are never in memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import DataError
from ripieno.types import Float32s

OVERLAP = 0.25
"""Default share of a tile that its neighbour covers, too."""
MOST_OVERLAP = 0.9
"""Largest share: the number of tiles grows without bound towards 1."""
LOWEST = 1e-3
"""Least weight of a tile's pixel before all weights of a pixel are scaled to sum 1; the largest is 1."""
BAND = 64
"""Rows of a resized prediction that are returned at once."""

Group = range
"""Consecutive samples of a picture that are predicted in one request."""


def check_overlap(overlap: float) -> None:
    """Raise DataError unless `overlap` is a share that neighbouring tiles can have in common."""
    if not 0 <= overlap <= MOST_OVERLAP:
        raise DataError(f"the overlap of tiles is {overlap:g}: it must be a share of a tile, 0 to {MOST_OVERLAP:g}")


class PictureSamples(ABC):
    """Samples of a network that together are one picture of `shape`, (height, width) in pixels."""

    shape: tuple[int, int]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def groups(self, most: int) -> Iterator[Group]:
        """Yield the samples in groups of at most `most`, or as many as make finished rows."""

    @abstractmethod
    def samples(self, group: Group) -> NDArray[Any]:
        """Return the samples (samples, height, width, channels) of a group."""

    @abstractmethod
    def joiner(self) -> PredictionJoiner:
        """Return a joiner of the predictions of all groups, in their order."""


class PredictionJoiner(ABC):
    """Joiner of predictions of samples to those of their picture; call `add` once for each group, in order."""

    @abstractmethod
    def add(self, predictions: Float32s) -> Iterator[Float32s]:
        """Yield the next finished rows (rows, width, classes), as bands, from predictions (samples, *task.output)."""


@final
@dataclass(frozen=True, eq=False)
class ResizedPicture(PictureSamples):
    """A picture as one sample, which was resized."""

    pixels: NDArray[Any]
    """(height, width, channels) of the network's input"""
    shape: tuple[int, int]
    content: tuple[int, int, int, int]
    """first and last row, first and last column (exclusive) of the picture in the sample; the rest is padding"""

    def __len__(self) -> int:
        return 1

    def groups(self, most: int) -> Iterator[Group]:  # noqa: ARG002  one sample cannot be divided
        """Yield the one sample."""
        yield range(1)

    def samples(self, group: Group) -> NDArray[Any]:  # noqa: ARG002
        """Return the sample as a batch."""
        return self.pixels[np.newaxis]

    def joiner(self) -> PredictionJoiner:
        """Return a joiner that resizes the predictions, without those of the padding."""
        return _Resizer(self.shape, self.content)


@final
class _Resizer(PredictionJoiner):
    def __init__(self, shape: tuple[int, int], content: tuple[int, int, int, int]) -> None:
        self._shape, self._content = shape, content

    def add(self, predictions: Float32s) -> Iterator[Float32s]:
        top, bottom, left, right = self._content
        own = predictions[0, top:bottom, left:right]
        if own.shape[:2] == self._shape:
            yield own
            return
        height, width = self._shape
        above, below, share = _neighbours(height, own.shape[0])
        before, after, part = _neighbours(width, own.shape[1])
        for at in range(0, height, BAND):
            band = slice(at, at + BAND)
            rows = _mixed(own[above[band]], own[below[band]], share[band, None, None])
            yield _mixed(rows[:, before], rows[:, after], part[None, :, None])


def _mixed(one: Float32s, other: Float32s, share: Float32s) -> Float32s:
    """Return the mean of two arrays, in which the other has the weight `share`."""
    return one + (other - one) * share


def _neighbours(wanted: int, given: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Float32s]:
    """Return for each of `wanted` pixels the two of `given` around it, and the weight of the second."""
    places = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
    first = places.astype(np.intp)
    return first, np.minimum(first + 1, given - 1), (places - first).astype(np.float32)


@final
@dataclass(frozen=True, eq=False)
class TiledPicture(PictureSamples):
    """A picture as tiles at its own resolution; where it is smaller than a tile, its border is repeated around it."""

    pixels: NDArray[Any]
    """(height, width, channels) of the picture"""
    tile: tuple[int, int]
    """height and width of the network's input"""
    overlap: float = OVERLAP

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """Height and width of the picture."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @cached_property
    def axes(self) -> tuple[TileAxis, TileAxis]:
        """Tiles along the height and along the width."""
        return TileAxis(self.shape[0], self.tile[0], self.overlap), TileAxis(self.shape[1], self.tile[1], self.overlap)

    def __len__(self) -> int:
        down, across = self.axes
        return len(down.starts) * len(across.starts)

    def groups(self, most: int) -> Iterator[Group]:
        """Yield whole rows of tiles, as many as `most` allows and at least one."""
        across = len(self.axes[1].starts)
        step = max(1, most // across) * across
        for start in range(0, len(self), step):
            yield range(start, min(start + step, len(self)))

    def samples(self, group: Group) -> NDArray[Any]:
        """Return the tiles of a group."""
        down, across = self.axes
        tiles = np.empty((len(group), *self.tile, self.pixels.shape[2]), self.pixels.dtype)
        for tile, number in zip(tiles, group, strict=True):
            row, column = divmod(number, len(across.starts))
            tile[:] = self.pixels[down.pixels(row)][:, across.pixels(column)]
        return tiles

    def joiner(self) -> PredictionJoiner:
        """Return a joiner that blends the predictions of tiles."""
        return _Blender(*self.axes)


@final
@dataclass(frozen=True)
class TileAxis:
    """Tiles of `tile` pixels along one axis of a picture of `size` pixels."""

    size: int
    tile: int
    overlap: float

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile; negative for one tile that is larger than the picture."""
        if self.size <= self.tile:
            return ((self.size - self.tile) // 2,)
        step = max(1, math.floor(self.tile * (1 - self.overlap)))
        count = 1 + math.ceil((self.size - self.tile) / step)
        return tuple(round(i * (self.size - self.tile) / (count - 1)) for i in range(count))

    def pixels(self, index: int) -> slice | NDArray[np.intp]:
        """Return the pixels of a tile; those beyond the picture are its border."""
        start = self.starts[index]
        if start >= 0:
            return slice(start, start + self.tile)
        return np.clip(np.arange(start, start + self.tile), 0, self.size - 1)

    def part(self, index: int) -> slice:
        """Return the part of a tile that is in the picture."""
        start = self.starts[index]
        return slice(max(0, -start), min(self.tile, self.size - start))

    @cached_property
    def weights(self) -> tuple[Float32s, ...]:
        """Weights of the pixels of each tile's part; those of all tiles for one pixel of the picture sum to 1."""
        phase = np.pi * (np.arange(self.tile) + 0.5) / self.tile
        window = np.maximum(np.sin(phase) ** 2, LOWEST)
        total = np.zeros(self.size)
        for index, start in enumerate(self.starts):
            part = self.part(index)
            total[start + part.start : start + part.stop] += window[part]
        places = [(start, self.part(index)) for index, start in enumerate(self.starts)]
        return tuple(
            (window[part] / total[start + part.start : start + part.stop]).astype(np.float32) for start, part in places
        )


@final
class _Blender(PredictionJoiner):
    def __init__(self, down: TileAxis, across: TileAxis) -> None:
        self._down, self._across = down, across
        self._row = 0
        """the next row of tiles"""
        self._sum: Float32s | None = None
        """weighted predictions of the rows from that of the next tiles on, (height of a tile, width, classes)"""

    def add(self, predictions: Float32s) -> Iterator[Float32s]:
        across, down = len(self._across.starts), self._down
        for first in range(0, len(predictions), across):
            part = down.part(self._row)
            height = part.stop - part.start
            if self._sum is None:
                self._sum = np.zeros((height, self._across.size, predictions.shape[-1]), np.float32)
            self._add_row(predictions[first : first + across, part], down.weights[self._row])
            top = max(0, down.starts[self._row])
            self._row += 1
            if self._row == len(down.starts):
                yield self._sum
                self._sum = None
                return
            finished = down.starts[self._row] - top
            yield self._sum[:finished]
            kept = np.zeros_like(self._sum)
            kept[: height - finished] = self._sum[finished:]
            self._sum = kept

    def _add_row(self, tiles: Float32s, weights: Float32s) -> None:
        """Add a row of tiles (tiles, rows, columns, classes), of which each row has a weight."""
        assert self._sum is not None
        for index, start in enumerate(self._across.starts):
            part = self._across.part(index)
            place = slice(start + part.start, start + part.stop)
            own = weights[:, None] * self._across.weights[index]
            self._sum[:, place] += tiles[index, :, part] * own[..., None]
