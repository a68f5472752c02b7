"""A run's data set: made once, by one process, the same for all who go on."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno import files
from ripieno.data import load_dataset
from ripieno.errors import DataError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.pipeline.places import Places
from ripieno.pipeline.tuning import prepare

ARRAYS = (np.arange(60 * 4 * 4, dtype=np.uint8).reshape(60, 4, 4, 1), np.arange(60) % 3)


def test_a_run_that_goes_on_for_another_metric_is_refused_and_for_any_is_not(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    assert prepare(ARRAYS, run, metric="macro-f1").metric == "macro-f1"
    assert prepare(ARRAYS, run, metric="macro-f1").metric == "macro-f1"
    assert prepare(ARRAYS, run).metric == "macro-f1"
    with pytest.raises(SearchError, match="with another metric: ask for the same"):
        prepare(ARRAYS, run, metric="accuracy")


def test_a_record_that_does_not_say_its_metric_is_gone_on_with(tmp_path: Path) -> None:
    run = Library(tmp_path / "run")
    prepare(ARRAYS, run)
    record = run.dataset_path / "source.json"
    plain = files.read_json(record, dict[str, Any])
    del plain["metric"]
    files.write_json(record, plain)
    assert prepare(ARRAYS, run, metric="accuracy").metric == "accuracy"


def test_other_images_of_the_same_labels_are_refused(tmp_path: Path) -> None:
    run, (images, labels) = Library(tmp_path / "run"), ARRAYS
    prepare(ARRAYS, run)
    prepare((images.copy(), labels.copy()), run)
    for other in (255 - images, images.astype(np.float32), images.reshape(60, 2, 8, 1)):
        with pytest.raises(SearchError, match="another source"):
            prepare((other, labels), run)


def test_a_data_set_split_otherwise_is_refused(tmp_path: Path) -> None:
    run, dataset = Library(tmp_path / "run"), load_dataset(ARRAYS)
    prepare(dataset, run)
    prepare(load_dataset(ARRAYS), run)
    with pytest.raises(SearchError, match="another source"):
        prepare(dataclasses.replace(dataset, split=dataset.split[::-1].copy()), run)


@pytest.mark.parametrize("whole", [False, True])
def test_a_record_that_says_only_the_labels_is_gone_on_with(tmp_path: Path, whole: bool) -> None:
    run, data = Library(tmp_path / "run"), load_dataset(ARRAYS) if whole else ARRAYS
    prepare(data, run)
    record = run.dataset_path / "source.json"
    plain = files.read_json(record, dict[str, Any])
    old = f"60 samples in arrays, labels' crc32 {zlib.crc32(ARRAYS[1].tobytes()):08x}"
    files.write_json(record, {**plain, "source": old})
    assert (prepare(data, run).labels == ARRAYS[1]).all()
    with pytest.raises(SearchError, match="another source"):
        prepare((ARRAYS[0], ARRAYS[1][::-1].copy()), run)


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
    with pytest.raises(SearchError, match="the inline pool cannot end a trial that hangs"):
        Places(pool="inline", limit=5.0)
