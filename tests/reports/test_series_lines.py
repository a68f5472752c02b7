"""Lines of series: every value within its band, limited in points, channels and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.reports.series_lines import CHANNELS, HEIGHT, POINTS, WIDTH, envelope, series_lines
from ripieno.types import Dataset, classification


def dataset(series: np.ndarray) -> Dataset:
    labels, channels = np.zeros(len(series), np.int64), series.shape[-1]
    moments = (0.0,) * channels, (1.0,) * channels
    return Dataset("x", series, labels, labels.astype(np.uint8), classification(("a", "b")), *moments, kind="series")


def points(path: str) -> np.ndarray:
    assert path.startswith("M")
    return np.array([[float(n) for n in point.split()] for point in path[1:].split("L")])


def test_a_series_is_a_line_from_its_least_to_its_largest_value() -> None:
    series = np.array([0.0, 4.0, -4.0, 2.0], np.float32)[None, :, None]
    (drawing,) = series_lines(dataset(series), [0]).values()
    (line,) = drawing.lines
    found = points(line)
    np.testing.assert_allclose(found[:, 0], np.linspace(0, WIDTH, 4), atol=0.05)
    assert found[:, 1].argmin() == 1
    assert found[:, 1].argmax() == 2
    assert 0 < found[:, 1].min() < found[:, 1].max() < HEIGHT
    assert drawing.note == "4 points, -4 to 4"


def test_a_shorter_series_ends_before_the_right_edge() -> None:
    series = np.random.default_rng(0).normal(size=(2, 10, 2)).astype(np.float32)
    series[1, 5:] = np.nan
    found = series_lines(dataset(series), [0, 1])
    assert points(found[0].lines[0])[-1, 0] == WIDTH
    assert points(found[1].lines[0])[-1, 0] == pytest.approx(WIDTH * 4 / 9, abs=0.05)
    assert "nan" not in "".join(found[1].lines)
    assert found[1].note == "5 points, 2 channels"


def test_each_channel_has_a_band_and_a_constant_one_its_middle() -> None:
    series = np.random.default_rng(0).normal(size=(1, 8, 9)).astype(np.float32)
    series[0, :, 1] = 7
    (drawing,) = series_lines(dataset(series), [0]).values()
    assert len(drawing.lines) == CHANNELS
    height = HEIGHT / CHANNELS
    for number, line in enumerate(drawing.lines):
        ys = points(line)[:, 1]
        assert number * height <= ys.min() <= ys.max() <= (number + 1) * height
    assert set(points(drawing.lines[1])[:, 1]) == {1.5 * height}
    assert drawing.note == "8 points, 6 of 9 channels"


def test_a_long_series_keeps_its_peaks() -> None:
    values = np.sin(np.arange(100_000) / 50)
    values[77_777] = 9.0
    places, kept = envelope(values)
    assert len(places) <= POINTS
    assert (kept.max(), places[kept.argmax()]) == (9.0, 77_777)
    assert (np.diff(places) > 0).all()


def test_lines_end_where_the_bytes_end() -> None:
    series = np.random.default_rng(0).normal(size=(50, 200, 1)).astype(np.float32)
    found = series_lines(dataset(series), range(50), most=20_000)
    assert 0 < len(found) < 50
    assert sum(len(line) for drawing in found.values() for line in drawing.lines) <= 20_000
