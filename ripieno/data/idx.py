"""The idx format of MNIST and Fashion-MNIST: `train-images-idx3-ubyte.gz` and its labels, `t10k-` for the test split.

Compressed or not; an optional `classes.txt` in the same folder names the classes, one per line.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.splits import SPLIT_WORDS
from ripieno.errors import DataError
from ripieno.types import SPLITS, Split

IMAGES = re.compile(r"(?P<stem>.*)-images[-.]idx3-ubyte(\.gz)?")
DIMENSIONS = {"images": 3, "labels": 1}


def is_idx(folder: Path) -> bool:
    """Return whether the folder holds idx images."""
    return bool(_stems(folder))


def idx_files(folder: Path) -> list[Path]:
    """List the idx files of `folder`, and the file with its class names."""
    known = re.compile(r".*-(images|labels)[-.]idx[13]-ubyte(\.gz)?|classes\.txt")
    return sorted(path for path in folder.iterdir() if known.fullmatch(path.name) and path.is_file())


def read_idx(folder: Path, notes: list[str], task: str | None = None) -> Samples:
    """Read images and labels of a folder's idx files; `t10k` or `test` is the test split.

    Raises DataError when a file is broken, its labels are missing or two sets have the same split.
    """
    stems: dict[Split, str] = {}
    for stem in _stems(folder):
        split = _split_of(stem)
        if split in stems:
            raise DataError(f"{folder} holds {stems[split]}-* and {stem}-* for {split}; leave one set in the folder")
        stems[split] = stem
    if "train" not in stems:
        raise DataError(f"{folder} has no train-images-idx3-ubyte; a training set is required")
    parts = []
    for split in (s for s in SPLITS if s in stems):
        images, labels = (_read(folder, stems[split], kind) for kind in ("images", "labels"))
        parts.append(SplitArrays(images, labels, f"{folder} ({stems[split]}-*)", split))
    file = folder / "classes.txt"
    names = [n for n in file.read_text("utf-8").splitlines() if n] if file.is_file() else None
    return join(folder.resolve().name, parts, names, notes, positions=True, task=task, kind="image")


def _stems(folder: Path) -> list[str]:
    matches = (IMAGES.fullmatch(p.name) for p in folder.iterdir())
    return sorted({m["stem"] for m in matches if m})


def _split_of(stem: str) -> Split:
    """Return the split that a stem such as `t10k` or `emnist-letters-test` names; train when it names none."""
    for word in reversed(re.split(r"[^a-z0-9]+", stem.lower())):
        if word == "t10k":
            return "test"
        if word in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return "train"


def _read(folder: Path, stem: str, kind: str) -> NDArray[np.uint8]:
    dimensions = DIMENSIONS[kind]
    names = [f"{stem}-{kind}{mark}idx{dimensions}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise DataError(f"{folder} has no {names[0]}[.gz]; images and labels must be in one folder")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; download it again") from error
    header = 4 + 4 * dimensions
    # two zero bytes, 8 for unsigned bytes, the number of dimensions, then each dimension, all big-endian
    if len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is no idx{dimensions} file of unsigned bytes; download it again")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, 4))
    if len(data) != header + math.prod(shape):
        must = f"a file of shape {shape} must have {header + math.prod(shape):,}"
        raise DataError(f"{path} has {len(data):,} bytes unpacked, {must}; download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
