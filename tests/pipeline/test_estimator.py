"""Estimators on time series, of one length and of several."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from ripieno import EnsembleClassifier, EnsembleRegressor

LENGTH = 20
QUICK: dict[str, Any] = {
    "budget": {"parameters": 1e9}, "trials": 1, "epochs": 1, "algorithm": "random", "pool": "inline", "slots": 1,
    "device": "cpu", "family": "minirocket", "free": "off", "folds": 0, "split": (0.6, 0.2, 0.2),
}  # fmt: skip


def waves(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Series (count, LENGTH) of two frequencies, and their names."""
    draw = np.random.default_rng(0)
    names = np.array(["fast", "slow"])[np.arange(count) % 2]
    speeds = np.where(names == "fast", 1.5, 0.5)
    series = np.sin(speeds[:, None] * np.arange(LENGTH) + draw.uniform(0, 6, (count, 1)))
    return (series + draw.normal(0, 0.1, series.shape)).astype(np.float32), names


@pytest.fixture(scope="module")
def fitted() -> EnsembleClassifier:
    """A classifier of series of one channel that may be shorter than `LENGTH`."""
    series, names = waves()
    return EnsembleClassifier(kind="series", **QUICK).fit(series, names)


def test_series_of_two_axes_need_their_kind(fitted: EnsembleClassifier) -> None:
    series, names = waves()
    assert (fitted.n_features_in_, fitted.sample_shape_) == (LENGTH, (LENGTH, 1))
    assert fitted.bundle_.members[0].family == "minirocket"
    assert (fitted.predict(series) == names).mean() > 0.9
    np.testing.assert_array_equal(fitted.predict_proba(series[:, :, None]), fitted.predict_proba(series))
    again = copy.deepcopy(fitted)
    np.testing.assert_array_equal(again.predict_proba(series), fitted.predict_proba(series))


def test_shorter_series_are_padded_and_gaps_interpolated(fitted: EnsembleClassifier) -> None:
    series, _ = waves()
    unequal = [one[: 12 + i] for i, one in enumerate(series[:6])]
    padded = np.full((6, LENGTH), np.nan, np.float32)
    for row, one in zip(padded, unequal, strict=True):
        row[: len(one)] = one
    expected = fitted.predict_proba(padded)
    np.testing.assert_allclose(fitted.predict_proba(unequal), expected, atol=1e-6)
    whole, gap = series[:1].copy(), series[:1].copy()
    whole[0, 5] = (whole[0, 4] + whole[0, 6]) / 2
    gap[0, 5] = np.nan
    np.testing.assert_allclose(fitted.predict_proba(gap), fitted.predict_proba(whole), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.zeros((3, LENGTH + 1)), f"X: series of X have {LENGTH + 1} points .* takes at most {LENGTH}"),
        (np.zeros((3, LENGTH, 2)), "X: series of X have shape"),
        (np.full((3, LENGTH), np.inf), "holds infinity"),
    ],
)
def test_other_series_are_refused_in_a_line(fitted: EnsembleClassifier, values: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        fitted.predict(values)
    assert "\n" not in str(error.value)


def test_series_of_unequal_lengths_are_series_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    series, names = waves()
    unequal = [np.stack([one, one], 1)[: 10 + i % 11] for i, one in enumerate(series)]
    values = np.where(names == "fast", 3.0, 1.0)
    fitted = EnsembleRegressor(verbose=1, **QUICK).fit(unequal, values)
    assert fitted.sample_shape_ == (LENGTH, 2)
    assert fitted.score(unequal, values) > 0.5
    assert "[EnsembleRegressor] series have 10 to 20 points" in capsys.readouterr().out


def test_three_axes_that_are_no_images_are_series() -> None:
    series, names = waves()
    fitted = EnsembleClassifier(**QUICK).fit(np.stack([series, series], 2), names)
    assert fitted.sample_shape_ == (LENGTH, 2)


def test_a_kind_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'sound': it must be image, series, table"):
        EnsembleClassifier(kind="sound", **QUICK).fit(*waves())  # type: ignore[arg-type]
