"""Atomic file output."""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno import files
from ripieno.errors import LibraryError, RipienoError
from ripieno.types import Allocation, Device, Ensemble, Placement, type_version

ENSEMBLE = Ensemble("B5", ("a", "b"), (0.5, 0.5), "smobf", {"seconds": 5.0}, {"seconds": 4.5}, {"valid_accuracy": 0.9})


def test_a_word_comes_back_as_it_was(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", ENSEMBLE)
    assert files.read_json(tmp_path / "x.json", Ensemble) == ENSEMBLE


def test_nested_words_come_back_as_they_were(tmp_path: Path) -> None:
    word = Allocation("B5", "B5", (Device("cpu:0", "x", 2**30, (0, 1)),), (Placement("a", "cpu:0", 8),), throughput=3.5)
    files.write_json(tmp_path / "x.json", word)
    assert files.read_json(tmp_path / "x.json", Allocation) == word


def test_the_same_word_gives_the_same_bytes() -> None:
    assert files.to_json(ENSEMBLE) == files.to_json(ENSEMBLE)
    assert json.loads(files.to_json(ENSEMBLE))["version"] == type_version


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be read"),
        (b"[1]", 'has no "version"'),
        (b'{"version": 99}', "upgrade"),
        (b'{"version": 1, "name": 3}', "name"),
        (b'{"version": 1}', "missing required field"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(LibraryError, match=r"broken\.json") as caught:
        files.read_json(path, Ensemble)
    assert says in str(caught.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"nowhere\.json does not exist"):
        files.read_json(tmp_path / "nowhere.json", Ensemble)


def test_arrays_come_back_memory_mapped(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    files.write_array(tmp_path / "a.npy", array)
    back = files.read_array(tmp_path / "a.npy")
    assert isinstance(back, np.memmap)
    assert np.array_equal(back, array)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(LibraryError, match=r"evil\.npy"):
        files.read_array(tmp_path / "evil.npy")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "kept", b"old")
    with pytest.raises(RipienoError, match="cannot write"):
        files.write_bytes(tmp_path / "kept" / "below", b"new")
    assert (tmp_path / "kept").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_a_lock_refuses_a_second_process_and_names_the_first(tmp_path: Path) -> None:
    code = "from pathlib import Path; from ripieno import files\n"
    code += f"with files.locked(Path({str(tmp_path / 'lock')!r}), 'a search'): pass"
    with files.locked(tmp_path / "lock", "a search"):
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "in use by a search" in refused.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_lock_is_held_on_a_full_disk_too(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "lock").symlink_to(full)
    with files.locked(tmp_path / "lock", "a test"):
        pass


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lock = tmp_path / "file" / "lock"
    with pytest.raises(RipienoError, match=r"cannot write .*lock: "), files.locked(lock, "a test"):
        pass


def test_what_cannot_be_removed_is_named_and_what_is_absent_is_fine(tmp_path: Path) -> None:
    files.remove_file(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RipienoError, match=r"cannot remove .*folder"):
        files.remove_file(tmp_path / "folder")


# file systems with missing features


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Simulate a file system without locks, here and in the Python code that is returned."""
    lines = f"import fcntl\ndef flock(*_): raise OSError({request.param}, 'no locks')\nfcntl.flock = flock\n"

    def flock(*_: object) -> None:
        raise OSError(request.param, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    return lines


def test_without_locks_a_second_process_of_this_machine_is_refused_all_the_same(tmp_path: Path, no_locks: str) -> None:
    code = f"{no_locks}from pathlib import Path; from ripieno import files\n"
    code += f"with files.locked(Path({str(tmp_path / 'lock')!r}), 'a search'): pass"
    with files.locked(tmp_path / "lock", "a search"):
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        with files.locked(tmp_path / "other", "a search"):
            pass
    assert f"in use by a search (process {os.getpid()})" in refused.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture
def no_maps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a file system without shared mappings or, with the parameter "none", without any."""
    real = mmap.mmap

    class Refusing(real):  # type: ignore[misc, valid-type]
        def __new__(cls, *words: Any, access: int = mmap.ACCESS_DEFAULT, **named: Any) -> mmap.mmap:
            if access != mmap.ACCESS_COPY or request.param == "none":
                raise OSError(errno.ENODEV, "No such device")
            return real.__new__(cls, *words, access=access, **named)

    monkeypatch.setattr(mmap, "mmap", Refusing)


@pytest.mark.parametrize(("no_maps", "mapped"), [("private", True), ("none", False)], indirect=["no_maps"])
def test_an_array_is_read_where_nothing_can_be_mapped_shared(tmp_path: Path, no_maps: None, mapped: bool) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    files.write_array(tmp_path / "a.npy", array)
    back = files.read_array(tmp_path / "a.npy")
    assert np.array_equal(back, array)
    assert isinstance(back, np.memmap) == mapped
    assert not back.flags.writeable, "writes to it would be lost"


def test_a_file_system_without_permissions_or_syncing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    files.write_bytes(tmp_path / "x", b"data")
    assert (tmp_path / "x").read_bytes() == b"data"


def test_what_did_not_reach_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RipienoError, match=r"cannot write .*x: Input/output error; check the disk"):
        files.write_bytes(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_files_set_aside_keep_what_they_hold_whatever_was_set_aside_before(tmp_path: Path) -> None:
    for text in ("one", "two", "three"):
        (tmp_path / "x.json").write_text(text)
        files.set_aside(tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()
    assert sorted(p.read_text() for p in tmp_path.iterdir()) == ["one", "three", "two"]
    assert not list(tmp_path.glob("*.json"))


def test_threads_read_headers_of_arrays_at_the_same_time(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros((3, 4)))
    errors: list[BaseException] = []

    class Freed:
        """Garbage in a cycle, whose end lets another thread run in the middle of a parse."""

        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            time.sleep(0)

    def read() -> None:
        try:
            for _ in range(400):
                Freed()
                assert files.read_array(tmp_path / "array.npy").shape == (3, 4)
        except BaseException as error:
            errors.append(error)

    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(20)
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert not errors
