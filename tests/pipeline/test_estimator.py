"""Estimators on time series, of one length and of several, and on tables with named columns and without."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from ripieno import EnsembleClassifier, EnsembleRegressor
from ripieno.pipeline.estimator import search_hours

LENGTH = 20
QUICK: dict[str, Any] = {
    "budget": {"parameters": 1e9}, "trials": 1, "epochs": 1, "algorithm": "random", "pool": "inline", "slots": 1,
    "device": "cpu", "family": "minirocket", "free": "off", "folds": 0, "split": (0.6, 0.2, 0.2),
}  # fmt: skip


ROWS: dict[str, Any] = {**QUICK, "family": "mlp", "epochs": 3}


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


class Frame:
    """A data frame of a library that nobody knows: it has names of columns, and gives them."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns, self._values = list(columns), columns

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __len__(self) -> int:
        return len(next(iter(self._values.values())))


def people(count: int = 80) -> tuple[Frame, np.ndarray]:
    """Ages, of which some are missing, jobs, and dates; cooks have a low pay, nurses a high one."""
    draw = np.random.default_rng(0)
    job = draw.choice(["cook", "nurse"], count)
    age = np.where(draw.random(count) < 0.1, np.nan, draw.uniform(20, 60, count))
    since = np.datetime64("2020-01-01") + draw.integers(0, 1000, count).astype("m8[D]")
    return Frame({"age": age, "job": job.tolist(), "since": since}), np.where(job == "nurse", "high", "low")


@pytest.fixture(scope="module")
def of_columns() -> EnsembleClassifier:
    return EnsembleClassifier(**ROWS).fit(*people())


def test_a_data_frame_is_read_by_its_columns(of_columns: EnsembleClassifier) -> None:
    frame, pay = people()
    assert of_columns.feature_names_in_.tolist() == ["age", "job", "since"]
    assert of_columns.n_features_in_ == 3
    assert {c.name: c.kind for c in of_columns.bundle_.input.columns} == {
        "age": "number", "job": "category", "since": "date",
    }  # fmt: skip
    assert of_columns.bundle_.members[0].family == "mlp"
    assert of_columns.score(frame, pay) > 0.9
    expected = of_columns.predict_proba(frame)
    turned = {name: frame[name] for name in ("since", "job", "age")} | {"new": np.zeros(len(frame))}
    np.testing.assert_array_equal(of_columns.predict_proba(turned), expected)
    rows = [{name: frame[name][i] for name in frame.columns} for i in range(3)]
    np.testing.assert_allclose(of_columns.predict_proba(rows), expected[:3], atol=1e-6)
    array = np.array([[row[name] for name in frame.columns] for row in rows], dtype=object)
    np.testing.assert_allclose(of_columns.predict_proba(array), expected[:3], atol=1e-6)
    again = copy.deepcopy(of_columns)
    np.testing.assert_array_equal(again.predict_proba(frame), expected)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"age": [1.0], "job": ["cook"]}, "has no column 'since'"),
        ({"age": ["old"], "job": ["cook"], "since": ["2020-01-01"]}, "holds 'old' for 'age'; expected a number"),
        (np.zeros((3, 2)), r"X has shape \(3, 2\), the estimator was fitted on \(samples, 3\), or a data frame"),
    ],
)
def test_other_tables_are_refused_in_a_line(of_columns: EnsembleClassifier, values: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        of_columns.predict(values)
    assert "\n" not in str(error.value)


def test_a_data_frame_without_columns_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="X has no columns; expected one for each input"):
        EnsembleClassifier(**ROWS).fit(Frame({}), people()[1])


def test_kinds_of_columns_may_be_named() -> None:
    frame, pay = people()
    codes = {"age": frame["age"], "job": np.array([{"cook": 1, "nurse": 2}[job] for job in frame["job"]])}
    fitted = EnsembleClassifier(column={"job": "category"}, **ROWS).fit(codes, pay)
    assert [(c.name, c.kind) for c in fitted.bundle_.input.columns] == [("age", "number"), ("job", "category")]
    with pytest.raises(ValueError, match="X has no column 'pay'"):
        fitted.set_params(column={"pay": "number"}).fit(codes, pay)
    with pytest.raises(ValueError, match="column names 'pay', but X has no named columns: pass a data frame"):
        fitted.fit(np.zeros((80, 2)), pay)


def test_an_unseen_category_is_predicted(of_columns: EnsembleClassifier) -> None:
    values = {"age": [30.0, 30.0], "job": ["pilot", None], "since": ["2021-05-01", "2021-05-01"]}
    assert np.isfinite(of_columns.predict_proba(values)).all()


def test_arrays_of_rows_may_lack_values() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(80, 3)).astype(np.float32)
    values = 2 * rows[:, 0]
    rows[draw.random((80, 3)) < 0.1] = np.nan
    fitted = EnsembleRegressor(**ROWS | {"epochs": 5}).fit(rows, values)
    assert (fitted.bundle_.input.shape, fitted.bundle_.members[0].family) == ((3,), "mlp")
    assert np.isfinite(fitted.predict(rows)).all()
    assert fitted.score(rows, values) > 0.5


def test_an_estimator_of_version_1_predicts_rows_as_images_of_one_pixel() -> None:
    draw = np.random.default_rng(0)
    rows, names = draw.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    fitted = EnsembleClassifier(**QUICK | {"family": None, "space": "resnet-table"}, kind="image")
    fitted.fit(rows[:, None, None, :], names)
    expected = fitted.predict_proba(rows[:, None, None, :])
    fitted.sample_shape_ = (3,)  # as version 1 kept it
    state = copy.copy(fitted.__getstate__())
    del state["kind"], state["column"]
    old = EnsembleClassifier.__new__(EnsembleClassifier)
    old.__setstate__(state)
    np.testing.assert_array_equal(old.predict_proba(rows), expected)
    assert old.get_params()["kind"] is None


def test_targets_of_another_number_are_refused_in_a_line() -> None:
    frame, pay = people()
    with pytest.raises(ValueError, match="X has 80 samples, but y has 79 targets: give one for each"):
        EnsembleClassifier(**ROWS).fit(frame, pay[1:])


def test_a_fit_keeps_time_for_selection_and_export() -> None:
    assert search_hours(1.0, 300.0, 60.0) == pytest.approx(1 - 0.1)
    assert search_hours(1.0, 300.0, 7200.0) == pytest.approx(0.1)
