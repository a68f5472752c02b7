"""A run's data set: made once, by one process, and the same after every resume."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ripieno import files
from ripieno.data import load_dataset
from ripieno.data.fingerprint import fingerprint
from ripieno.errors import DataError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.preparation import DataOptions, prepare

ARRAYS = (np.arange(60 * 4 * 4, dtype=np.uint8).reshape(60, 4, 4, 1), np.arange(60) % 3)


def test_a_run_that_goes_on_for_another_metric_is_refused_and_for_any_is_not(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    assert prepare(ARRAYS, run, DataOptions(metric="macro-f1")).task.metric == "macro-f1"
    assert prepare(ARRAYS, run, DataOptions(metric="macro-f1")).task.metric == "macro-f1"
    assert prepare(ARRAYS, run).task.metric == "macro-f1"
    with pytest.raises(SearchError, match="made with metric macro-f1, not with metric accuracy: leave metric out"):
        prepare(ARRAYS, run, DataOptions(metric="accuracy"))


def test_a_record_that_does_not_say_its_metric_is_accepted(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    prepare(ARRAYS, run)
    record = run.dataset_path / "source.json"
    plain = files.read_json(record, dict[str, Any])
    del plain["metric"]
    files.write_json(record, plain)
    assert prepare(ARRAYS, run, DataOptions(metric="accuracy")).task.metric == "accuracy"


def test_other_images_of_the_same_labels_are_refused(tmp_path: Path) -> None:
    run, (images, labels) = Library(tmp_path / "run"), ARRAYS
    prepare(ARRAYS, run)
    prepare((images.copy(), labels.copy()), run)
    for other in (255 - images, images.astype(np.float32), images.reshape(60, 2, 8, 1)):
        with pytest.raises(SearchError, match="holds other data"):
            prepare((other, labels), run)


def test_one_pixel_or_one_label_changed_anywhere_is_refused(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    images, labels = np.zeros((5000, 2, 2, 1), np.uint8), np.arange(5000) % 3
    prepare((images, labels), run)
    for changed in (images, labels):
        changed[4321] ^= 1
        with pytest.raises(SearchError, match=r"inputs \(5000, 2, 2, 1\) and targets \(5000,\), digest"):
            prepare((images, labels), run)
        changed[4321] ^= 1
    prepare((images, labels), run)


def pictures(root: Path) -> Path:
    for n, label in enumerate("ab" * 4):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 20 * n, np.uint8)).save(root / label / f"{n}.bmp")
    return root


def changes(root: Path) -> dict[str, Callable[[], object]]:
    """Ways to change the pictures below `root`."""

    def repaint() -> None:
        before = (root / "a" / "0.bmp").stat()
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(root / "a" / "0.bmp")
        os.utime(root / "a" / "0.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))

    return {
        "added": lambda: shutil.copy(root / "a" / "0.bmp", root / "a" / "99.bmp"),
        "removed": lambda: (root / "a" / "0.bmp").unlink(),
        "of a class of another name": lambda: (root / "b").rename(root / "c"),
        "moved to another class": lambda: (root / "a" / "0.bmp").rename(root / "b" / "0.bmp"),
        "of other pixels, the same size and time": repaint,
    }


@pytest.mark.parametrize("change", changes(Path()))
def test_pictures_changed_in_place_are_refused_with_both_values(tmp_path: Path, change: str) -> None:
    run, root = Library(tmp_path / "run"), pictures(tmp_path / "images")
    prepare(root, run)
    changes(root)[change]()
    with pytest.raises(SearchError, match=r"files? of .* bytes, digest .*than .* was made from \(8 files of .* bytes"):
        prepare(root, run)
    assert len(prepare(None, run).inputs) == 8


def test_pictures_moved_copied_or_linked_are_the_same_data(tmp_path: Path) -> None:
    run, root = Library(tmp_path / "run"), pictures(tmp_path / "images")
    prepare(root, run)
    root = root.rename(tmp_path / "moved")
    prepare(root, run)
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "link").symlink_to(root)
    (root / "notes.txt").touch()
    for same in (tmp_path / "copy", tmp_path / "link", root, run.dataset_path, run.path):
        prepare(same, run)


def test_a_file_of_arrays_is_identified_by_its_contents(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    np.savez(tmp_path / "a.npz", x=ARRAYS[0], y=ARRAYS[1])
    prepare(tmp_path / "a.npz", run)
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    prepare(tmp_path / "b.npz", run)
    np.savez(tmp_path / "b.npz", x=ARRAYS[0], y=ARRAYS[1][::-1])
    with pytest.raises(SearchError, match="holds other data"):
        prepare(tmp_path / "b.npz", run)


def test_files_that_were_not_touched_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pictures(tmp_path / "images")
    known = fingerprint(root)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert fingerprint(root, known) == known


def test_a_run_goes_on_without_its_source_and_says_when_it_is_gone(tmp_path: Path) -> None:
    run, root = Library(tmp_path / "run"), pictures(tmp_path / "images")
    prepare(root, run, DataOptions(size=3, seed=5))
    shutil.rmtree(root)
    notes: list[str] = []
    assert prepare(None, run).inputs.shape == prepare(root, run, notes=notes).inputs.shape == (8, 3, 3, 1)
    assert notes == [f"{root} no longer exists: the search uses the run's own copy of the data"]
    with pytest.raises(
        DataError, match=f"other does not exist, and {run.path} was made from {root}: leave the data out"
    ):
        prepare(tmp_path / "other", run)


def test_a_contradiction_shows_both_values(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    prepare(ARRAYS, run, DataOptions(size=3, split=(0.5, 0.3, 0.2)))
    with pytest.raises(
        SearchError, match=r"made with size 3 and split 0.5,0.3,0.2, not with size 5 and split 0.6,0.2,0.2"
    ):
        prepare(ARRAYS, run, DataOptions(size=5, split=(0.6, 0.2, 0.2)))


def test_no_data_for_a_new_run_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no data: give some"):
        prepare(None, Library(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_data_set_split_otherwise_is_refused(tmp_path: Path) -> None:
    run, dataset = Library(tmp_path / "run"), load_dataset(ARRAYS)
    prepare(dataset, run)
    prepare(load_dataset(ARRAYS), run)
    with pytest.raises(SearchError, match="holds other data"):
        prepare(dataclasses.replace(dataset, split=dataset.split[::-1].copy()), run)


def test_a_record_without_a_fingerprint_holds_the_run_s_own_copy_alone(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    prepare(ARRAYS, run)
    record = run.dataset_path / "source.json"
    plain = files.read_json(record, dict[str, Any])
    del plain["fingerprint"]
    files.write_json(record, plain)
    assert (prepare(None, run).targets == ARRAYS[1]).all()
    with pytest.raises(SearchError, match=r"no fingerprint of inputs \(60, .* leave the data out to use the run's own"):
        prepare(ARRAYS, run)
    files.write_json(record, {**plain, "source": str(pictures(tmp_path / "pictures").resolve())})
    assert (prepare(tmp_path / "pictures", run).targets == ARRAYS[1]).all()


@pytest.mark.parametrize(
    "data", [5, None, (1, 2, 3), (np.zeros(()), np.zeros(3)), (np.zeros((0, 4, 4, 1)), np.zeros(0))]
)
def test_what_is_no_data_is_said_in_a_line_and_leaves_no_folder(tmp_path: Path, data: Any) -> None:
    run = Library(tmp_path / "run")
    with pytest.raises(DataError):
        prepare(data, run)
    assert not run.path.exists()


def test_one_process_makes_it_and_what_cannot_be_made_leaves_no_folder(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    with files.locked(run.path / "lock", "a test"), pytest.raises(RipienoError, match="in use by another search"):
        prepare(ARRAYS, run)
    prepare(ARRAYS, run)
    other = Library(tmp_path / "other")
    with pytest.raises(DataError):
        prepare(tmp_path / "absent", other)
    assert not other.path.exists()


def test_a_pool_that_cannot_end_what_hangs_takes_no_limit() -> None:
    with pytest.raises(SearchError, match="limit cannot be used with the inline pool"):
        ExecutionConfig(pool="inline", limit=5.0)


def test_a_table_is_prepared_with_its_options_and_found_again(tmp_path: Path) -> None:
    rows = [f"{i % 9},{'xyz'[i % 3]},{i},{'low' if i % 2 else 'high'}" for i in range(80)]
    (table := tmp_path / "pay.csv").write_text("\n".join(["age,job,code,pay", *rows]))
    run, notes = Library(tmp_path / "run"), list[str]()
    dataset = prepare(table, run, DataOptions(target="pay", drop="code", column={"age": "category"}), notes=notes)
    assert [(column.name, column.kind) for column in dataset.columns] == [("age", "category"), ("job", "category")]
    assert notes[-1].startswith(
        "pay: 80 rows of 2 columns, classification of 2 classes; 64 train, 16 test; validation: "
    )
    assert any("2 columns of" in note and "code  left out  dropped" in note for note in notes)
    again = prepare(table, run, DataOptions(target="pay", drop=["code"], column={"age": "category"}))
    assert again.columns == dataset.columns
    other = DataOptions(drop=["code", "job"], column={"age": "number"})
    expected = "made with drop code and column age=category, not with drop code,job and column age=number"
    with pytest.raises(SearchError, match=expected):
        prepare(table, run, other)
    plain = Library(tmp_path / "plain")
    prepare(table, plain, DataOptions(target="pay"))
    with pytest.raises(SearchError, match="made with drop none and column none, not with drop code"):
        prepare(table, plain, DataOptions(drop="code", column={"age": "category"}))


def test_a_run_keeps_the_values_of_masks_that_it_ignores(tmp_path: Path) -> None:
    images = np.arange(30 * 4 * 5 * 3).astype(np.uint8).reshape(30, 4, 5, 3)
    scenes, run = (images, np.arange(30 * 20).reshape(30, 4, 5) % 4), Library(tmp_path / "run")
    dataset = prepare(scenes, run, DataOptions(ignore=3))
    assert dataset.classes == ("0", "1", "2")
    assert prepare(scenes, run, DataOptions(ignore=["3"])).task == prepare(scenes, run).task == dataset.task
    with pytest.raises(SearchError, match="made with ignore 3, not with ignore 2: leave ignore out"):
        prepare(scenes, run, DataOptions(ignore="2"))
    other = scenes[1].copy()
    other[5, 2, 2] = 0 if other[5, 2, 2] else 1
    with pytest.raises(SearchError, match="holds other data"):
        prepare((images, other), run)
