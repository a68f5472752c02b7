"""CIFAR-10 and CIFAR-100 as published: the python or the binary version, a folder or the `.tar.gz` itself.

No file is unpacked to disk, and the python version's pickles are not executed (see `safe_unpickler`).
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ripieno.data.safe_unpickler import read_program
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.errors import DataError
from ripieno.types import Split

PIXELS = 3 * 32 * 32
"""Bytes of one image: 1,024 red, 1,024 green, 1,024 blue."""
Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
Files = Mapping[str, Path | bytes]
"""File name to its path or its contents."""


@dataclass(frozen=True)
class Version:
    """One of the four published archives: its files, and the format of a batch and of the class names."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label: str
    """key of the labels (python), or of the class names' file"""
    label_bytes: int = 0
    """label bytes before each image, of which the last is used; 0 for the python version"""

    @property
    def files(self) -> tuple[str, ...]:
        """All required files."""
        return (*self.train, *self.test)


VERSIONS = (
    Version("cifar-10", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), "batches.meta", "labels"),
    Version("cifar-100", ("train",), ("test",), "meta", "fine_labels"),
    Version(
        "cifar-10", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",), "batches.meta.txt", "", 1
    ),
    Version("cifar-100", ("train.bin",), ("test.bin",), "fine_label_names.txt", "", 2),
)
WANTED = {name for version in VERSIONS for name in (*version.files, version.names)}
NAME_KEYS = {"labels": "label_names", "fine_labels": "fine_label_names"}


def is_tar(path: Path) -> bool:
    """Return whether the file name is that of a tar archive."""
    return path.name.endswith((".tar.gz", ".tgz", ".tar"))


def is_cifar(folder: Path) -> bool:
    """Return whether the folder, or one in it, holds files of a published CIFAR archive."""
    return _version(_folder_files(folder)) is not None


def cifar_files(folder: Path) -> list[Path]:
    """List the files of a CIFAR archive unpacked to `folder`."""
    return [file for name, file in sorted(_folder_files(folder).items()) if name in WANTED]


def read_cifar(path: Path, notes: list[str], task: str | None = None) -> Samples:
    """Read images, fine labels and class names of a CIFAR archive; keep its test split.

    Raises DataError when files are missing or broken, or have contents that the published files do not have.
    """
    files = _folder_files(path) if path.is_dir() else _tar_files(path)
    version = _version(files)
    if version is None:
        raise DataError(f"{path} is no CIFAR archive; expected data_batch_1 to 5 and test_batch, or train and test")
    missing = [name for name in version.files if name not in files]
    if missing:
        raise DataError(f"{path} has no {missing[0]}, which {version.name} requires; download or unpack it again")
    splits: list[tuple[Split, tuple[str, ...]]] = [("train", version.train), ("test", version.test)]
    parts = [
        SplitArrays(*_read_batch(path / name, _content(files[name]), version), f"{path / name}", split)
        for split, names in splits
        for name in names
    ]
    return join(version.name, parts, _class_names(path, files, version), notes, positions=True, task=task, kind="image")


def _folder_files(folder: Path) -> dict[str, Path]:
    """Map the names of files in the folder and in the archive's own folder to their paths."""
    inside = [p for p in folder.iterdir() if p.is_dir() and p.name.startswith("cifar-")]
    return {p.name: p for f in (*inside, folder) for p in sorted(f.iterdir()) if p.is_file()}


def _tar_files(path: Path) -> Files:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                name = PurePosixPath(entry.name).name
                if entry.isfile() and name in WANTED:
                    stream = archive.extractfile(entry)
                    assert stream is not None
                    contents[name] = stream.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a readable tar archive: {error}; download it again") from error
    return contents


def _content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def _version(files: Files) -> Version | None:
    """Return the version of the files, when both files of CIFAR-100 or any three of CIFAR-10's six are present."""
    for version in VERSIONS:
        present = [name in files for name in version.files]
        if all(present) or (any(present) and len(present) > 2):
            return version
    return None


def _read_batch(path: Path, data: bytes, version: Version) -> Arrays:
    """Read images (samples, 32, 32, 3) and labels (samples,) of one file."""
    pixels, labels = _binary(path, data, version) if version.label_bytes else _python(path, data, version)
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels


def _binary(path: Path, data: bytes, version: Version) -> Arrays:
    record = version.label_bytes + PIXELS
    if not data or len(data) % record:
        raise DataError(f"{path} has {len(data):,} bytes; expected records of {record:,} bytes; download it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, version.label_bytes :], records[:, version.label_bytes - 1].astype(np.int64)


def _python(path: Path, data: bytes, version: Version) -> Arrays:
    batch = _program(path, data)
    pixels, labels = batch.get("data"), batch.get(version.label)
    if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == PIXELS):
        raise DataError(f'{path} has no "data" of {PIXELS:,} bytes an image: it is no batch of {version.name}')
    if not (isinstance(labels, list) and all(isinstance(v, int) for v in labels)):
        raise DataError(f"{path} has no list of {version.label}: it is no batch of {version.name}")
    return pixels, np.array(labels, np.int64)


def _program(path: Path, data: bytes) -> dict[str, object]:
    try:
        return read_program(data)
    except ValueError as error:
        raise DataError(f"{path} is not a file of the CIFAR python version: {error}; no code of it was run") from error


def _class_names(path: Path, files: Files, version: Version) -> list[str] | None:
    """Return the names of the classes; None, so that they are numbers, when the archive lacks their file."""
    if version.names not in files:
        return None
    data = _content(files[version.names])
    if version.label_bytes:
        return [n for n in data.decode("utf-8", "replace").split("\n") if n.strip()]
    names = _program(path / version.names, data).get(NAME_KEYS[version.label])
    if not isinstance(names, list):
        raise DataError(f"{path / version.names} has no {NAME_KEYS[version.label]}; download it again")
    return [n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in names]
