"""Masks of pictures as they are predicted, band by band, and as indexed PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno.types import Float32s, Floats

COLOURS = 256
"""Colours of a palette: one for each value of a byte."""


@final
class MaskBuilder:
    """The mask (height, width) uint8 of a picture, made from bands of its predictions (rows, width, classes)."""

    def __init__(self, shape: tuple[int, int], classes: int) -> None:
        self.mask = np.empty(shape, np.uint8)
        self._pixels = np.zeros(classes, np.int64)
        self._certainty = 0.0
        self._rows = 0

    def add(self, bands: Iterable[Float32s]) -> None:
        """Append the most likely class of each pixel of `bands` (ties: the lowest)."""
        for band in bands:
            rows = self.mask[self._rows : self._rows + len(band)]
            rows[:] = band.argmax(axis=-1)
            self._certainty += float(np.take_along_axis(band, rows[..., None], axis=-1).sum(dtype=np.float64))
            self._pixels += np.bincount(rows.reshape(-1), minlength=len(self._pixels))
            self._rows += len(band)

    @property
    def shares(self) -> Floats:
        """Share of the pixels of each class, (classes,)."""
        return self._pixels / self.mask.size

    @property
    def confidence(self) -> float:
        """Mean over the pixels of the largest probability."""
        return self._certainty / self.mask.size


@lru_cache(1)
def class_colours() -> NDArray[np.uint8]:
    """Return red, green and blue (256, 3) of each class: the palette of the PASCAL VOC data set.

    The bits of the index are spread over the channels, the lowest first, so that low indices differ most. The first
    colour is black.
    """
    index, colours = np.arange(COLOURS), np.zeros((COLOURS, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def colour_code(index: int) -> str:
    """Return the colour of a class as `#rrggbb`."""
    red, green, blue = class_colours()[index].tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def mask_png(mask: NDArray[np.uint8]) -> bytes:
    """Encode a mask (height, width) as an indexed PNG: its pixels are the values, its palette `class_colours`."""
    image = Image.fromarray(mask)
    image.putpalette(class_colours().tobytes())
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()
