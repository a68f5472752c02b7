"""Series of a data set as lines on the page: SVG paths, limited in number and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.series import lengths
from ripieno.reports.thumbnails import BYTES
from ripieno.types import Dataset, Floats, Ints

WIDTH, HEIGHT = 100, 60
"""Size of the view box of a series."""
CHANNELS = 6
"""Maximum number of channels drawn of a series."""
POINTS = 160
"""Maximum number of points of a line."""
MARGIN = 2.0
"""Space above and below a line, in units of the view box."""


@dataclass(frozen=True)
class SeriesLines:
    """Drawing of a series: one line per channel in a band of its own, from its least to its largest value."""

    lines: tuple[str, ...]
    """paths in a view box of `WIDTH` x `HEIGHT`, whose width is the length of the longest series"""
    note: str
    """number of points, and range or channels"""


def series_lines(dataset: Dataset, rows: Sequence[int], most: int = BYTES, together: int = 1) -> dict[int, SeriesLines]:
    """Return drawings of the first rows, as many as fit in `most` bytes; `together` rows each have the same scale."""
    drawings: dict[int, SeriesLines] = {}
    left = most
    for number, row in enumerate(rows):
        first = number - number % together
        like = np.asarray(dataset.inputs[list(rows[first : first + together])], np.float64)
        drawing = _draw(np.asarray(dataset.inputs[row]), like)
        left -= sum(map(len, drawing.lines))
        if left < 0:
            break
        drawings[row] = drawing
    return drawings


def without_padding(series: NDArray[Any]) -> NDArray[Any]:
    """Return one series (length, channels) without the NaN at its end."""
    return series[: int(lengths(series[np.newaxis])[0])]


def envelope(values: NDArray[Any], most: int = POINTS) -> tuple[Ints, Floats]:
    """Return places and values of at most `most` points of a line: the least and the largest of each part."""
    places = np.arange(len(values))
    if len(values) > most:
        parts = np.array_split(places, most // 2)
        ends = [part[end(values[part])] for part in parts for end in (np.argmin, np.argmax)]
        places = np.unique(np.array(ends, np.int64))
    return places, values[places].astype(np.float64)


def _draw(series: NDArray[Any], like: NDArray[Any]) -> SeriesLines:
    """Draw one series (length, channels) on the scale of the series `like` (series, length, channels)."""
    whole = without_padding(series)
    shown = whole[:, :CHANNELS].T
    height = HEIGHT / len(shown)
    lows, highs = np.nanmin(like, (0, 1)), np.nanmax(like, (0, 1))
    scales = zip(shown, lows, highs, strict=False)
    lines = tuple(_path(line, len(series), n * height, height, low, high) for n, (line, low, high) in enumerate(scales))
    note, channels = f"{len(whole):,} points", series.shape[1]
    if channels > CHANNELS:
        note += f", {CHANNELS} of {channels} channels"
    elif channels > 1:
        note += f", {channels} channels"
    else:
        note += f", {whole.min():.3g} to {whole.max():.3g}"
    return SeriesLines(lines, note)


def _path(values: NDArray[Any], length: int, top: float, height: float, low: float, high: float) -> str:
    """Return the path of one channel in the band from `top` on; `length` is that of the longest series.

    The band is from the value `low` to `high`.
    """
    places, kept = envelope(values)
    shares = (kept - low) / (high - low) if high > low else np.full(len(kept), 0.5)
    xs = places * (WIDTH / max(1, length - 1))
    ys = top + MARGIN + (1 - shares) * (height - 2 * MARGIN)
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
