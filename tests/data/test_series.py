"""Series of unequal lengths and with gaps: padding, interpolation, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset
from ripieno.data.pixels import fit_array
from ripieno.data.series import lengths
from ripieno.errors import DataError
from ripieno.types import Input

NAN = np.nan
CODES = np.arange(60) % 3


def ragged(channels: int = 2) -> list[Any]:
    """60 series of 5 to 9 points."""
    draw = np.random.default_rng(0)
    return [draw.normal(3, 2, (5 + i % 5, channels)).astype(np.float32) for i in range(60)]


def test_series_of_unequal_lengths_are_padded_at_the_end(tmp_path: Any) -> None:
    notes: list[str] = []
    series = ragged()
    dataset = load_dataset((series, CODES), notes=notes, folder=tmp_path / "data")
    assert (dataset.kind, dataset.inputs.dtype, dataset.inputs.shape) == ("series", np.float32, (60, 9, 2))
    for row, one in zip(dataset.inputs, series, strict=True):
        np.testing.assert_array_equal(row[: len(one)], one)
        assert np.isnan(row[len(one) :]).all()
    assert "series have 5 to 9 points: shorter ones are padded at the end and masked" in notes
    np.testing.assert_array_equal(lengths(open_dataset(tmp_path / "data").inputs), [len(one) for one in series])


def test_moments_leave_padding_out() -> None:
    dataset = load_dataset((ragged(), CODES))
    points = np.concatenate([ragged()[row] for row in dataset.rows("train")])
    np.testing.assert_allclose(dataset.mean, points.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, points.std(0), rtol=1e-5)


def test_gaps_within_series_are_interpolated_and_told() -> None:
    series = np.tile(np.arange(6, dtype=np.float64)[:, None], (60, 1, 2))
    series[3, 2:4, 0] = NAN  # within
    series[4, :2, 1] = NAN  # at the beginning of a channel
    series[5, 4:, 1] = NAN  # at the end of a channel
    series[6, 4:] = NAN  # padding
    notes: list[str] = []
    inputs = load_dataset((series, CODES), kind="series", notes=notes).inputs
    np.testing.assert_array_equal(inputs[3, :, 0], np.arange(6))
    np.testing.assert_array_equal(inputs[4, :, 1], [2, 2, 2, 3, 4, 5])
    np.testing.assert_array_equal(inputs[5, :, 1], [0, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(np.isnan(inputs[6]).all(1), [False] * 4 + [True] * 2)
    assert "6 missing values are interpolated in 3 series; the first is sample 3 of the arrays" in notes
    assert np.isnan(series[3, 2:4, 0]).all()  # the user's array stays as it is


def test_gaps_of_all_splits_are_one_note() -> None:
    values, notes = np.ones((60, 8, 1)), list[str]()
    values[5, 3] = np.nan
    load_dataset({"train": (values, CODES), "test": (values, CODES)}, kind="series", notes=notes)
    told = [note for note in notes if "missing" in note]
    assert told == ["2 missing values are interpolated in 2 series; the first is sample 5 of the train split"]


def test_items_of_unequal_lengths_are_series() -> None:
    items = [(one, int(code)) for one, code in zip(ragged(1), CODES, strict=True)]

    class Items:
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> Any:
            return items[index]

    dataset = load_dataset(Items())
    assert (dataset.kind, dataset.inputs.shape) == ("series", (60, 9, 1))


def test_unequal_series_as_long_as_they_have_channels_are_no_images() -> None:
    series = [one[: 2 + i % 2].repeat(2, 1)[:, :3] for i, one in enumerate(ragged())]
    assert load_dataset((series, CODES)).kind == "series"


def test_one_long_series_among_many_is_refused_before_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.data.series.LARGEST", 10_000)
    long = [*ragged()[:59], np.zeros((100, 2), np.float32)]
    with pytest.raises(DataError, match="60 series take 48,000 bytes padded to 100 points, those of sample 59"):
        load_dataset((long, CODES))


def test_splits_of_unequal_lengths_get_that_of_the_longest() -> None:
    values = np.random.default_rng(0).normal(size=(60, 8, 1))
    for train, test in ((values, values[:, :5]), (values[:, :5], values)):
        dataset = load_dataset({"train": (train, CODES), "test": (test, CODES)}, kind="series")
        assert dataset.inputs.shape == (120, 8, 1)
        np.testing.assert_array_equal(lengths(dataset.inputs[dataset.rows("test")]), test.shape[1])


def changed(value: Any, *place: Any) -> Any:
    series = np.random.default_rng(0).normal(size=(60, 6, 2))
    series[place] = value
    return series


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (changed(NAN, 7, slice(1, None)), "sample 7 of the arrays has 1 point; a series has at least 2; leave it out"),
        (changed(NAN, 7), "sample 7 of the arrays has no point"),
        (changed(NAN, 7, slice(None), 1), "channel 1 of sample 7 of the arrays has no values"),
        (changed(np.inf, 7, 2, 1), "sample 7 of the arrays holds infinity"),
        (changed(0, 0)[:, :1], "sample 0 of the arrays has 1 point; .* pass rows of one point with --kind table"),
        ([*ragged()[:59], np.zeros((4, 3))], "sample 0 has 2 channels, sample 59 has 3; expected the same"),
        ({"train": (changed(0, 0), CODES), "test": (changed(0, 0)[..., :1], CODES)}, "2 channels in .* but 1 in "),
        (changed(0, 0).astype("U9"), "series of the arrays hold <U9; expected numbers"),
    ],
)
def test_series_that_cannot_be_used_are_told(inputs: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(inputs if isinstance(inputs, dict) else (inputs, CODES), kind="series")
    assert "\n" not in str(caught.value)


def test_channels_that_seem_to_come_first_are_told() -> None:
    notes: list[str] = []
    load_dataset((np.random.default_rng(0).normal(size=(60, 6, 100)), CODES), notes=notes)
    assert any(
        "6 points of 100 channels; if the channels come first, pass inputs.transpose(0, 2, 1)" in n for n in notes
    )


@pytest.mark.parametrize(
    ("values", "channels", "points"),
    [
        (np.ones((3, 8, 2)), 2, [8, 8, 8]),
        (np.ones((3, 5, 2), np.int64), 2, [5, 5, 5]),
        (np.ones((5, 2)), 2, [5]),
        (np.ones((3, 5)), 1, [5, 5, 5]),
        (np.ones(5), 1, [5]),
        (np.ones((5, 1)), 1, [5]),
        ([np.ones((5, 2)), np.ones((8, 2))], 2, [5, 8]),
        ([[1, 2, 3], [4, 5]], 1, [3, 2]),
        (np.concatenate([np.ones((1, 8, 1)), np.full((1, 3, 1), NAN)], 1), 1, [8]),
    ],
)
def test_shorter_series_are_padded_for_a_network(values: Any, channels: int, points: list[int]) -> None:
    fitted = fit_array(values, Input((8, channels), "float32"))
    assert (fitted.shape, fitted.dtype) == ((len(points), 8, channels), np.float32)
    np.testing.assert_array_equal(lengths(fitted), points)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 9, 2)), r"series have 9 points \(series 0\), but the network takes at most 8; cut them"),
        (np.ones((3, 8, 3)), r"have shape \(3, 8, 3\), must be \(samples, up to 8 points, 2 channels\) float32"),
        (changed(NAN, 7, 2, 1), r"hold NaN before the end \(series 7\); NaN can only pad the end, in all channels"),
        (changed(NAN, 7), r"hold no value \(series 7\)"),
        (changed(np.inf, 7, 2, 1), r"hold infinite values \(series 7\)"),
        (np.full((3, 8, 2), "a"), "are <U1, must be float32"),
    ],
)
def test_series_that_do_not_fit_a_network_are_told(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_array(values, Input((8, 2), "float32"), "series")
