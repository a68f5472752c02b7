"""`suspects`: the list and the page of a run, and its use by a new run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.data import open_dataset
from ripieno.data.leave_out import file_text
from ripieno.errors import LibraryError
from ripieno.library import Library
from ripieno.types import Ensemble, Member, Task, classification
from tests.reports.made_run import softmax


def made_run(path: Path, task: Task | None = None) -> tuple[Library, np.ndarray]:
    """Return a run of two members that know 40 labels of three classes but for three wrong ones; and these."""
    library, generator = Library(path), np.random.default_rng(0)
    task = task or classification(("a", "b", "c"))
    truth = generator.integers(0, 3, 40)
    given = truth.copy()
    wrong = np.array([3, 11, 30])
    given[wrong] = (given[wrong] + 1) % 3
    for number in range(2):
        logits = generator.normal(size=(40, 3)) * 0.5 + 5 * np.eye(3)[truth]
        losses = {"valid_cross_entropy": 0.3, "valid_accuracy": 0.9}
        member = Member(
            f"0000{number}-e001", number, 1, "onnx", {}, ripieno.types.Input((4,), "float32"), task, losses, 1, 1.0
        )
        library.add(member, softmax(logits).astype(np.float32), given)
    names = tuple(library.ids())
    library.write_ensemble(Ensemble("B1", names, (0.5, 0.5), "smobf", {"seconds": 1.0}, {"seconds": 1.0}, {}))
    return library, wrong


def test_wrong_labels_are_listed_with_the_ones_that_the_ensemble_gives(tmp_path: Path) -> None:
    library, wrong = made_run(tmp_path)
    found = ripieno.suspects(library)
    assert sorted(one.row for one in found.found) == wrong.tolist()
    assert [one.score for one in found.found] == sorted(one.score for one in found.found)
    assert {(one.given, one.suggested) for one in found.found} <= {("b", "a"), ("c", "b"), ("a", "c")}
    assert (found.ensemble, found.samples, found.has_rows) == ("B1", {"valid": 40}, False)
    with open(tmp_path / "suspects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "row", "split", "given", "suggested", "probability"]
    assert [int(row["row"]) for row in rows] == [one.row for one in found.found]
    page = (tmp_path / "suspects.html").read_text()
    assert "<b>3</b> suspects" in page
    assert "--leave-out" in page


def test_a_list_that_was_edited_is_kept(tmp_path: Path) -> None:
    library, _ = made_run(tmp_path)
    notes: list[str] = []
    ripieno.suspects(library, "B1", notes=notes)
    ripieno.suspects(library, "B1", notes=notes)
    assert not notes, "the same list is written over"
    (tmp_path / "suspects.csv").write_text("row\n3\n")
    ripieno.suspects(library, "B1", notes=notes)
    assert notes == [f"the former list is kept as {tmp_path / 'suspects-1.csv'}"]
    assert (tmp_path / "suspects-1.csv").read_text() == "row\n3\n"


def test_runs_without_an_ensemble_are_refused_in_a_line(tmp_path: Path) -> None:
    library, _ = made_run(tmp_path)
    with pytest.raises(LibraryError, match="B7"):
        ripieno.suspects(library, "B7")
    (tmp_path / "ensembles" / "B1.json").unlink()
    with pytest.raises(LibraryError, match=r"has no ensemble to judge labels by: select one with"):
        ripieno.suspects(library)


def test_pictures_are_named_shown_and_left_out_of_a_new_run(
    finished_run: Path, digit_folder: Path, tmp_path: Path
) -> None:
    """Of the run whose labels are right the suspects are its errors: of validation and of test samples."""
    shutil.copytree(finished_run, tmp_path / "run")
    finished_run, library = tmp_path / "run", Library(tmp_path / "run")
    name = library.ensembles()[0].name
    notes: list[str] = []
    found = ripieno.suspects(finished_run, name, notes=notes)
    (finished_run / "suspects.csv").rename(tmp_path / "list.csv")
    page = (finished_run / "suspects.html").read_text()
    dataset = open_dataset(finished_run / "dataset")
    assert found.found, "the ensemble errs"
    assert set(found.samples) == {"valid", "test"}
    for one in found.found:
        assert (digit_folder / one.file).is_file()
        assert dataset.files is not None
        assert file_text(dataset.files[one.row]) == one.file
        assert one.given == one.file.split("/")[0] != one.suggested
        assert one.row in dataset.rows(one.split)  # type: ignore[arg-type]
    assert page.count("data:image/") == len(found.found)
    assert {one.split for one in found.found} == {"valid", "test"}
    run = ripieno.tune(
        digit_folder, tmp_path / "again", trials=1, epochs=1, algorithm="random", pool="inline", free="off",
        space="resnet-tiny", seed=1, leave_out=tmp_path / "list.csv", notes=notes,
    )  # fmt: skip
    less = open_dataset(run.dataset_path)
    gone = {one.row for one in found.found if one.split == "valid"}
    assert np.array_equal(less.rows("test"), dataset.rows("test"))
    assert set(dataset.rows("valid")) - set(less.rows("valid")) == gone
    assert set(less.doubted) == {one.row for one in found.found if one.split == "test"}
    line = next(note for note in notes if "without the" in note and "test accuracy" in note)
    assert f"without the {len(less.doubted)} doubted" in line
    (tmp_path / "list.csv").write_text(f"file\n{found.found[0].file}\n")
    with pytest.raises(ripieno.RipienoError, match=r"holds a data set made with leave_out list.csv .* not with"):
        ripieno.tune(run=tmp_path / "again", trials=1, leave_out=tmp_path / "list.csv")
