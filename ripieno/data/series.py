"""Series of unequal lengths, and with gaps, in arrays of one shape.

A data set holds series as float32 (samples, length, channels). Those shorter than the longest are padded at the end
with NaN in all channels, and nothing else in them is NaN: points that are missing within a series are interpolated when
it is read. The mask of the padding is therefore in the data. A network's length is that of its data set: shorter
series are padded before they are predicted, longer ones are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.data.blocks import blocks
from ripieno.errors import DataError
from ripieno.types import Float32s, Input, Ints

LARGEST = 16 << 30
"""Most bytes of padded series: one long series among many short ones would need far more than the file has."""
FEWEST = 2
"""Points that a series has at least."""


class GapCounts(NamedTuple):
    """Counts of missing values that were interpolated."""

    values: int
    series: int
    """with at least one of them"""
    first: str
    """name of the first of these series; empty without any"""


def lengths(series: NDArray[Any]) -> Ints:
    """Return the number of points of each of `series` (samples, length, channels), without its padding."""
    known = ~np.isnan(series).all(axis=2)
    return np.where(known.any(axis=1), series.shape[1] - known[:, ::-1].argmax(axis=1), 0)


def pad(series: Sequence[NDArray[Any]], length: int | None = None) -> Float32s:
    """Return series (points, channels) as (samples, length, channels), padded at the end with NaN.

    `length` is at least that of the longest, which it is where it is None. Raises DataError where their channels
    differ, and where the padded series would take more than `LARGEST` bytes.
    """
    for row, one in enumerate(series):
        if one.shape[1] != series[0].shape[1]:
            counts = f"sample 0 has {series[0].shape[1]} channels, sample {row} has {one.shape[1]}"
            raise DataError(f"series differ in their channels: {counts}; expected the same in all")
    longest = max(range(len(series)), key=lambda row: len(series[row]))
    length = len(series[longest]) if length is None else length
    size = 4 * len(series) * length * series[0].shape[1]
    if size > LARGEST:
        held = f"{len(series):,} series take {size:,} bytes padded to {length:,} points, those of sample {longest}"
        raise DataError(f"{held}; expected at most {LARGEST:,}; cut or leave out the longest series")
    padded = np.full((len(series), length, series[0].shape[1]), np.nan, np.float32)
    for place, one in zip(padded, series, strict=True):
        place[: len(one)] = one
    return padded


def join_series(arrays: Sequence[NDArray[Any]], wheres: Sequence[str], notes: list[str]) -> list[Float32s]:
    """Return arrays (samples, length, channels) of the parts of a source as a data set holds them: see the module.

    `wheres` name the parts in messages. Raises DataError for other types than numbers, unequal channels, infinite
    values, and series of fewer than `FEWEST` points.
    """
    for array, where in zip(arrays, wheres, strict=True):
        if array.shape[2] != arrays[0].shape[2]:
            counts = f"{arrays[0].shape[2]} channels in {wheres[0]}, but {array.shape[2]} in {where}"
            raise DataError(f"series have {counts}; expected the same channels in all")
    read, gaps = zip(*(read_series(*part) for part in zip(arrays, wheres, strict=True)), strict=True)
    notes += gap_notes(gaps)
    ends = np.concatenate([lengths(array) for array in read])
    longest = int(ends.max())
    if ends.min() < longest:
        notes.append(f"series have {ends.min():,} to {longest:,} points: shorter ones are padded at the end and masked")
    return [_resized(array, longest) for array in read]


def read_series(series: NDArray[Any], where: str) -> tuple[Float32s, GapCounts]:
    """Return `series` (samples, length, channels) as float32 with the gaps within them interpolated, and their counts.

    NaN at the end of a series, in all channels, is padding. Raises DataError naming the series, as `join_series`.
    """
    if series.dtype.kind not in "biuf":
        raise DataError(f"series of {where} hold {series.dtype}; expected numbers; convert them")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        found: Float32s = series.astype(np.float32, copy=False)
    given, missing, with_gaps, first = found, 0, 0, ""
    for block in blocks(found):
        part = found[block]
        if np.isfinite(part).all():
            continue
        _check_values(part, block.start, where)
        gaps = _gaps(part)
        rows = np.flatnonzero(gaps.any(axis=(1, 2)))
        if not len(rows):
            continue
        found = found.copy() if found is given else found
        for row in rows:
            _interpolate(found[block.start + row], gaps[row], f"sample {block.start + row} of {where}")
        first = first or f"sample {block.start + rows[0]} of {where}"
        missing, with_gaps = missing + int(gaps.sum()), with_gaps + len(rows)
    short = np.flatnonzero(lengths(found) < FEWEST)
    if len(short):
        held = "1 point" if lengths(found[short[:1]])[0] else "no point"
        advice = "leave it out" if found.shape[1] > 1 else "pass rows of one point with --kind table (kind=)"
        raise DataError(f"sample {short[0]} of {where} has {held}; a series has at least {FEWEST}; {advice}")
    return found, GapCounts(missing, with_gaps, first)


def gap_notes(counts: Sequence[GapCounts]) -> list[str]:
    """Return one note on the gaps that were interpolated in all parts of a source; none where there are none."""
    values, series = sum(one.values for one in counts), sum(one.series for one in counts)
    if not values:
        return []
    verb = "value is" if values == 1 else "values are"
    first = next(one.first for one in counts if one.first)
    return [f"{values:,} missing {verb} interpolated in {series:,} series; the first is {first}"]


def fit_series(values: Any, wanted: Input, called: str = "series", notes: list[str] | None = None) -> Float32s:
    """Return series as float32 (samples, *wanted.shape), padded with NaN where they are shorter.

    With `notes`, gaps within series are interpolated as in training, and noted; without it they are refused.

    `values` are (samples, points, channels), a single series (points, channels), or without the axis of channels where
    there is one; or a list of single series of unequal lengths. Raises DataError for other shapes, series that are
    longer, and values that are missing or not finite within a series.
    """
    length, channels = wanted.shape
    array = _batch(values, channels, called)
    if array is None:
        shape = f"(samples, up to {length} points, {channels} channels)"
        raise DataError(f"{called} have shape {np.shape(values)}, must be {shape} {wanted.dtype}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{called} are {array.dtype}, must be {wanted.dtype}; convert them")
    with np.errstate(over="ignore"):
        found: Float32s = array.astype(np.float32, copy=False)
    if notes is not None:
        found, gaps = read_series(found, called)
        notes += gap_notes([gaps])
    if found.shape[1] > length:
        ends = lengths(found)
        if ends.max() > length:
            row = int(ends.argmax())
            held = f"{called} have {ends[row]:,} points (series {row})"
            raise DataError(f"{held}, but the network takes at most {length:,}; cut them, or tune on longer series")
    found = _resized(found, length)
    if not found.size or (np.isfinite(found.min()) and np.isfinite(found.max())):
        return found
    if (infinite := np.isinf(found)).any():
        row = int(infinite.any(axis=(1, 2)).argmax())
        raise DataError(f"{called} hold infinite values (series {row}), must be finite numbers")
    for holds, what in ((_gaps(found).any(axis=(1, 2)), "NaN before the end"), (lengths(found) == 0, "no value")):
        if holds.any():
            row = int(holds.argmax())
            raise DataError(f"{called} hold {what} (series {row}); NaN can only pad the end, in all channels")
    return found


def unequal_series(values: Any) -> list[NDArray[Any]] | None:
    """Return series (points, channels) of a list of arrays of numbers of unequal lengths; None for anything else.

    Each has one axis or two.
    """
    is_list = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.dtype == object)
    if not is_list or not len(values) or any(isinstance(one, str | bytes) or not np.iterable(one) for one in values):
        return None
    try:
        arrays = [np.asarray(one) for one in values]
    except (TypeError, ValueError):
        return None
    if any(one.ndim not in (1, 2) or one.dtype.kind not in "biuf" for one in arrays):
        return None
    if len({one.shape for one in arrays}) == 1 and not isinstance(values, np.ndarray):
        return None
    return [one[:, np.newaxis] if one.ndim == 1 else one for one in arrays]


def _batch(values: Any, channels: int, called: str) -> NDArray[Any] | None:
    """Return series as (samples, points, channels); None for another shape."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(f"{called} have masked values; fill them, for example with values.filled(0)")
    if (unequal := unequal_series(values)) is not None:
        return pad(unequal) if unequal[0].shape[1] == channels else None
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{called} are no array: {error}") from error
    if array.ndim == 3 and array.shape[2] == channels:
        return array
    if array.ndim == 2 and array.shape[1] == channels:
        return array[np.newaxis]
    if channels == 1 and array.ndim in (1, 2):
        return array.reshape(-1, array.shape[-1], 1)
    return None


def _resized(series: Float32s, length: int) -> Float32s:
    """Return series padded to `length`, or without padding beyond it."""
    samples, points, channels = series.shape
    if points >= length:
        return series[:, :length]
    padding = np.full((samples, length - points, channels), np.nan, np.float32)
    return np.concatenate([series, padding], axis=1)


def _gaps(series: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values of `series` (samples, length, channels) are missing before the end of their series."""
    inside = np.arange(series.shape[1]) < lengths(series)[:, np.newaxis]
    return np.asarray(np.isnan(series) & inside[:, :, np.newaxis])


def _check_values(series: Float32s, first: int, where: str) -> None:
    """Raise DataError for an infinite value; `first` is the number of the first series."""
    infinite = np.isinf(series).any(axis=(1, 2))
    if infinite.any():
        held = f"sample {first + int(infinite.argmax())} of {where} holds infinity"
        raise DataError(f"{held}; inputs must be finite numbers, or NaN where they are missing; replace it")


def _interpolate(series: Float32s, gaps: NDArray[np.bool_], name: str) -> None:
    """Fill the `gaps` of one series (length, channels), in place; before the first value of a channel, with that."""
    for channel in np.flatnonzero(gaps.any(axis=0)):
        missing = gaps[:, channel]
        known = np.flatnonzero(np.isfinite(series[:, channel]))
        if not len(known):
            raise DataError(f"channel {channel} of {name} has no values; leave the sample or the channel out")
        series[missing, channel] = np.interp(np.flatnonzero(missing), known, series[known, channel])
