"""Fingerprints of sources: equal for a copy and under another path, different after any change of the data read.

Files are identified by their contents and their paths below the source. Their metadata (size, times, inode) is kept as
a stamp: while it is unchanged, they are not read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.adapters import is_external_dataset, pair_arrays, sample
from ripieno.data.blocks import blocks
from ripieno.data.cifar import cifar_files, is_cifar
from ripieno.data.data_frame import data_frame_columns, is_data_frame
from ripieno.data.dataset import open_dataset
from ripieno.data.idx import idx_files, is_idx
from ripieno.data.image_folder import find_pictures
from ripieno.data.image_table import listed_files, table_path
from ripieno.data.kept_samples import is_kept_folder, kept_files
from ripieno.data.mask_folder import find_masked_pictures, is_mask_folder
from ripieno.data.series_files import find_series
from ripieno.data.walk import shown
from ripieno.errors import DataError
from ripieno.resources import usable_cores
from ripieno.types import Dataset

CHUNK = 256
"""Files between two reports of progress."""


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a source: the `digest` of its contents, and its `size` as text."""

    digest: str
    size: str
    stamp: str = ""
    """digest of the metadata; while it is unchanged, so is `digest`; empty where there is none"""

    def __str__(self) -> str:
        return f"{self.size}, digest {self.digest[:8]}"


def fingerprint(
    source: Any, known: Fingerprint | None = None, progress: Callable[[int, int], None] | None = None
) -> Fingerprint:
    """Compute the fingerprint of a source of `load_dataset`, or return `known`, an older one with the same stamp.

    Of another library's data set at most some thousand items are read. Raises DataError for files that cannot be read.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if (path / "dataset.json").is_file():
            return _of_dataset(open_dataset(path))
        return _of_files(path, source_files(path), known, progress)
    if isinstance(source, Dataset):
        return _of_dataset(source)
    if is_data_frame(source):
        columns = data_frame_columns(source, "the data")
        size = f"{len(next(iter(columns.values()))):,} rows of {len(columns):,} columns"
        held = [part for name, values in columns.items() for part in (name, *_array(np.asarray(values, object)))]
        return Fingerprint(_digest(*held), size)
    if isinstance(source, Mapping):
        parts = {str(name): fingerprint(part) for name, part in source.items()}
        size = "; ".join(f"{name}: {part.size}" for name, part in parts.items())
        return Fingerprint(_digest(*(f"{name} {part.digest}" for name, part in sorted(parts.items()))), size)
    if is_external_dataset(source):
        stamp = str(getattr(source, "_fingerprint", ""))  # Hugging Face's hash of all processing steps
        if known is not None and stamp and known.stamp == stamp:
            return known
        size, contents = sample(source)
        return Fingerprint(_digest(contents), size, stamp)
    inputs, targets = pair_arrays(source)
    size = f"inputs {inputs.shape} and targets {targets.shape}"
    return Fingerprint(_digest(*_array(inputs), *_array(targets)), size)


def source_files(path: Path) -> list[Path]:
    """List the files that `load_dataset` reads of the file or folder `path`."""
    if is_kept_folder(path):
        return kept_files(path)
    if (found := find_series(path)) is not None:
        return list(found.files.values())
    if (table := table_path(path)) is not None:
        return [table, *dict.fromkeys(file for file in listed_files(table) if file.is_file())]
    if not path.is_dir():
        return [path]
    if is_cifar(path):
        return cifar_files(path)
    if is_idx(path):
        return idx_files(path)
    if is_mask_folder(path):
        return find_masked_pictures(path, [], skip_bad=True).files
    return [picture.path for picture in find_pictures(path, [])[0]]


def _of_files(
    path: Path, files: Sequence[Path], known: Fingerprint | None, progress: Callable[[int, int], None] | None
) -> Fingerprint:
    try:
        names = [os.fsencode(os.path.relpath(file, path)) for file in files]
        found = [os.stat(file) for file in files]
        stamp = _digest(
            *(f"{n!r} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for n, s in zip(names, found, strict=True))
        )
        if known is not None and known.stamp == stamp:
            return known
        digests: list[bytes] = []
        with ThreadPoolExecutor(min(16, len(usable_cores()))) as pool:
            for start in range(0, len(files), CHUNK):
                digests += pool.map(_contents, files[start : start + CHUNK])
                if progress is not None:
                    progress(len(digests), len(files))
    except OSError as error:
        raise DataError(f"{shown(Path(str(error.filename)))} cannot be read ({error.strerror}); check it") from error
    total = sum(s.st_size for s in found)
    size = f"{len(files):,} file{'s' * (len(files) != 1)} of {total:,} bytes"
    pairs = sorted(zip(names, digests, strict=True))
    return Fingerprint(_digest(*(part for pair in pairs for part in pair)), size, stamp)


def _contents(file: Path) -> bytes:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def _of_dataset(dataset: Dataset) -> Fingerprint:
    held = [] if dataset.folds is None else [dataset.folds]
    arrays = [part for array in (dataset.inputs, dataset.targets, dataset.split, *held) for part in _array(array)]
    # inputs of a table stand for other values in other columns
    names = (*dataset.classes, *map(repr, dataset.columns))
    return Fingerprint(_digest(*arrays, *names), f"{len(dataset.targets):,} samples in a data set")


def _array(array: NDArray[Any]) -> list[str | bytes]:
    """Return the parts of an array that `_digest` hashes: contents, shape and type."""
    if array.dtype.hasobject:
        return [str(array.tolist())]
    digest = hashlib.blake2b()
    for block in blocks(array) if array.ndim else ():
        digest.update(array[block].tobytes())
    return [f"{array.shape} {array.dtype}", digest.digest()]


def _digest(*parts: str | bytes) -> str:
    """Return the digest of all `parts`, each preceded by its length, so that their boundaries count."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "backslashreplace") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
