"""The only writer of bytes: everything is written beside its name, then moved over it with `os.replace`.

A reader therefore sees the old file or the new one, never a part; a process killed between leaves a `.tmp` file that
nobody reads. JSON goes through msgspec, which checks every field against the words in :mod:`ripieno.types`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ripieno.errors import LibraryError, RipienoError, error_summary, system_error
from ripieno.types import type_version

T = TypeVar("T")
MapMode = Literal["r", "c"]


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
            to_disk(stream.fileno())
        _publish(temporary, path)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise RipienoError(system_error(error, "write", path)) from error


def to_disk(descriptor: int, sync: Callable[[int], None] | None = None) -> None:
    """Return when a file's data is on disk; where the file system has no such call, it is there when written."""
    try:
        (sync or os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _publish(temporary: str, path: Path) -> None:
    """Move a whole file to its name, readable for all where the file system knows permissions."""
    with suppress(OSError):
        os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def make_folder(path: Path) -> None:
    """Make the folder `path` and those above it; present is fine. Raises RipienoError when it cannot be made."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Raise RipienoError when a folder that is there may not be written: before the work, not after it."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise RipienoError(system_error(OSError(number, os.strerror(number)), "write to", folder))


def check_folder(path: Path) -> None:
    """Raise RipienoError when the folder `path`, there or not, cannot be made or written: before the work."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise RipienoError(f"cannot write to {path}: {there} is a file: choose another folder")
    check_writable(there)


def check_file(path: Path) -> None:
    """Raise RipienoError when the file `path`, there or not, cannot be written: before the work."""
    if path.is_dir():
        raise RipienoError(f"cannot write {path}: it is a folder: give the name of a file")
    check_folder(path.parent)


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
        if stat.S_ISFIFO(path.stat().st_mode):  # reading it would wait for a writer
            raise LibraryError(f"{path} cannot be read: it is a named pipe")
        fields = msgspec.json.decode(path.read_bytes())
        version = fields.pop("version", None) if isinstance(fields, dict) else None
        if not isinstance(version, int):
            raise LibraryError(f'{path} has no "version": it must be a JSON file written by ripieno')
        if version > type_version:
            raise LibraryError(f"{path} has version {version}, this ripieno reads up to {type_version}: upgrade it")
        return convert(fields, kind)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise LibraryError(f"{path} cannot be read: {error_summary(error)}") from error


def convert(fields: object, kind: type[T]) -> T:
    """A word of `kind` from plain values. Raises msgspec.ValidationError naming the field that is wrong."""
    return msgspec.convert(fields, kind, dec_hook=_from_plain)


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
                to_disk(stream.fileno())
        with _explained(path):
            _publish(temporary, path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Make of an OSError the line that says what to do."""
    try:
        yield
    except OSError as error:
        raise RipienoError(system_error(error, "write", path)) from error


def read_array(path: Path, mapped: bool = True) -> NDArray[Any]:
    """Read a .npy file, memory-mapped unless `mapped` is False or the file system maps nothing.

    Raises LibraryError naming the file.
    """

    def load(mode: MapMode | None) -> NDArray[Any]:
        array: NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
        return array

    try:
        return first_map(load) if mapped else load(None)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError) as error:
        raise LibraryError(f"{path} is not a readable .npy file: {error}") from error


def first_map(load: Callable[[MapMode | None], NDArray[Any]]) -> NDArray[Any]:
    """An array by a shared map; where the file system has none, by a private one; where it maps nothing, in memory.

    `load` takes NumPy's mode: "r", "c", or None for reading. The array may not be written in any case.
    """
    modes: tuple[MapMode | None, ...] = ("r", "c", None)
    for mode in modes:
        try:
            array = load(mode)
            break
        except OSError:  # ENODEV most often, but file systems differ
            if mode is None:
                raise
    array.flags.writeable = False
    return array


def copy_file(source: Path, target: Path) -> None:
    """Copy one file atomically."""
    write_bytes(target, source.read_bytes())


def truncate_torn_line(path: Path) -> int:
    """Cut off the unfinished last line of a file of lines that a killed writer left; returns how many bytes it had."""
    data = path.read_bytes() if path.exists() else b""
    torn = len(data) - (data.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, len(data) - torn)
    return torn


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that a new one can take its name; gives its new path, `NAME.broken`."""
    number = 0
    while (aside := path.with_name(f"{path.name}.broken{number or ''}")).exists():
        number += 1
    with _explained(path):
        os.replace(path, aside)
    return aside


def remove_file(path: Path) -> None:
    """Remove a file of ours; absent is fine. Raises RipienoError when it may not be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RipienoError(system_error(error, "remove", path)) from error


def remove_tree(path: Path) -> None:
    """Remove a folder of ours and all in it; absent is fine."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, holder: str) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; the kernel drops it when the process dies.

    A file system without locks (Lustre without `-o flock`, some FUSE) is locked for this machine only.
    Raises RipienoError when another process holds it; `holder` says in the message what that process is.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115
    with stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        if not _hold(stream, name, path):
            stream.seek(0)
            other = stream.read(40).decode("ascii", "replace").strip()
            raise RipienoError(
                f"{path.parent} is in use by {holder} (process {other or 'unknown'}): wait for it or stop it"
            )
        with suppress(OSError):  # of a full disk: it is held all the same
            stream.truncate(0)
            stream.write(str(os.getpid()).encode())
        yield


def _hold(stream: IO[bytes], name: socket.socket, path: Path) -> bool:
    """Lock a file, or a name of the kernel's own where its file system has no locks; False when another holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOSYS, ENOLCK, EOPNOTSUPP: file systems differ
        try:
            name.bind(f"\0ripieno-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}")
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # a kernel without such names, too: nothing locks here
    return True
