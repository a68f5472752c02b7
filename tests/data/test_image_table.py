"""Tables of image files: CSV and Parquet, and folders with a labels.csv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.fingerprint import fingerprint
from ripieno.errors import DataError
from ripieno.types import SPLITS, Dataset

Rows = Sequence[Sequence[Any]]
Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path, make: Any) -> Table:
    """Write 30 pictures of one size, and a table of them with the columns given."""

    def write(name: str = "labels.csv", mark: str = ",", **columns: Sequence[Any]) -> Path:
        for i in range(30):
            make.picture(tmp_path / "images" / "all" / f"{i:03}.png", mode="L")
        columns = {"file": [f"all/{i:03}.png" for i in range(30)], **columns}
        path = tmp_path / "images" / name
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(mark.join(map(str, row)) for row in [columns, *rows]) + "\n")
        return path

    return write


NAMES = ["cat", "dog", "owl"] * 10
AGES = [f"{20 + i / 2}" for i in range(30)]
FLAGS = {"cat": [1, 0] * 15, "dog": [0, 1, 1] * 10}


def error_of(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def form(dataset: Dataset) -> tuple[str, tuple[str, ...]]:
    return dataset.task.kind, dataset.task.names


def test_text_is_a_classification(table: Table) -> None:
    notes: list[str] = []
    dataset = load_dataset(path := table(label=NAMES), notes=notes)
    assert form(dataset) == ("classification", ("cat", "dog", "owl"))
    assert dataset.targets.tolist() == [0, 1, 2] * 10
    assert dataset.name == "images"
    assert notes[0] == f"column 'label' of {path}: read as classification; --task sets another kind"


def test_a_folder_with_a_labels_csv_is_read_by_it(table: Table, make: Any) -> None:
    folder = table(label=NAMES).parent
    dataset = load_dataset(folder)
    assert dataset.name == "images"
    assert dataset.inputs.shape == (30, 8, 8, 1)
    assert np.array_equal(dataset.inputs[3], load_dataset(folder / "labels.csv").inputs[3])


def test_images_follow_the_order_of_the_rows(table: Table) -> None:
    folder = table(label=NAMES).parent
    first = load_dataset(folder)
    lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "turned.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    turned = load_dataset(folder / "turned.csv")
    assert np.array_equal(turned.inputs, first.inputs[::-1])
    assert np.array_equal(turned.targets, first.targets[::-1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["cat|dog", "dog", "|"] * 10, "multilabel"),
        (AGES, "regression"),
        ([i % 3 for i in range(30)], "classification"),
        ([f"{i % 3}.0" for i in range(30)], "classification"),
    ],
    ids=["joined", "fractions", "few whole numbers", "as floats"],
)
def test_the_values_of_a_column_say_the_task(table: Table, values: Sequence[Any], kind: str) -> None:
    assert load_dataset(table(label=values)).task.kind == kind


def test_many_whole_numbers_need_a_task(table: Table) -> None:
    path = table(age=range(30))
    assert "column 'age'" in error_of(path)
    assert "30 distinct whole numbers" in error_of(path)
    dataset = load_dataset(path, task="regression")
    assert form(dataset) == ("regression", ("age",))
    assert dataset.targets[:, 0].tolist() == list(range(30))


def test_joined_labels_are_several_and_a_lone_separator_is_none(table: Table) -> None:
    dataset = load_dataset(table(label=["dog | cat", "dog", "|"] * 10))
    assert form(dataset) == ("multilabel", ("cat", "dog"))
    assert dataset.targets[:3].tolist() == [[1, 1], [0, 1], [0, 0]]


def test_columns_of_0_and_1_are_labels_by_name(table: Table) -> None:
    dataset = load_dataset(table(**FLAGS))
    assert form(dataset) == ("multilabel", ("cat", "dog"))
    assert dataset.targets[:3].tolist() == [[1, 0], [0, 1], [1, 1]]


def test_several_columns_of_fractions_are_several_targets(table: Table) -> None:
    dataset = load_dataset(table(age=AGES, height=[i / 7 for i in range(30)]))
    assert form(dataset) == ("regression", ("age", "height"))
    assert dataset.targets[7].tolist() == pytest.approx([23.5, 1.0])


def test_several_columns_of_other_values_need_a_choice(table: Table) -> None:
    path = table(id=range(30), age=AGES, pet=NAMES)
    assert "columns id, age, pet; name the target with --target" in error_of(path)
    assert form(load_dataset(path, target="age")) == ("regression", ("age",))
    assert load_dataset(path, target=["pet"]).task.names == ("cat", "dog", "owl")
    assert form(load_dataset(path, target=["id", "age"], task="regression")) == ("regression", ("id", "age"))
    assert "expected one label a sample; name one column with --target" in error_of(path, task="classification")


def test_a_task_overrules_the_values(table: Table) -> None:
    assert load_dataset(table(label=NAMES), task="multilabel").targets[0].tolist() == [1, 0, 0]
    assert load_dataset(table(label=["a|b", "c"] * 15), task="classification").task.names == ("a|b", "c")
    assert load_dataset(table(label=[1, 2, 3] * 10), task="regression").targets[:3, 0].tolist() == [1, 2, 3]


def test_the_column_of_splits_is_kept(table: Table) -> None:
    dataset = load_dataset(table(label=NAMES, split=["train"] * 18 + ["val"] * 6 + ["test"] * 6))
    assert [len(dataset.rows(split)) for split in SPLITS] == [18, 6, 6]
    assert dataset.task.names == ("cat", "dog", "owl")
    assert "row 31 has the split 'later'" in error_of(table(label=NAMES, split=["train"] * 29 + ["later"]))


def test_semicolons_and_decimal_commas_are_read(table: Table) -> None:
    dataset = load_dataset(table(mark=";", age=[age.replace(".", ",") for age in AGES]))
    assert dataset.targets[:2, 0].tolist() == [20, 20.5]


def test_parquet_is_read(table: Table, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    folder = table(label=NAMES).parent
    files = [f"all/{i:03}.png" for i in range(30)]
    for name, values, kind in (
        ("ages", [i / 4 for i in range(30)], "regression"),
        ("names", NAMES, "classification"),
        ("lists", [["a", "b"], ["b"], []] * 10, "multilabel"),
    ):
        parquet.write_table(pa.table({"path": files, "value": values}), folder / f"{name}.parquet")
        assert load_dataset(folder / f"{name}.parquet").task.kind == kind
    parquet.write_table(pa.table({"path": files, "value": [None, *AGES[1:]]}), folder / "gap.parquet")
    assert "row 2 has no value" in error_of(folder / "gap.parquet")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"label": ["", *NAMES[1:]]}, {}, "row 2 has no label; fill it or remove the row"),
        ({"label": ["a", "", "", *NAMES[3:]]}, {}, "row 3 has no label (so do 1 more)"),
        ({"label": ["cat"] * 30}, {}, "only the class 'cat'"),
        ({"age": ["2.5"] * 30}, {}, "target 'age' is 2.5 in all 30 samples"),
        ({"age": ["nan", *AGES[1:]]}, {}, "hold nan for 'age', row 2"),
        ({"age": [*AGES[:29], "old"]}, {}, "holds 'old' (row 31) among numbers"),
        ({"age": [*AGES[:29], "old"]}, {"task": "regression"}, "hold 'old', row 31; expected numbers"),
        ({"age": AGES, "pet": NAMES}, {"task": "regression"}, "hold 'cat', row 2; expected numbers"),
        ({"cat": [2, *[0, 1] * 14, 1], "dog": FLAGS["dog"]}, {"task": "multilabel"}, "hold 2 for label 'cat', row 2"),
        ({"label": ["a||b", "c"] * 15}, {}, "hold 'a||b', row 2; expected names joined by |"),
        ({"label": NAMES}, {"target": "age"}, "has no target 'age'; expected label"),
        ({}, {}, "has no column of targets"),
        ({"label": NAMES}, {"kind": "table"}, "has no column to predict from ('file': image files; a table of images"),
        ({"label": NAMES, "file": ["gone.png", *["all/000.png"] * 29]}, {}, "1 file that does not exist, the first:"),
        ({"label": NAMES, "file": ["all/001.png", *(f"all/{i:03d}.png" for i in range(1, 30))]}, {}, "row 3 names"),
        ({"age": AGES}, {"task": "classification"}, "hold 20.5, row 3; expected whole numbers or names"),
        ({"label": NAMES, "file": ["", *["all/000.png"] * 29]}, {}, "row 2 names no file"),
    ],
    ids=range(17),
)
def test_bad_tables_are_told_in_a_line_before_an_image_is_read(
    table: Table, columns: Any, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(**columns)
    monkeypatch.setattr("ripieno.data.pictures.read_header", None)
    assert message in error_of(path, **options)


def test_a_table_without_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("name,age\na,1\n")
    expected = "has the columns name, age; expected one of image paths; name it file"
    assert expected in error_of(tmp_path / "x.csv", kind="image")
    (tmp_path / "y.csv").touch()
    assert "has no rows" in error_of(tmp_path / "y.csv")
    (tmp_path / "y.csv").write_text("file,label\n")
    assert "has no rows" in error_of(tmp_path / "y.csv")
    (tmp_path / "y.csv").write_bytes("file,label\na.png,é\n".encode("latin-1"))
    assert "is no text in UTF-8 (invalid continuation byte at byte 17)" in error_of(tmp_path / "y.csv")


def test_missing_and_broken_images_are_skipped_when_asked(table: Table) -> None:
    path = table(label=NAMES)
    (path.parent / "all" / "004.png").unlink()
    (path.parent / "all" / "007.png").write_bytes(b"no picture")
    assert "004.png (row 6)" in error_of(path)
    notes: list[str] = []
    dataset = load_dataset(path, skip_bad=True, notes=notes)
    assert dataset.targets.tolist() == [i % 3 for i in range(30) if i not in (4, 7)]
    assert "names 1 file that does not exist" in notes[0]
    assert any(note.startswith("skipped 1 broken image") for note in notes)


def test_mixed_sizes_get_one(table: Table, make: Any) -> None:
    path = table(label=NAMES)
    make.picture(path.parent / "all" / "004.png", size=(20, 6), mode="L")
    assert load_dataset(path).inputs.shape == (30, 8, 8, 1)


def test_the_fingerprint_knows_the_table_and_its_images(table: Table, make: Any) -> None:
    path = table(label=NAMES)
    before, folder = fingerprint(path), fingerprint(path.parent)
    assert fingerprint(path).digest == before.digest
    make.picture(path.parent / "all" / "004.png", value=3, mode="L")
    assert fingerprint(path).digest != before.digest
    assert fingerprint(path.parent).digest != folder.digest
    changed = fingerprint(path).digest
    table(label=[*NAMES[1:], "cat"])
    make.picture(path.parent / "all" / "004.png", value=3, mode="L")
    assert fingerprint(path).digest != changed


def test_images_may_lie_outside_the_tables_folder(table: Table, tmp_path: Path) -> None:
    table(label=NAMES)
    (tmp_path / "lists").mkdir()
    rows = [f"../images/all/{i:03}.png,{NAMES[i]}" for i in range(15)]
    rows += [f"{tmp_path}/images/all/{i:03}.png,{NAMES[i]}" for i in range(15, 30)]
    (tmp_path / "lists" / "mine.csv").write_text("\n".join(["file,label", *rows]))
    assert len(load_dataset(tmp_path / "lists" / "mine.csv").inputs) == 30
    assert fingerprint(tmp_path / "lists" / "mine.csv").size.startswith("31 files")
