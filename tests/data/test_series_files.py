"""Files of series as data sets: pairs, folders, targets, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.data import load_dataset
from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.data.fingerprint import fingerprint, source_files
from ripieno.data.prediction_inputs import count_inputs, read_inputs
from ripieno.data.series import lengths
from ripieno.errors import DataError
from ripieno.types import Input, Task


def write(folder: Path, stem: str, samples: int, points: int, header: str = "@classLabel true a b c") -> Path:
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(points)
    lines = [",".join(f"{x:.4f}" for x in draw.normal(size=points)) + f":{'abcd'[i % 3]}" for i in range(samples)]
    path = folder / f"{stem}.ts"
    path.write_text("\n".join((header, "@data", *lines)) + "\n")
    return path


def pair(tmp_path: Path) -> Path:
    write(tmp_path / "Toy", "Toy_TRAIN", 60, 7)
    return write(tmp_path / "Toy", "Toy_TEST", 9, 5).parent


@pytest.mark.parametrize("name", ["", "Toy_TRAIN.ts", "Toy_TEST.ts"])
def test_a_folder_or_either_file_stands_for_both(tmp_path: Path, name: str) -> None:
    folder, notes = pair(tmp_path), list[str]()
    dataset = load_dataset(folder / name, folds=0, notes=notes)
    assert (dataset.name, dataset.kind, dataset.inputs.shape) == ("Toy", "series", (69, 7, 1))
    assert [len(dataset.rows(split)) for split in ("train", "valid", "test")] == [54, 6, 9]
    assert dataset.rows("test").tolist() == list(range(60, 69))
    assert lengths(dataset.inputs[60:]).tolist() == [5] * 9
    assert notes == ["series have 5 to 7 points: shorter ones are padded at the end and masked"]
    assert [path.name for path in source_files(folder / name)] == ["Toy_TRAIN.ts", "Toy_TEST.ts"]


def test_the_fingerprint_covers_both_files(tmp_path: Path) -> None:
    folder = pair(tmp_path)
    before = fingerprint(folder)
    write(folder, "Toy_TEST", 10, 5)
    assert fingerprint(folder).digest != before.digest


def test_a_file_alone_is_divided(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path / "x", "toy", 100, 6))
    assert (dataset.name, len(dataset.rows("test"))) == ("toy", 19)


def test_other_data_sets_of_a_folder_are_told(tmp_path: Path) -> None:
    folder, notes = pair(tmp_path), list[str]()
    write(folder, "Toy_eq_TRAIN", 60, 7)
    (folder / "Toy_TRAIN.tsv").write_text("1\t2\t3\n")
    assert load_dataset(folder, notes=notes).inputs.shape == (69, 7, 1)
    assert "read Toy_TRAIN.ts and Toy_TEST.ts; left 2 more files of series out" in notes[0]
    other = folder.rename(tmp_path / "Other")
    with pytest.raises(DataError, match="holds the data sets Toy, Toy_eq; pass the NAME_TRAIN file of one of them"):
        load_dataset(other)


def test_numbers_and_labels_are_targets(tmp_path: Path) -> None:
    lines = [f"{i},{i + 1}:{i / 4}" for i in range(60)]
    path = tmp_path / "x.ts"
    path.write_text("\n".join(("@targetLabel true", "@data", *lines)))
    dataset = load_dataset(path)
    assert (dataset.task.kind, dataset.targets[3].tolist()) == ("regression", [0.75])
    lines = [f"{i},{i + 1}:{('a', 'b', 'a|b')[i % 3]}" for i in range(60)]
    path.write_text("\n".join(("@classLabel true a b", "@data", *lines)))
    dataset = load_dataset(path)
    assert (dataset.task.kind, dataset.classes, dataset.targets[2].tolist()) == ("multilabel", ("a", "b"), [1, 1])


def test_classes_that_no_sample_has_are_left_out(tmp_path: Path) -> None:
    notes: list[str] = []
    dataset = load_dataset(write(tmp_path / "x", "toy", 60, 6, "@classLabel true c x b a"), notes=notes)
    assert dataset.classes == ("c", "b", "a")
    assert "toy declares classes that no sample has, left out: x" in notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "image"}, "holds series, not image; leave kind out"),
        ({"target": "a"}, "target 'a' names a column, but .*toy.ts has none"),
        ({"size": 8}, "size 8 applies to images, but the data are of kind series"),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write(tmp_path / "x", "toy", 60, 6), **options)


def test_a_file_without_targets_or_class_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "toy", 3, 6, "@classLabel true a b")
    with pytest.raises(DataError, match=r"labels of .*toy\.ts contain 'c', which is not one"):
        load_dataset(path)
    path.write_text("@classLabel false\n@data\n1,2\n")
    with pytest.raises(DataError, match=r"toy\.ts has no targets"):
        load_dataset(path)


def test_predictions_read_a_file_alone_and_pad_it(tmp_path: Path) -> None:
    folder, wanted = pair(tmp_path), Input((7, 1), "float32")
    names, inputs = read_inputs(folder / "Toy_TEST.ts", wanted)
    assert (names[0], inputs.shape) == ("Toy_TEST.ts[0]", (9, 7, 1))
    assert lengths(inputs).tolist() == [5] * 9
    names, inputs = read_inputs(folder, wanted)
    assert (len(names), names[-1]) == (69, "Toy_TEST.ts[8]")
    assert count_inputs(folder, wanted) is None
    with pytest.raises(DataError, match=r"^Toy_TRAIN.ts have 7 points \(series 0\), but the network takes at most 6"):
        read_inputs(folder / "Toy_TRAIN.ts", Input((6, 1), "float32"))


def test_gaps_are_interpolated_in_predictions_too(tmp_path: Path) -> None:
    path, notes = tmp_path / "x.ts", list[str]()
    path.write_text("@classLabel false\n@data\n1,?,3\n")
    inputs = read_inputs(path, Input((3, 1), "float32"), notes)[1]
    assert inputs.ravel().tolist() == [1, 2, 3]
    assert notes == ["1 missing value is interpolated in 1 series; the first is sample 0 of x.ts"]


def test_evaluation_reads_a_file_alone_and_both_of_a_folder(tmp_path: Path) -> None:
    folder, task = pair(tmp_path), load_dataset(pair(tmp_path)).task
    wanted = Input((7, 1), "float32")
    for path, split, samples in ((folder / "Toy_TEST.ts", "test", 9), (folder / "Toy_TRAIN.ts", "all", 60)):
        found = read_evaluation_data(path, wanted, task)
        assert (found.split, len(found.rows)) == (split, samples)
        assert next(found.batches(wanted))[1].shape == (samples, 7, 1)
    assert len(read_evaluation_data(folder, wanted, task).rows) == 9
    square = np.zeros((7, 7), np.float32)  # a table by its axes
    found = read_evaluation_data((square, np.zeros(7, int)), wanted, Task("classification", (1,), ("0",)))
    assert next(found.batches(wanted))[1].shape == (7, 7, 1)
