"""Atomic file input and output: every file is written under a temporary name, then renamed with `os.replace`.

A reader therefore sees the old file or the new one, never a part. A process killed between the two steps leaves a
`.tmp` file that no code reads. JSON goes through msgspec, which checks every field against :mod:`ripieno.types`.
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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, get_origin

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ripieno.errors import LibraryError, RipienoError, error_summary, system_error
from ripieno.types import type_version
from ripieno.version1 import upgrade

T = TypeVar("T")
MapMode = Literal["r", "c"]


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` atomically, in a new folder if need be. Raises RipienoError when the system refuses it."""
    with file_writer(path) as stream, _explained(path):
        stream.write(data)


@contextmanager
def file_writer(path: Path) -> Iterator[IO[bytes]]:
    """Yield a temporary file that replaces `path` when the block ends, and is removed when it fails.

    Raises RipienoError when the file cannot be made, or not moved to `path`.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    stream = os.fdopen(descriptor, "wb")
    try:
        yield stream
        with _explained(path):
            stream.flush()
            to_disk(stream.fileno())
            stream.close()
            with suppress(OSError):  # readable for all users where the file system has permissions
                os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # closing writes what is left: on a full disk it fails again, without the path
            stream.close()
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def _explained(path: Path, verb: str = "write") -> Iterator[None]:
    """Convert an OSError into a RipienoError that names the remedy."""
    try:
        yield
    except OSError as error:
        raise RipienoError(system_error(error, verb, path)) from error


def to_disk(descriptor: int, sync: Callable[[int], None] | None = None) -> None:
    """Flush a file's data to disk with `sync`, by default `os.fsync`; a file system without that call is accepted."""
    try:
        (sync or os.fsync)(descriptor)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise


def make_folder(path: Path) -> None:
    """Create the folder `path` and its parents; an existing folder is accepted. Raises RipienoError on failure."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Raise RipienoError when an existing folder is not writable; call it before the work, not after."""
    if folder.is_dir() and not os.access(folder, os.W_OK):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise RipienoError(system_error(OSError(number, os.strerror(number)), "write to", folder))


def check_folder(path: Path) -> None:
    """Raise RipienoError when the folder `path`, existing or not, cannot be made or written; call before the work."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise RipienoError(f"cannot write to {path}: {there} is a file; choose another folder")
    check_writable(there)


def check_file(path: Path) -> None:
    """Raise RipienoError when the file `path`, existing or not, cannot be written; call it before the work."""
    if path.is_dir():
        raise RipienoError(f"cannot write {path}: it is a folder; pass the name of a file")
    check_folder(path.parent)


def _plain(value: object) -> object:
    """Convert types that msgspec does not know: paths to strings, NumPy scalars to Python's."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(word: object, **extra: object) -> bytes:
    """Encode a type of `types` (or a dict of plain values) as indented JSON with `version`, reproducibly."""
    fields = msgspec.to_builtins(word, enc_hook=_plain)
    if not isinstance(fields, dict):
        fields = {"items": fields}
    for name in [f.name for f in getattr(word, "__dataclass_fields__", {}).values() if not f.metadata.get("stored", 1)]:
        del fields[name]
    encoded = msgspec.json.encode({"version": type_version, **extra, **fields}, enc_hook=_plain)
    return msgspec.json.format(encoded, indent=2) + b"\n"


def write_json(path: Path, word: object) -> None:
    """Write `to_json(word)` to `path` atomically."""
    write_bytes(path, to_json(word))


def read_json(path: Path, kind: type[T]) -> T:
    """Read a `kind` from JSON. Raises LibraryError naming file and field if it is absent, malformed or newer."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # a read would block until a writer opens it
            raise LibraryError(f"{path} cannot be read: it is a named pipe")
        return from_json(path.read_bytes(), kind, path)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except OSError as error:
        raise LibraryError(f"{path} cannot be read: {error.strerror}") from error


def from_json(data: bytes | str, kind: type[T], path: Path) -> T:
    """Decode a `kind` that `to_json` encoded, now or in version 1. Raises LibraryError naming `path`, its file."""
    try:
        fields = msgspec.json.decode(data)
        version = fields.pop("version", None) if isinstance(fields, dict) else None
        if not isinstance(version, int):
            raise LibraryError(f'{path} has no "version"; expected a JSON file written by ripieno')
        if version > type_version:
            raise LibraryError(
                f"{path} has version {version}, above {type_version}, the latest that ripieno knows; upgrade it"
            )
        fields = upgrade(fields) if version == 1 else fields
        return convert(fields.get("items") if get_origin(kind) is list else fields, kind)  # as `to_json` writes a list
    except (msgspec.DecodeError, RecursionError) as error:
        raise LibraryError(f"{path} cannot be read: {error_summary(error)}") from error


def convert(fields: object, kind: type[T]) -> T:
    """Convert plain values to `kind`. Raises msgspec.ValidationError naming the invalid field."""
    return msgspec.convert(fields, kind, dec_hook=_from_plain)


def _from_plain(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise TypeError(f"cannot read a {kind.__name__}")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` as .npy atomically, never with pickled objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


@contextmanager
def array_writer(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a .npy file in blocks of rows: yield a function that appends a block (rows, *shape) of `dtype`.

    The file is renamed to `path` when the `with` block ends, and removed when it fails. Arrays larger than memory can
    be written, and the file is complete or absent. Raises RipienoError when it cannot be written.
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

    with file_writer(path) as stream:
        header(stream)
        yield append
        with _explained(path):
            stream.seek(0)
            header(stream)


def scratch_array(folder: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array of zeros in a file of `folder` without a name, which ends with the array, or with the process.

    It may be larger than memory. Raises RipienoError when the disk has no room for it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    with _explained(folder / "predictions"), tempfile.TemporaryFile(dir=folder) as stream:
        # a full disk would otherwise end the process at the first page that has no place
        os.posix_fallocate(stream.fileno(), 0, size)
        return np.memmap(stream, dtype, "r+", shape=shape)


_HEADERS = threading.Lock()
"""Held while the header of an array is read: NumPy parses it as Python, and CPython 3.11 fails with SystemError where
two threads do so at a time."""


def read_array(path: Path, mapped: bool = True) -> NDArray[Any]:
    """Read a .npy file, memory-mapped if `mapped` and supported. Raises LibraryError naming the file."""

    def load(mode: MapMode | None) -> Any:
        with _HEADERS:
            return np.load(path, mmap_mode=mode, allow_pickle=False)

    try:
        return first_map(load) if mapped else np.array(first_map(load))
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist") from error
    except (OSError, ValueError, EOFError) as error:
        raise LibraryError(f"{path} is not a readable .npy file: {error}") from error


def first_map(load: Callable[[MapMode | None], NDArray[Any]]) -> NDArray[Any]:
    """Load an array by a shared map, else a private one, else into memory, read-only; `load` takes NumPy's mode."""
    modes: tuple[MapMode | None, ...] = ("r", "c", None)
    for mode in modes:
        try:
            array = load(mode)
            break
        except OSError:  # usually ENODEV, but file systems differ
            if mode is None:
                raise
    array.flags.writeable = False
    return array


def copy_file(source: Path, target: Path) -> None:
    """Copy one file atomically."""
    write_bytes(target, source.read_bytes())


def write_status(path: Path, data: bytes) -> None:
    """Replace a file that only tells how something goes: without waiting for the disk, and errors are ignored.

    It has one writer at a time. After a power cut it may be empty.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)


def truncate_torn_line(path: Path) -> int:
    """Cut off the incomplete last line that a killed writer left in a file of lines; return the bytes removed."""
    data = path.read_bytes() if path.exists() else b""
    torn = len(data) - (data.rfind(b"\n") + 1)
    if torn:
        os.truncate(path, len(data) - torn)
    return torn


def set_aside(path: Path) -> Path:
    """Rename an unreadable file to `NAME.broken` so that a new file can take its name; return the new path."""
    number = 0
    while (aside := path.with_name(f"{path.name}.broken{number or ''}")).exists():
        number += 1
    with _explained(path):
        os.replace(path, aside)
    return aside


def remove_file(path: Path) -> None:
    """Remove a file that ripieno wrote; an absent file is accepted. Raises RipienoError when removal fails."""
    with _explained(path, "remove"):
        path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a folder that ripieno wrote, with its content; an absent folder is accepted."""
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, holder: str, wait: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs; the kernel releases it when the process dies.

    On a file system without locks (Lustre without `-o flock`, some FUSE) the lock holds on this machine only.
    Raises RipienoError when another process holds it; the message describes that process by `holder`. With `wait`, a
    number of seconds, it tries again after each.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b", buffering=0)  # noqa: SIM115
    with stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        while not _hold(stream, name, path):
            if wait is not None:
                time.sleep(wait)
                continue
            stream.seek(0)
            other = stream.read(40).decode("ascii", "replace").strip()
            raise RipienoError(
                f"{path.parent} is in use by {holder} (process {other or 'unknown'}); wait for it or stop it"
            )
        with suppress(OSError):  # the disk is full; the lock is held nevertheless
            stream.truncate(0)
            stream.write(str(os.getpid()).encode())
        yield


def _hold(stream: IO[bytes], name: socket.socket, path: Path) -> bool:
    """Lock a file, or an abstract socket name where its file system has no locks; return False when it is taken."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # ENOSYS, ENOLCK, EOPNOTSUPP: file systems differ
        try:
            name.bind(f"\0ripieno-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()}")
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # True on a kernel without abstract names: no lock exists here
    return True
