"""Tables with a row for each sample: files and data frames, targets, splits, what is left out, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset
from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.data.fingerprint import fingerprint, source_files
from ripieno.data.prediction_inputs import read_inputs, stream_inputs
from ripieno.data.table_encoding import encode
from ripieno.errors import DataError
from ripieno.types import Column, Dataset

ROWS = 120
DRAWN = np.random.default_rng(0)
COLUMNS: dict[str, list[Any]] = {
    "id": list(range(ROWS)),
    "age": DRAWN.integers(17, 90, ROWS).tolist(),
    "job": DRAWN.choice(["clerk", "smith", "", "cook"], ROWS, p=[0.5, 0.3, 0.1, 0.1]).tolist(),
    "started": [str(day) for day in np.datetime64("2020-01-01") + DRAWN.integers(0, 900, ROWS)],
    "remark": [f"said this and that {i}" for i in range(ROWS)],
    "same": ["x"] * ROWS,
    "score": [round(value, 3) if value > -1 else "?" for value in DRAWN.normal(size=ROWS).tolist()],
    "pay": DRAWN.choice(["low", "high"], ROWS).tolist(),
}


def write(path: Path, columns: dict[str, list[Any]] = COLUMNS, mark: str = ",", encoding: str = "utf-8") -> Path:
    lines = [mark.join(columns), *(mark.join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "people.csv")


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load(source: Any, **options: Any) -> tuple[Dataset, list[str]]:
    notes: list[str] = []
    return load_dataset(source, **{"target": "pay", **options}, notes=notes), notes


def test_columns_are_taken_for_what_they_are_and_one_table_says_so(table: Path) -> None:
    dataset, notes = load(table)
    assert (dataset.kind, dataset.inputs.dtype, dataset.task.names) == ("table", np.float32, ("high", "low"))
    assert [(c.name, c.kind) for c in dataset.columns] == [
        ("age", "number"),
        ("job", "category"),
        ("started", "date"),
        ("score", "number"),
    ]
    assert dataset.columns[1].categories == ("clerk", "smith", "cook")
    assert dataset.input.columns == dataset.columns
    assert np.isnan(dataset.inputs[:, -1]).sum() == COLUMNS["score"].count("?")
    described = next(note for note in notes if "\n" in note).splitlines()
    assert described[0] == f"4 columns of {table} are used, 3 left out"
    assert [line.split()[0] for line in described[1:-1]] == ["age", "job", "started", "score", "id", "remark", "same"]
    assert "category  3 categories: clerk, smith, cook; " in described[2]
    assert "% missing" in described[2]
    assert " as year, month, day, weekday, age" in described[3]
    assert [line.split("left out  ")[1] for line in described[5:-1]] == [
        *("an id", "free text", "one value in all training rows"),
    ]
    assert described[-1].startswith("--column NAME=KIND takes one for")


def test_a_data_set_is_written_with_its_columns(table: Path, tmp_path: Path) -> None:
    dataset, _ = load(table, folder=tmp_path / "data", split_by="started", drop="score")
    assert open_dataset(tmp_path / "data").columns == dataset.columns
    assert len(dataset.mean) == len(dataset.std) == dataset.inputs.shape[1]
    assert np.isfinite([*dataset.mean, *dataset.std]).all()
    with pytest.raises(DataError, match="samples split by 'started'; prepare it again from its source for folds"):
        load_dataset(tmp_path / "data", folds=3)


def test_means_leave_missing_values_out(table: Path) -> None:
    dataset, _ = load(table)
    known = dataset.inputs[dataset.rows("train")]
    np.testing.assert_allclose(dataset.mean, np.nanmean(known.astype(float), axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, np.nanstd(known.astype(float), axis=0), rtol=1e-6)


def test_categories_and_dates_are_those_of_the_training_rows(tmp_path: Path) -> None:
    columns = {
        "job": ["b"] * 50 + ["a"] * 30 + ["new"] * 20,
        "when": [str(np.datetime64("2020-01-01") + i) for i in range(100)],
        "pay": ["low", "high"] * 50,
        "split": ["train"] * 80 + ["test"] * 20,
    }
    dataset, _ = load(write(tmp_path / "x.csv", columns))
    job, when = dataset.columns
    assert job.categories == ("b", "a")
    assert (dataset.inputs[80:, 0] == -1).all()
    assert when.latest == (np.datetime64("2020-03-20") - np.datetime64("1970-01-01")).astype(int)
    assert dataset.inputs[-1, -1] == -20  # days before the last training row
    assert len(dataset.rows("test")) == 20


def test_a_column_of_splits_whose_kind_is_given_is_an_input() -> None:
    named = {**COLUMNS, "split": ["train", "test"] * (ROWS // 2)}
    assert len(load(named)[0].rows("test")) == ROWS // 2
    dataset, _ = load(named, column={"split": "category"})
    assert set(dataset.columns[-1].categories) == {"test", "train"}
    assert len(dataset.rows("test")) != ROWS // 2


def test_the_rarest_of_many_categories_are_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.data.raw_columns.MOST_CATEGORIES", 3)
    columns = {"job": ["a"] * 40 + ["b"] * 30 + ["c"] * 20 + ["d"] * 10, "pay": ["low", "high"] * 50}
    dataset, notes = load(write(tmp_path / "x.csv", columns))
    assert dataset.columns[0].categories == ("a", "b", "c")
    assert (dataset.inputs[90:] == -1).all()
    assert any("3 categories: a, b, c; 1 rarer, read as unseen" in note for note in notes)


def test_columns_are_dropped_and_taken_for_other_kinds(table: Path) -> None:
    dataset, _ = load(
        table, drop=["started", "score"], column={"id": "number", "remark": "category", "age": "category"}
    )
    assert [(c.name, c.kind) for c in dataset.columns] == [
        ("id", "number"),
        ("age", "category"),
        ("job", "category"),
        ("remark", "category"),
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path: Path, mark: str) -> None:
    dataset, _ = load(write(tmp_path / "x.csv", mark=mark))
    assert np.array_equal(dataset.inputs, load(COLUMNS)[0].inputs, equal_nan=True)


def test_commas_may_be_points(tmp_path: Path) -> None:
    commas = {**COLUMNS, "score": [str(value).replace(".", ",") for value in COLUMNS["score"]]}
    dataset, _ = load(path := write(tmp_path / "x.csv", commas, ";"))
    assert np.array_equal(dataset.inputs, load(COLUMNS)[0].inputs, equal_nan=True)
    assert np.array_equal(read_inputs(path, dataset.input)[1], dataset.inputs, equal_nan=True)


def test_parquet_and_data_frames_are_read_alike(table: Path, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    typed = {**COLUMNS, "started": np.array(COLUMNS["started"], "M8[us]"), "score": floats(COLUMNS["score"])}
    frame = pyarrow.table(typed)
    parquet.write_table(frame, tmp_path / "x.parquet")
    expected, _ = load(table)
    for source in (tmp_path / "x.parquet", frame, COLUMNS, {name: np.array(v) for name, v in typed.items()}):
        dataset, _ = load(source)
        assert dataset.columns == expected.columns
        assert np.array_equal(dataset.inputs, expected.inputs, equal_nan=True)
        assert np.array_equal(dataset.targets, expected.targets)


def floats(values: list[Any]) -> list[float]:
    return [float("nan") if value == "?" else value for value in values]


def test_a_split_by_date_keeps_the_parts_that_return(table: Path) -> None:
    dataset, notes = load(table, split_by="started")
    days = np.array(COLUMNS["started"], "M8[D]")
    train, test = dataset.rows("train"), dataset.rows("test")
    assert days[train].max() < days[test].min()
    assert dataset.fold_count == 0
    assert next(c for c in dataset.columns if c.name == "started").parts == ("month", "day", "weekday")
    assert any("'started' splits the samples: train to 20" in note for note in notes)
    assert "folds are 5, but split_by orders the samples" in error_of(table, target="pay", split_by="started", folds=5)


def test_a_split_by_groups_keeps_them_together_in_folds(table: Path) -> None:
    groups = np.arange(ROWS) % 30
    columns = {**COLUMNS, "team": [f"t{group}" for group in groups]}
    dataset, _ = load(columns, split_by="team")
    assert dataset.fold_count == 5
    assert "team" not in [column.name for column in dataset.columns]
    assert all(len(set(dataset.split[groups == group].tolist())) == 1 for group in range(30))
    assert dataset.folds is not None
    assert all(len(set(dataset.folds[groups == group].tolist())) == 1 for group in range(30))
    numbered, _ = load({**COLUMNS, "team": groups.tolist()}, split_by="team", column={"team": "category"})
    assert numbered.split_by == "team"
    assert numbered.fold_count == 5


def test_a_column_that_is_the_target_again_is_noted(table: Path) -> None:
    again = {**COLUMNS, "rich": [value == "high" for value in COLUMNS["pay"]]}
    assert any("'rich' is the target again" in note for note in load(again)[1])
    towns = {**COLUMNS, "town": [f"{value}{i % 2}" for i, value in enumerate(COLUMNS["pay"])]}
    assert not any("target again" in note for note in load(towns)[1])
    for function in (lambda age: 12 * age + 3, lambda age: -np.log(age)):
        scaled = {**COLUMNS, "months": [function(age) for age in COLUMNS["age"]]}
        notes = load(scaled, target="age", task="regression")[1]
        assert [note for note in notes if "target again" in note] == [
            "column 'months' is the target again, in other values; drop it (--drop) unless it is known when you predict"
        ]
    assert not any("target again" in note for note in load(table)[1])


def test_targets_may_be_several_and_have_usual_names() -> None:
    numbers = {**COLUMNS, "score": [i / 2 for i in range(ROWS)]}
    assert load(numbers, target=["age", "score"], task="regression")[0].task.names == ("age", "score")
    named = {("target" if name == "pay" else name): values for name, values in COLUMNS.items()}
    assert load_dataset(named).task.names == ("high", "low")


def test_a_prepared_source_is_found_again(table: Path, tmp_path: Path) -> None:
    assert source_files(table) == [table]
    assert fingerprint(table).digest == fingerprint(write(tmp_path / "other.csv")).digest
    assert fingerprint(COLUMNS).digest != fingerprint({**COLUMNS, "age": [1] * ROWS}).digest
    prepared, _ = load(table)
    other, _ = load({**COLUMNS, "job": [job and f"a {job}" for job in COLUMNS["job"]]})
    assert np.array_equal(other.inputs, prepared.inputs, equal_nan=True)
    assert fingerprint(other).digest != fingerprint(prepared).digest


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"target": "wage"}, "has no target 'wage'; expected one of id, age, job, started, ..."),
        ({}, {}, "has the columns id, age, job, started, ...; name that of the target with --target (target=)"),
        ({"pay": ["", *COLUMNS["pay"][1:]]}, {"target": "pay"}, "row 2 has no pay; fill it or remove the row"),
        ({"pay": ["a", "?", "", *COLUMNS["pay"][3:]]}, {"target": "pay"}, "row 3 has no pay (so do 1 more)"),
        ({}, {"target": "pay", "drop": "wage"}, "has no column 'wage'"),
        ({}, {"target": "pay", "column": {"wage": "number"}}, "has no column 'wage'"),
        ({}, {"target": "pay", "split_by": "wage"}, "has no column 'wage'"),
        ({}, {"target": "pay", "drop": "pay"}, "column 'pay' is named by target and drop"),
        ({}, {"target": "pay", "drop": "age", "column": {"age": "number"}}, "column 'age' is dropped and used"),
        ({}, {"target": "pay", "column": {"age": "text"}}, "column 'age' is taken for 'text'; expected one of number"),
        ({}, {"target": "pay", "column": {"job": "number"}}, "for 'job'; expected a number"),
        ({}, {"target": "pay", "column": {"age": "date"}}, "for 'age'; expected a date such as"),
        ({"age": ["inf", *COLUMNS["age"][1:]]}, {"target": "pay"}, "row 2 holds 'inf' for 'age'; expected a finite"),
        ({"started": ["", *COLUMNS["started"][1:]]}, {"target": "pay", "split_by": "started"}, "row 2 has no started"),
        ({}, {"target": "pay", "split_by": "same"}, "column 'same' has 1 values for the splits train, valid, test"),
        ({}, {"target": "pay", "split_by": "job", "column": {"job": "date"}}, "has no job; fill it or remove the row"),
        (
            {},
            {"target": "pay", "split_by": "remark", "column": {"remark": "date"}},
            "column 'remark' is no date in all rows; leave its kind out",
        ),
        ({"split": ["train", "test"] * 60}, {"target": "pay", "split_by": "age"}, "has a column 'split', which gives"),
        ({}, {"target": "pay", "kind": "image"}, "has the columns id, age"),
        ({}, {"target": "pay", "size": 8}, "size 8 applies to images"),
        ({}, {"target": "pay", "kind": "series", "drop": "age"}, "is no table with a row for each sample"),
    ],
)
def test_bad_options_and_values_are_refused_in_a_line(tmp_path: Path, changes: Any, options: Any, message: str) -> None:
    assert message in error_of(write(tmp_path / "x.csv", {**COLUMNS, **changes}), **options)


def test_bad_files_are_refused_in_a_line(tmp_path: Path) -> None:
    def error(text: str | bytes, **options: Any) -> str:
        (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return error_of(tmp_path / "x.csv", **{"target": "y", **options})

    assert "two columns of" in error("a,a,y\n1,2,3\n")
    assert "is no text in UTF-8" in error("a,y\né,1\n".encode("latin-1"))
    assert "is no text in UTF-8" in error("a,y\n1,1\n".encode("utf-16"))
    assert "has one column, 'a:y'; expected several, in a file separated by" in error("a:y\n1:2\n")
    assert "the data has no rows" in error_of({"a": [], "y": []}, target="y")
    assert "row 3 has 3 values, but the first row has 2" in error("a,y\n1,2\n1,2,3\n")
    assert "has no rows" in error("a,y\n")
    assert "has no column to predict from ('x': no values)" in error("x,y\n" + ",a\n,b\n" * 20)
    many = [f"c{i}" for i in range(10_000)]
    wide = "\n".join([",".join([*many, "y"]), *(["1," * 10_000 + "a", "2," * 10_000 + "b"] * 20)])
    assert "has 10,000 columns besides the target; expected at most 5,000; leave some out" in error(wide)


def test_options_of_tables_are_refused_for_other_data() -> None:
    arrays = (np.ones((30, 3), np.float32), np.arange(30) % 2)
    assert "the data is no table with a row for each sample" in error_of(arrays, drop="a")


def test_rows_to_predict_are_encoded_as_in_training(table: Path) -> None:
    dataset, _ = load(table)
    names = [column.name for column in dataset.columns]
    fewer = {name: COLUMNS[name] for name in names}
    listed = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    for source in (table, COLUMNS, fewer, listed, dataset.inputs, [table]):
        rows = read_inputs(source, dataset.input)[1]
        assert np.array_equal(rows, dataset.inputs, equal_nan=True)
    batches = list(stream_inputs(table, dataset.input, size=50))
    assert [len(rows) for _, rows in batches] == [50, 50, 20]
    assert batches[1][0][0] == "people.csv[50]"


def test_rows_to_predict_with_unseen_categories_and_without_a_column(table: Path, tmp_path: Path) -> None:
    dataset, _ = load(table)
    notes: list[str] = []
    new = {**COLUMNS, "job": ["baker"] * ROWS}
    rows = read_inputs(write(tmp_path / "new.csv", new), dataset.input, notes)[1]
    assert (rows[:, 1] == -1).all()
    assert notes == [f"{tmp_path / 'new.csv'}: values that training did not have are read as unseen categories, in "
                     "'job' (120) of its rows"]  # fmt: skip
    short = {name: values for name, values in COLUMNS.items() if name != "age"}
    with pytest.raises(DataError, match="has no column 'age'; expected the columns age, job, started, score"):
        read_inputs(short, dataset.input)
    with pytest.raises(DataError, match=r"new.csv row 2 holds 'old' for 'age'; expected a number"):
        read_inputs(write(tmp_path / "new.csv", {**COLUMNS, "age": ["old"] * ROWS}), dataset.input)


def test_a_data_set_of_other_categories_is_refused(table: Path, tmp_path: Path) -> None:
    dataset, _ = load(table)
    same, _ = load(table, folder=tmp_path / "same")
    assert np.array_equal(read_inputs(same, dataset.input)[1], dataset.inputs, equal_nan=True)
    assert len(read_evaluation_data(tmp_path / "same", dataset.input, dataset.task, "all").rows) == ROWS
    other, _ = load({**COLUMNS, "job": ["baker", "cook"] * 60}, folder=tmp_path / "other")
    for source in (other, tmp_path / "other"):
        with pytest.raises(DataError, match="with other columns or categories than those trained on; pass the"):
            read_inputs(source, dataset.input)
        with pytest.raises(DataError, match="prepared with other columns or categories"):
            read_evaluation_data(source, dataset.input, dataset.task)


def test_a_file_is_evaluated_by_the_column_of_its_targets(table: Path, tmp_path: Path) -> None:
    dataset, _ = load(table)
    found = read_evaluation_data(table, dataset.input, dataset.task)
    assert (found.split, len(found.rows)) == ("all", ROWS)
    assert np.array_equal(found.targets, dataset.targets)
    assert np.array_equal(np.concatenate([x for _, x in found.batches(dataset.input)]), dataset.inputs, equal_nan=True)
    again = {**COLUMNS, "want": COLUMNS["pay"], "split": ["test"] * 50 + ["valid"] * 70}
    with pytest.raises(DataError, match="has no one column of the targets; name it with --target"):
        read_evaluation_data(again, dataset.input, dataset.task)
    found = read_evaluation_data(again, dataset.input, dataset.task, target=("want",))
    assert (found.split, len(found.rows)) == ("test", 50)
    regression, _ = load(table, target="age", task="regression", drop=["pay", "id"])
    found = read_evaluation_data(table, regression.input, regression.task)
    assert found.targets[:, 0].tolist() == COLUMNS["age"]
    with pytest.raises(DataError, match="target 'pay' names a column of a table"):
        read_evaluation_data(dataset, dataset.input, dataset.task, target=("pay",))


def test_arrays_without_names_may_have_missing_values() -> None:
    inputs = np.random.default_rng(0).normal(size=(60, 3))
    inputs[::7, 0] = np.nan
    dataset = load_dataset((inputs, np.arange(60) % 2))
    assert (dataset.kind, dataset.columns, dataset.inputs.dtype) == ("table", (), np.float32)
    assert np.array_equal(dataset.inputs, inputs.astype(np.float32), equal_nan=True)
    assert read_inputs(inputs, dataset.input)[1].shape == (60, 3)
    inputs[5, 1] = np.inf
    assert "sample 5 of the arrays holds infinity" in error_of((inputs, np.arange(60) % 2))
    with pytest.raises(DataError, match="hold infinite values"):
        read_inputs(inputs, dataset.input)


def test_encoded_rows_are_those_of_the_columns(table: Path) -> None:
    dataset, _ = load(table)
    values = {column.name: COLUMNS[column.name] for column in dataset.columns}
    assert np.array_equal(encode(dataset.columns, values, "x", DataError), dataset.inputs, equal_nan=True)
    assert dataset.columns[0] == Column("age")
