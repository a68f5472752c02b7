"""The writer of large arrays in files.py."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ripieno import files
from ripieno.errors import RipienoError


def test_blocks_appended_are_one_array_that_numpy_reads(tmp_path):
    array = np.arange(1200, dtype=np.float32).reshape(100, 3, 4)
    with files.array_writer(tmp_path / "deep" / "x.npy", (3, 4), np.float32) as append:
        for block in np.array_split(array, 7):
            append(block)
    assert np.array_equal(np.load(tmp_path / "deep" / "x.npy"), array)
    assert np.load(tmp_path / "deep" / "x.npy", mmap_mode="r").flags.c_contiguous


def test_it_writes_the_bytes_that_write_array_writes(tmp_path):
    array = np.arange(120, dtype=np.uint8).reshape(10, 12)
    files.write_array(tmp_path / "a.npy", array)
    with files.array_writer(tmp_path / "b.npy", (12,), np.uint8) as append:
        append(array[:7])
        append(array[7:])
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_blocks_that_are_not_contiguous_are_written_in_order(tmp_path):
    array = np.arange(120).reshape(10, 12)
    with files.array_writer(tmp_path / "x.npy", (10,), np.int64) as append:
        append(array.T)
    assert np.array_equal(np.load(tmp_path / "x.npy"), array.T)


def test_a_failure_within_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_array(tmp_path / "x.npy", np.zeros(3))

    def fail() -> None:
        with files.array_writer(tmp_path / "x.npy", (), np.float64) as append:
            append(np.ones(5))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert np.load(tmp_path / "x.npy").tolist() == [0, 0, 0]
    assert os.listdir(tmp_path) == ["x.npy"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RipienoError, match=r"cannot write .*; choose another folder"),
        files.array_writer(tmp_path / "file" / "x.npy", (), np.uint8),
    ):
        pass
