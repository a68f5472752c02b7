"""Predictions of a folder as files: written batch by batch, complete or absent."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.errors import RipienoError
from ripieno.library import read_bundle
from ripieno.pipeline import prediction
from ripieno.pipeline.prediction import PredictionBatch, stream_predictions
from ripieno.pipeline.prediction_files import check_output, prediction_writer
from ripieno.types import Bundle, Task


@pytest.fixture(scope="module")
def bundle(finished_bundle: Path) -> Bundle:
    return read_bundle(finished_bundle)


def batches(names: list[str], predictions: np.ndarray, spread: np.ndarray | None) -> Iterator[PredictionBatch]:
    for start in range(0, len(names), 2):
        rows = slice(start, start + 2)
        if spread is None:  # as with a cascade
            yield PredictionBatch(names[rows], predictions[rows], None)
            continue
        numbers = {"entropy": 0.5, "mutual_information": 0.25}
        known = {name: np.full(len(names[rows]), value, np.float32) for name, value in numbers.items()}
        yield PredictionBatch(names[rows], predictions[rows], spread[rows], uncertainty=known)


def test_a_stream_predicts_what_predict_does_in_batches(bundle: Bundle, digit_folder: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    parts = list(stream_predictions(bundle, digit_folder, progress=lambda *call: calls.append(call)))
    assert [len(part.names) for part in parts] == [256, 104]
    whole = ripieno.predict(bundle, digit_folder)
    assert np.array_equal(np.concatenate([part.predictions for part in parts]), whole)
    assert parts[0].names[0] == "digit-0/0000.png"
    assert calls[0] == ("predicting", 256, 360)
    assert calls[-1] == ("predicting", 360, 360)


def test_the_spread_is_the_deviation_of_the_members(bundle: Bundle, digit_folder: Path) -> None:
    (part,) = stream_predictions(bundle, digit_folder / "digit-3")
    with ripieno.Engine(bundle) as engine:
        answer = engine.submit(digit_folder / "digit-3", spread=True).result()
    assert part.spread is not None
    assert np.array_equal(part.spread, answer.std)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_a_failure_leaves_no_file_and_keeps_the_old_one(
    bundle: Bundle, digit_folder: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"predictions{suffix}"
    path.write_text("old")

    def interrupted() -> None:
        with prediction_writer(path, bundle) as append:
            for part in stream_predictions(bundle, digit_folder / "digit-3"):
                append(part)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


def test_pictures_are_read_while_others_are_predicted(
    bundle: Bundle, digit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    stream = prediction.stream_inputs

    def counted(*arguments: object, **settings: object) -> Iterator[tuple[list[str], np.ndarray]]:
        for part in stream(*arguments, **settings, size=16):  # type: ignore[arg-type]
            read.append(len(part[0]))
            yield part

    monkeypatch.setattr(prediction, "stream_inputs", counted)
    next(stream_predictions(bundle, digit_folder))
    assert sum(read) <= 16 * (prediction.AHEAD + 1), "the rest of the folder is not read yet"


CASES = {
    "classification": (
        Task("classification", (2,), ("cat", "dog")),
        np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]], np.float32),
        np.array([0.125, 0, 0], np.float32),
        [
            ["file", "prediction", "probability", "spread", "cat", "dog"],
            ["a", "dog", "0.75", "0.125", "0.25", "0.75"],
            ["b", "cat", "0.5", "0.0", "0.5", "0.5"],
            ["c", "cat", "1.0", "0.0", "1.0", "0.0"],
        ],
    ),
    "cascade": (
        Task("classification", (2,), ("cat", "dog")),
        np.array([[0.25, 0.75]], np.float32),
        None,
        [["file", "prediction", "probability", "spread", "cat", "dog"], ["a", "dog", "0.75", "", "0.25", "0.75"]],
    ),
    "multilabel": (
        Task("multilabel", (2,), ("red", "round")),
        np.array([[0.75, 0.5], [0.25, 0.75], [0.125, 0]], np.float32),
        np.zeros(3, np.float32),
        [
            ["file", "prediction", "red", "round"],
            ["a", "red|round", "0.75", "0.5"],
            ["b", "round", "0.25", "0.75"],
            ["c", "", "0.125", "0.0"],
        ],
    ),
    "regression": (
        Task("regression", (2,), ("x", "y")),
        np.array([[1.5, -2], [0, 3], [1, 1]], np.float32),
        np.array([[0.5, 0.25], [0, 0], [1, 2]], np.float32),
        [
            ["file", "x", "x_spread", "y", "y_spread"],
            ["a", "1.5", "0.5", "-2.0", "0.25"],
            ["b", "0.0", "0.0", "3.0", "0.0"],
            ["c", "1.0", "1.0", "1.0", "2.0"],
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_columns_are_those_of_the_task_in_every_form(bundle: Bundle, tmp_path: Path, name: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
    task, predictions, spread, rows = CASES[name]
    own = replace(bundle, task=task)
    for suffix in (".csv", ".parquet", ".npy"):
        with prediction_writer(tmp_path / f"out{suffix}", own) as append:
            for batch in batches(list("abc")[: len(predictions)], predictions, spread):
                append(batch)
    with open(tmp_path / "out.csv", newline="") as stream:
        assert list(csv.reader(stream)) == rows
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == rows[0]
    cells = zip(*(column.to_pylist() for column in table.columns), strict=True)
    assert [["" if v is None else str(v) for v in row] for row in cells] == rows[1:]
    assert np.array_equal(np.load(tmp_path / "out.npy"), predictions)


def test_an_output_that_cannot_be_written_is_refused_before_the_work(bundle: Bundle, tmp_path: Path) -> None:
    for path, says in (("p.txt", r"must end in .csv, .parquet, .npy"), ("f.csv", "it is a folder")):
        (tmp_path / "f.csv").mkdir(exist_ok=True)
        with pytest.raises(RipienoError, match=says):
            check_output(tmp_path / path, bundle.task)


def test_names_that_are_not_utf8_are_escaped(bundle: Bundle, digit_folder: Path, tmp_path: Path) -> None:
    source = sorted((digit_folder / "digit-3").iterdir())[0]
    try:
        shutil.copy(source, tmp_path / b"b\xff.png".decode("utf-8", "surrogateescape"))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with prediction_writer(tmp_path / "out.csv", bundle) as append:
        for part in stream_predictions(bundle, tmp_path):
            append(part)
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("b\\xff.png,")
