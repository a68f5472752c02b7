"""Layout, type and range of pixels, decided once: for training data and for every way to predict.

A picture file states its depth, so it is scaled to the range of the training images. An array does not, so it is used
unchanged, or rejected when its layout, type or range differs from that of the training images.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.series import fit_series
from ripieno.data_kinds import is_series, is_table
from ripieno.errors import DataError
from ripieno.types import SPLITS, Input, PixelRange, column_places

BYTES: PixelRange = (0.0, 255.0)
"""Range of uint8 pixels."""
FEW = 4
"""Channels of grey, colour and transparent images, at most."""
FACTOR = 10.0
"""Ratio above which two ranges have different units."""
LARGEST = 4096
"""Pixels per side to which images can be resized, at most."""


def check_size(size: int | None) -> None:
    """Raise DataError unless `size`, in pixels per side, is None or a whole number in the allowed range."""
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, Integral) or not 1 <= size <= LARGEST:
        raise DataError(f"size is {size!r}: it must be a number of pixels, 1 to {LARGEST:,}")


def channels_first(shape: Sequence[int], tensor: bool = False) -> tuple[bool, bool]:
    """Return whether the first of an image's three axes holds the channels, and whether its shape is unambiguous.

    Channels are few, their axis is by far the shortest, or the two other axes are equal; a PyTorch `tensor` has
    them first unless its shape contradicts it. Channels last is the default.

    >>> channels_first((4, 32, 32)), channels_first((28, 28, 1)), channels_first((3, 32, 3))
    ((True, True), (False, True), (False, False))
    """
    a, b, c = shape
    last = (c <= FEW) + (2 * c <= min(a, b)) + (a == b)
    first = (a <= FEW) + (2 * a <= min(b, c)) + (b == c) + tensor
    return first > last, first != last


def channels_last(images: NDArray[Any], where: str, notes: list[str]) -> NDArray[Any]:
    """Return images (samples, height, width[, channels]), or channels first, as NHWC; note ambiguous shapes.

    Raises DataError for another number of axes, an empty axis, or masked pixels.
    """
    if isinstance(images, np.ma.MaskedArray):
        if np.ma.is_masked(images):
            raise DataError(f"images of {where} have masked pixels; fill them, for example with images.filled(0)")
        images = images.data
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        expected = "(samples, height, width) or (samples, height, width, channels)"
        raise DataError(f"images of {where} have shape {images.shape}; expected {expected}; reshape them")
    if 0 in images.shape:
        raise DataError(f"images of {where} have shape {images.shape}; expected at least one sample and pixel")
    first, sure = channels_first(images.shape[1:])
    if first:
        notes.append(f"images of {where} have shape {images.shape}; it is read as channels first")
        return np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    if not sure:
        read_as = f"channels last, {images.shape[3]} channels"
        notes.append(f"images of {where} have shape {images.shape}; it is read as {read_as}")
    return images


def differ(given: PixelRange, trained: PixelRange) -> bool:
    """Return whether pixels that range over `given` have another unit than pixels that range over `trained`.

    They do if they are more than `FACTOR` times as large, are within -1 to 1 where the others are that much larger, or
    are negative where the others are not. Dark images fit every unit.
    """
    size, extent = max(map(abs, trained)), max(map(abs, given))
    if not size or not extent:
        return False
    if extent > FACTOR * size or (extent <= 1 and size > FACTOR):
        return True
    return trained[0] >= 0 and given[0] < -extent / 4


def check_finite(extremes: NDArray[np.float64], where: str = "") -> None:
    """Raise DataError naming the first image whose least or largest pixel (samples, 2) is NaN or infinite."""
    finite = np.isfinite(extremes).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise DataError(f"sample {bad}{where} holds NaN or infinity; inputs must be finite numbers; replace them")


def training_range(
    extremes: NDArray[np.float64], split: NDArray[np.uint8], given: Collection[int], notes: list[str]
) -> PixelRange:
    """Return the range of the training split of images with `extremes` (samples, 2), least and largest pixel of each.

    A note reports images of another unit than the rest. Raises DataError when a split of the source (one of `given`,
    indices into `SPLITS`) has another unit, judged by the medians of its images, which outliers do not affect.
    """
    check_finite(extremes)
    trained = _median(extremes[split == 0])
    for i in given:
        other = _median(extremes[split == i])
        if differ(other, trained) or differ(trained, other):
            ranges = f"{spoken(trained)} in the {SPLITS[0]} split but over {spoken(other)} in the {SPLITS[i]} split"
            raise DataError(f"pixels usually range over {ranges}; scale them to the same unit")
    largest = extremes.max()
    dark = (np.abs(extremes).max(axis=1) <= 1) & (extremes[:, 0] != extremes[:, 1])
    if dark.any() and differ((0.0, 1.0), (0.0, float(largest))):
        count = np.count_nonzero(dark)
        group = "1 image" if count == 1 else f"{count:,} images"
        notes.append(
            f"the pixels of {group} are within 0 to 1, the first is image {int(np.argmax(dark))}, but the largest "
            f"pixel of all is {largest:.6g}; scale them to the same unit unless they are really that dark"
        )
    return float(extremes[split == 0, 0].min()), float(extremes[split == 0, 1].max())


def _median(extremes: NDArray[np.float64]) -> PixelRange:
    return float(np.median(extremes[:, 0])), float(np.median(extremes[:, 1]))


def spoken(span: PixelRange) -> str:
    """Format a range: "0 to 255"."""
    return f"{span[0]:.6g} to {span[1]:.6g}"


def fit_array(images: Any, wanted: Input, called: str = "images") -> NDArray[Any]:
    """Convert arrays of pixels to (samples, *wanted.shape) of the dtype of `wanted`, without scaling.

    A single sample is a batch of one; channels may come first, and be absent where there is one. Whole numbers 0 to
    255 of any type are bytes. Series are fitted by `ripieno.data.series.fit_series`. Raises DataError with the actual
    and the expected value: for another shape or type, masked, NaN or infinite pixels, and a range of another unit than
    that of the training images. In rows of tables NaN is a missing value.
    """
    if is_series(wanted):
        return fit_series(images, wanted, called)
    if isinstance(images, np.ma.MaskedArray) and np.ma.is_masked(images):
        raise DataError(f"{called} have masked pixels; fill them, for example with images.filled(0)")
    try:
        array = np.asarray(images)
    except ValueError as error:  # lists of unequal lengths
        raise DataError(f"{called} are no array: {error}") from error
    found = laid_out(array, wanted.shape)
    if found is None:
        expected = ", ".join(["samples", *map(str, wanted.shape)])
        raise DataError(f"{called} have shape {array.shape}, must be ({expected}) {wanted.dtype}")
    if is_table(wanted):
        return _rows(found, called)
    fitted = found if found.dtype == wanted.dtype else _cast(found, wanted, called)
    check_range(fitted, wanted, called)
    return fitted


def _rows(array: NDArray[Any], called: str) -> NDArray[Any]:
    """Return rows of a table as float32. Raises DataError for other types than numbers, and for infinite values."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{called} are {array.dtype}, must be float32; convert them")
    with np.errstate(over="ignore"):  # values that become infinite are rejected as such
        fitted = array.astype(np.float32, copy=False)
    if np.isinf(fitted).any():
        raise DataError(f"{called} hold infinite values, must be finite numbers, or NaN where they are missing")
    return fitted


def check_range(array: NDArray[Any], wanted: Input, called: str = "images") -> None:
    """Raise DataError when the array's values are not finite, or have another unit than the training images."""
    kind = array.dtype.kind
    if not array.size or (kind != "f" and (wanted.range is None or FACTOR * wanted.range[1] >= BYTES[1])):
        return  # bytes have one unit, unless the training images used few of their values only
    given = float(array.min()), float(array.max())  # NaN if any is
    if not (math.isfinite(given[0]) and math.isfinite(given[1])):
        raise DataError(f"{called} hold NaN or infinite values, must be finite numbers")
    if wanted.range is not None and differ(given, wanted.range):
        raise DataError(_other_unit(called, given, wanted.range))


def _other_unit(called: str, given: PixelRange, trained: PixelRange) -> str:
    remedy = "scale them to the same range"
    return f"{called} range over {spoken(given)}, but the network was trained on {spoken(trained)}; {remedy}"


def laid_out(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any] | None:
    """Return an array as (samples, *shape), as a view where possible; None when its layout does not fit."""
    shape = tuple(shape)
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return array
    if array.shape == shape:
        return array[np.newaxis]
    if len(shape) == 3:
        first = (shape[2], shape[0], shape[1])
        if array.shape == first:
            array = array[np.newaxis]
        if array.ndim == 4 and array.shape[1:] == first:
            return np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        if shape[2] == 1 and array.shape[-2:] == shape[:2] and array.ndim in (2, 3):
            return array.reshape(-1, *shape)
    return None


def _cast(array: NDArray[Any], wanted: Input, called: str) -> NDArray[Any]:
    """Convert `array` to the dtype of `wanted` without changing its values."""
    kind, size = array.dtype.kind, max(map(abs, wanted.range or (0.0, 0.0)))
    remedy = f"convert them with images.astype('{wanted.dtype}')"
    if kind not in "biuf":
        raise DataError(f"{called} are {array.dtype}, must be {wanted.dtype}; {remedy}")
    if wanted.dtype != "uint8":
        if kind == "f":
            with np.errstate(over="ignore"):  # values that become infinite are rejected as such
                return array.astype(wanted.dtype)
        if wanted.range is None or kind == "b":
            raise DataError(f"{called} are {array.dtype}, must be {wanted.dtype}; {remedy}")
        if (size <= 1 and array.any()) or (array.dtype == np.uint8 and size > BYTES[1]):
            trained = f"but the network was trained on {wanted.dtype} of {spoken(wanted.range)}"
            raise DataError(f"{called} are {array.dtype}, {trained}; scale them to the same range and convert them")
        return array.astype(wanted.dtype)
    if kind == "b":
        return array.view(np.uint8) * np.uint8(255)
    with np.errstate(invalid="ignore", over="ignore"):
        whole = array.astype(np.uint8)
    if not np.array_equal(whole, array):
        if not np.isfinite(array).all():
            raise DataError(f"{called} hold NaN or infinite values, must be whole numbers 0 to 255")
        values = "other values than the whole numbers 0 to 255; scale or round them"
        raise DataError(f"{called} are {array.dtype} with {values}")
    if kind == "f" and array.size:
        span = float(array.min()), float(array.max())
        if differ(span, wanted.range or BYTES):
            raise DataError(_other_unit(called, span, wanted.range or BYTES))
    return whole


def white_of(wanted: Input) -> float | None:
    """Return white in the training images: 1 for floats of 0 to 1, 255 for others of 0 to 255; None if unknown."""
    if wanted.dtype == "uint8":
        return BYTES[1]
    if wanted.range is None or wanted.range[0] < 0 or wanted.range[1] > BYTES[1]:
        return None
    return 1.0 if wanted.range[1] <= 1 else BYTES[1]


def random_images(wanted: Input, count: int, seed: int = 0) -> NDArray[Any]:
    """Draw noise (count, *wanted.shape) in the range of the training images, for benchmarks: the same for a seed.

    Of tables, categories are drawn from those of their columns, and from others.
    """
    generator = np.random.default_rng(seed)
    shape = (count, *wanted.shape)
    low, high = wanted.range or BYTES
    if wanted.dtype == "uint8":
        return generator.integers(int(low), int(high) + 1, shape, np.uint8)
    if wanted.range is None:
        noise = generator.standard_normal(shape, np.float32)
        for column, place in column_places(wanted.columns):
            if column.kind == "category":
                noise[:, place] = generator.integers(-1, len(column.categories), (count, 1))
        return noise
    return generator.uniform(low, high, shape).astype(np.float32)
