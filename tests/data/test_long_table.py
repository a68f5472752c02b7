"""Series in the rows of a table: columns, times, gaps, targets, splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.data.fingerprint import source_files
from ripieno.data.long_table import SeriesColumns
from ripieno.data.prediction_inputs import read_inputs
from ripieno.data.series import lengths
from ripieno.errors import DataError
from ripieno.types import Input

OPTIONS: dict[str, Any] = {"series": "id", "time": "t", "value": ("v", "w"), "target": "y"}


def rows_of(series: int = 60, points: int = 4) -> list[list[Any]]:
    """A row for each point: id, t, v, w, y; ids are neither sorted nor together, times run backwards."""
    rows = [[f"s{i}", t, i + t, -t, "ab"[i % 2]] for i in range(series) for t in range(points)]
    return rows[::-1]


def write(tmp_path: Path, rows: list[list[Any]], header: str = "id,t,v,w,y") -> Path:
    path = tmp_path / "toy.csv"
    path.write_text("\n".join((header, *(",".join(map(str, row)) for row in rows))) + "\n")
    return path


def test_rows_become_series_in_the_order_of_time(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write(tmp_path, rows_of())
    dataset = load_dataset(path, **OPTIONS, notes=notes)
    assert (dataset.kind, dataset.inputs.shape, dataset.classes) == ("series", (60, 4, 2), ("a", "b"))
    first = dataset.inputs[0]  # series s59: the first of the file
    np.testing.assert_array_equal(first, [[59, 0], [60, -1], [61, -2], [62, -3]])
    assert dataset.targets[:2].tolist() == [1, 0]
    assert source_files(path) == [path]


def test_columns_have_usual_names(tmp_path: Path) -> None:
    path = write(tmp_path, rows_of(), "series,time,value,extra,y")
    dataset = load_dataset(path, kind="series", target="y")
    assert dataset.inputs.shape == (60, 4, 1)
    notes: list[str] = []
    unordered = load_dataset(write(tmp_path, rows_of(), "series,t,value,w,y"), kind="series", target="y", notes=notes)
    assert unordered.inputs[0, :, 0].tolist() == [62, 61, 60, 59]
    assert "no column of times; the rows of a series are in the order of the file" in notes[0]


def test_missing_times_and_values_are_gaps(tmp_path: Path) -> None:
    rows, notes = rows_of(), list[str]()
    rows = [row for row in rows if row[:2] != ["s3", 1]]
    rows = [row for row in rows if row[:2] != ["s5", 3]]  # a shorter series
    for row in rows:
        if row[:2] == ["s4", 2]:
            row[2] = ""
    dataset = load_dataset(write(tmp_path, rows), **OPTIONS, notes=notes)
    np.testing.assert_array_equal(dataset.inputs[59 - 3], [[3, 0], [4, -1], [5, -2], [6, -3]])
    np.testing.assert_array_equal(dataset.inputs[59 - 4, :, 0], [4, 5, 6, 7])
    assert lengths(dataset.inputs)[59 - 5] == 3
    assert any("1 time is missing in " in note and "at intervals of 1 are interpolated" in note for note in notes)
    assert any("3 missing values are interpolated in 2 series" in note for note in notes)


@pytest.mark.parametrize(
    "stamp", ["2024-02-{:02}", "2024-02-01 00:{:02}:00", "2024-02-01T00:00:{:02}Z", "{}.05", "1e{}"][:4]
)
def test_times_may_be_dates(tmp_path: Path, stamp: str) -> None:
    rows = [[row[0], stamp.format(row[1] + 1), *row[2:]] for row in rows_of()]
    dataset = load_dataset(write(tmp_path, rows), **OPTIONS)
    assert dataset.inputs[0, :, 0].tolist() == [59, 60, 61, 62]


def test_months_are_equal_intervals(tmp_path: Path) -> None:
    rows = [[row[0], f"2024-{row[1] + 1:02}-01", *row[2:]] for row in rows_of(points=12)]
    assert load_dataset(write(tmp_path, rows), **OPTIONS).inputs.shape == (60, 12, 2)


def test_numbers_and_splits_have_one_value_a_series(tmp_path: Path) -> None:
    rows = [[*row[:4], int(row[0][1:]) / 4, "test" if row[0] in ("s1", "s2") else "train"] for row in rows_of()]
    dataset = load_dataset(write(tmp_path, rows, "id,t,v,w,y,split"), series="id", time="t", value=["v", "w"])
    assert (dataset.task.kind, dataset.classes) == ("regression", ("y",))
    assert sorted(dataset.targets[dataset.rows("test"), 0].tolist()) == [0.25, 0.5]


def changed(row: int, column: int, value: Any) -> list[list[Any]]:
    rows = rows_of()
    rows[row][column] = value
    return rows


def dated(*stamps: str) -> list[list[Any]]:
    return [["s0", stamp, 0, 0, "a"] for stamp in stamps]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            changed(0, 1, 3.5),
            {},
            "series 's59' of .* has a step of 1.5 in t, where 1 is usual; expected equal intervals",
        ),
        (changed(0, 1, 2), {}, r"series 's59' of .* has two rows of one t \(row [23]\); remove one of them"),
        (changed(0, 1, 900), {}, "series 's59' of .* has 4 rows in a time of 901"),
        (changed(0, 1, ""), {}, "row 2 has no t; fill it"),
        (changed(0, 1, "soon"), {}, "row 2 holds 'soon' for t; expected a number or a date"),
        (changed(2, 1, "soon"), {}, "row 4 holds 'soon' for t; expected a number or a date"),
        (dated("2024-02-01", ""), {}, "row 3 has no t; fill it"),
        (dated("", "2024-02-01"), {}, "row 2 has no t; fill it"),
        (dated("2024-02-01", "7"), {}, "row 3 holds '7' for t; expected a number or a date"),
        (changed(0, 2, "high"), {}, "row 2 holds 'high' for v; expected numbers"),
        (changed(2, 4, "c"), {}, r"series 's59' of .* has 'b' and 'c' for y \(row 4\); expected one value in a series"),
        (changed(2, 4, ""), {}, "row 4 has no y; fill it or remove the series"),
        (changed(2, 0, ""), {}, "row 4 has no id; fill it"),
        (rows_of(), {"series": "who"}, "has no column 'who'; expected one of id, t, v, w, y"),
        (rows_of(), {"value": "y"}, "column 'y' of .* is named for two things"),
        (rows_of(), {"value": (), "target": ()}, "name those of the values with --value"),
        (rows_of(), {"kind": "image"}, "holds series, not image"),
        (
            [[row[0], row[1] * (10 if row[0] == "s7" else 1), *row[2:]] for row in rows_of()],
            {},
            "'s7' .* a step of 10 in t",
        ),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, rows: Any, options: dict[str, Any], message: str) -> None:
    path = write(tmp_path, rows)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(path, **{**OPTIONS, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("column", "name"), [(1, "t"), (2, "v")])
def test_numbers_with_decimal_commas_are_not_told_as_faults(tmp_path: Path, column: int, name: str) -> None:
    rows = [["s0", "0,5", "0,5", "0", "a"], ["s0", "1,5", "1,5", "0", "a"]]
    rows[1][column] = "soon"
    path = tmp_path / "toy.csv"
    path.write_text("\n".join(["id;t;v;w;y", *map(";".join, rows)]) + "\n")
    with pytest.raises(DataError, match=f"row 3 holds 'soon' for {name}"):
        load_dataset(path, **OPTIONS)


def test_values_are_all_columns_but_those_named(tmp_path: Path) -> None:
    assert load_dataset(write(tmp_path, rows_of()), **{**OPTIONS, "value": ()}).inputs.shape == (60, 4, 2)


def test_columns_of_series_in_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no table of series, whose columns series, time and value name"):
        load_dataset(tmp_path, series="id")


def test_predictions_and_evaluation_read_tables(tmp_path: Path) -> None:
    path, columns = write(tmp_path, rows_of()), SeriesColumns("id", "t", ("v", "w"))
    wanted = Input((6, 2), "float32")
    names, inputs = read_inputs(path, wanted, columns=columns)
    assert (names[:2], inputs.shape) == (["toy.csv[s59]", "toy.csv[s58]"], (60, 6, 2))
    assert lengths(inputs).tolist() == [4] * 60
    task = load_dataset(path, **OPTIONS).task
    found = read_evaluation_data(path, wanted, task, columns=columns)
    assert (found.split, found.targets[:2].tolist()) == ("all", [1, 0])
