"""Files of masks: pictures whose pixels are indices of classes, or colours that a class file names.

A grey picture holds the indices, an indexed one (PNG, GIF) holds them whatever its palette. Masks are resized as the
pictures they belong to, by the nearest pixel; what pads a picture is ignored in its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno.data.class_file import Colour
from ripieno.data.image_io import content_box, opened, raw_modes
from ripieno.data.mask_classes import VALUES
from ripieno.errors import DataError
from ripieno.types import IGNORED

_LOSSY = {"JPEG", "MPO", "JPEG2000"}
"""Formats that change values."""
_STEPS = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow multiplies grey of 2 and 4 bits, so that it spans a byte."""


def read_mask(source: Path | Image.Image, colours: Sequence[Colour] = ()) -> NDArray[np.uint8]:
    """Read the values (height, width) of a mask; `colours` are those of the classes in masks in colour.

    Raises DataError, to be read after the name of the mask, for a format that changes values, for colours that have no
    class, and for values above 255; and any exception of Pillow's plugins for a broken file.
    """
    with opened(source) as image:
        if image.format in _LOSSY:
            raise DataError(f"is a {image.format}, which changes the values of pixels; save masks as PNG")
        if image.mode in ("1", "L", "P", "LA", "PA"):
            step = next((_STEPS[mode] for mode in raw_modes(image) if mode in _STEPS), 1)  # read before the pixels
            pixels = np.asarray(image)
            return np.ascontiguousarray(pixels[..., 0] if pixels.ndim == 3 else pixels, np.uint8) // np.uint8(step)
        if image.mode == "I" or image.mode.startswith("I;16"):
            pixels = np.asarray(image)
            if pixels.size and not 0 <= pixels.min() <= pixels.max() < VALUES:
                raise DataError(f"holds values of {pixels.min()} to {pixels.max()}; masks must hold 0 to 255")
            return pixels.astype(np.uint8)
        if image.mode not in ("RGB", "RGBA"):
            raise DataError(f"has mode {image.mode}, which is no mask; save it as grey or indexed PNG")
        pixels = np.asarray(image.convert("RGB"))
    if colours:
        return _classes_of(pixels, colours)
    if (pixels == pixels[..., :1]).all():  # grey, saved in colour
        return np.ascontiguousarray(pixels[..., 0])
    raise DataError(
        "is in colour; save masks as grey or indexed PNG of class indices, or give the colours in classes.txt"
    )


def _classes_of(pixels: NDArray[np.uint8], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """Return the indices (height, width) of the colours of `pixels`. Raises DataError for a colour without a class."""
    numbers = _packed(pixels)
    known = _packed(np.array(colours, np.uint8))
    order = np.argsort(known)
    places = np.searchsorted(known[order], numbers).clip(max=len(known) - 1)
    wrong = known[order][places] != numbers
    if wrong.any():
        colour = ", ".join(map(str, pixels[wrong][0].tolist()))
        raise DataError(f"holds the colour {colour}, which no class of the class file has; add it there")
    return np.asarray(order[places], np.uint8)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return np.asarray((red << 16) | (green << 8) | blue)


def fit_mask(mask: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a mask of class indices at the size of its picture.

    Square pictures keep their aspect ratio, see `ripieno.data.image_io`: the padding of the mask is `IGNORED`. Others
    are stretched.
    """
    if mask.shape == (height, width):
        return mask
    rows, columns = mask.shape
    square = height == width
    top, bottom, left, right = content_box((rows, columns), width) if square else (0, height, 0, width)
    image = Image.fromarray(np.ascontiguousarray(mask))
    pixels = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.NEAREST))
    return np.pad(pixels, ((top, height - bottom), (left, width - right)), constant_values=IGNORED)


def resize_masks(masks: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize masks (samples, height, width) to `size` x `size` pixels, see `fit_mask`."""
    resized = np.empty((len(masks), size, size), np.uint8)
    for row, mask in enumerate(masks):
        resized[row] = fit_mask(mask, size, size)
    return resized
