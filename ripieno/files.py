"""The only writer of bytes: everything is written beside its name, then moved over it with `os.replace`.

A reader therefore sees the old file or the new one, never a part; a process killed between leaves a `.tmp` file that
nobody reads. JSON goes through msgspec, which checks every field against the words in :mod:`ripieno.types`.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ripieno.errors import LibraryError, RipienoError
from ripieno.types import type_version

T = TypeVar("T")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically, making its folder when absent.

    Raises RipienoError when the disk is full or the folder may not be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise RipienoError(f"cannot write {path}: {error.strerror}: free the disk or choose another folder") from error


def _plain(value: object) -> object:
    """What msgspec does not know: paths become strings, NumPy scalars become Python's."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(word: object, **extra: object) -> bytes:
    """A word of `types` (or a dict of plain values) as indented JSON with its `version`; always the same bytes."""
    fields = msgspec.to_builtins(word, enc_hook=_plain)
    if not isinstance(fields, dict):
        fields = {"items": fields}
    encoded = msgspec.json.encode({"version": type_version, **extra, **fields}, enc_hook=_plain)
    return msgspec.json.format(encoded, indent=2) + b"\n"


def write_json(path: Path, word: object) -> None:
    """Write `to_json(word)` to `path` atomically."""
    write_bytes(path, to_json(word))


def read_json(path: Path, kind: type[T]) -> T:
    """Read a word of `kind` from `path`.

    Raises LibraryError naming the file and the field when it is absent, malformed or of a newer version.
    """
    try:
        fields = msgspec.json.decode(path.read_bytes())
        version = fields.pop("version", None) if isinstance(fields, dict) else None
        if not isinstance(version, int):
            raise LibraryError(f'{path} has no "version": it must be a JSON file written by ripieno')
        if version > type_version:
            raise LibraryError(f"{path} has version {version}, this ripieno reads up to {type_version}: upgrade it")
        return msgspec.convert(fields, kind, dec_hook=_from_plain)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except (msgspec.DecodeError, OSError) as error:
        raise LibraryError(f"{path} cannot be read: {error}") from error


def _from_plain(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise TypeError(f"cannot read a {kind.__name__}")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` as .npy atomically (never with pickled objects)."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


@contextmanager
def array_writer(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a .npy file row block by row block: yields a function that appends blocks (rows, *shape) of `dtype`.

    The file is moved to `path` when the block of code ends, and dropped when it fails, so arrays larger than the
    memory can be made and are whole or absent. Raises RipienoError when it cannot be written.
    """
    rows = 0

    def header(stream: IO[bytes]) -> None:
        # NumPy pads the header so that the first axis can grow in place
        fields = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(stream, {**fields, "shape": (rows, *shape)})

    def append(block: NDArray[Any]) -> None:
        nonlocal rows
        assert block.shape[1:] == shape, f"{block.shape} appended to rows of {shape}"
        with _explained(path):
            stream.write(np.ascontiguousarray(block, dtype).data)
        rows += len(block)

    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            header(stream)
            yield append
            with _explained(path):
                stream.flush()
                stream.seek(0)
                header(stream)
                stream.flush()
                os.fsync(stream.fileno())
        with _explained(path):
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Make of an OSError the line that says what to do."""
    try:
        yield
    except OSError as error:
        raise RipienoError(f"cannot write {path}: {error.strerror}: free the disk or choose another folder") from error


def read_array(path: Path, mapped: bool = True) -> NDArray[Any]:
    """Read a .npy file, memory-mapped unless `mapped` is False. Raises LibraryError naming the file."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        return array
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError) as error:
        raise LibraryError(f"{path} is not a readable .npy file: {error}") from error


def copy_file(source: Path, target: Path) -> None:
    """Copy one file atomically."""
    write_bytes(target, source.read_bytes())


def mend_lines(path: Path) -> int:
    """Cut off the unfinished last line of a file of lines that a killed writer left; returns how many bytes it had."""
    data = path.read_bytes() if path.exists() else b""
    torn = len(data) - (data.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, len(data) - torn)
    return torn


def remove_file(path: Path) -> None:
    """Remove a file of ours; absent is fine. Raises RipienoError when it may not be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RipienoError(f"cannot remove {path}: {error.strerror}: mend its permissions") from error


def remove_tree(path: Path) -> None:
    """Remove a folder of ours and all in it; absent is fine."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, holder: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; the kernel drops it when the process dies.

    Raises RipienoError when another process holds it; `holder` says in the message what that process is.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            other = stream.read(40).decode("ascii", "replace").strip()
            raise RipienoError(
                f"{path.parent} is in use by {holder} (process {other or 'unknown'}): wait for it or stop it"
            ) from error
        with suppress(OSError):  # of a full disk: it is held all the same
            stream.truncate(0)
            stream.write(str(os.getpid()).encode())
        yield
