"""`.npz` files of arrays, under the usual names.

A name is a kind (`images`, `x`, `data`; `labels`, `y`, `masks`; ...) and perhaps a split (`train`, `val`, `test`;
...), in any order: `images`, `x_train`, `train_images` (MedMNIST), `X_test`, `val-labels`. Optional arrays are the
names of the classes (`classes`, `class_names`, ...) and, for arrays without splits, `split` (0 train, 1 valid, 2 test).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.splits import SPLIT_WORDS
from ripieno.errors import DataError
from ripieno.types import SPLITS, DataKind, Split

IMAGES = {"images", "image", "imgs", "img", "x", "data", "inputs", "input", "features"}
LABELS = {"labels", "label", "y", "targets", "target", "masks", "mask"}
CLASSES = ("classes", "class_names", "label_names", "names")
EXPECTED = "images and labels, x and y, x_train y_train x_test y_test, or train_images train_labels test_images ..."


def read_npz(
    path: Path,
    notes: list[str],
    task: str | None = None,
    kind: DataKind | None = None,
    ignore: Sequence[str] = (),
) -> Samples:
    """Read the arrays of an `.npz` file. Raises DataError when names, shapes, types or values cannot be used."""
    arrays, found = _read(path, lambda key: key == "split" or key in CLASSES or read_key(key) is not None)
    if unread := [key for key in found if key not in arrays]:
        notes.append(f"{path}: skipped {', '.join(unread)}, by name neither images nor labels")
    parts = _parts(path, arrays, ", ".join(found) or "nothing")
    return join(path.stem, parts, _class_names(arrays), notes, task=task, kind=kind, ignore=ignore)


def read_images(path: Path) -> dict[str, NDArray[Any]]:
    """Read the image arrays of an `.npz` file by name: those named as images, or its only array.

    Raises DataError as `read_npz`, and when the file holds several arrays of which none is named as images.
    """
    arrays, found = _read(path, lambda key: (read_key(key) or ("",))[0] == "images")
    if not arrays and len(found) == 1:
        arrays, _ = _read(path, bool)
    if not arrays:
        raise DataError(
            f"{path} holds {', '.join(found) or 'nothing'}; name one of them as images, such as x or images"
        )
    return arrays


def read_key(key: str) -> tuple[str, Split | None] | None:
    """Parse an array's name: "images" or "labels", and its split; None for any other name.

    >>> read_key("X_val"), read_key("train_labels"), read_key("weights")
    (('images', 'valid'), ('labels', 'train'), None)
    """
    kinds, splits = [], []
    for word in re.split(r"[^a-z0-9]+", key.lower()):
        if word in IMAGES or word in LABELS:
            kinds.append("images" if word in IMAGES else "labels")
        elif word in SPLIT_WORDS:
            splits.append(SPLIT_WORDS[word])
        elif word != "set":
            return None
    if len(kinds) != 1 or len(splits) > 1:
        return None
    return kinds[0], splits[0] if splits else None


def _read(path: Path, wanted: Callable[[str], bool]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Read the arrays with `wanted` names, and list all names. Raises DataError for an unreadable file."""
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise DataError(f"{path} is not a readable .npz file: it is no zip archive; save it again")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files if wanted(key)}, list(archive.files)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path} holds Python objects; expected plain arrays; save names as strings") from error
        raise DataError(f"{path} is not a readable .npz file: {error}; save it again") from error


def _parts(path: Path, arrays: Mapping[str, NDArray[Any]], found: str) -> list[SplitArrays]:
    keys: dict[tuple[str, Split | None], str] = {}
    for key in arrays:
        role = read_key(key)
        if role is not None and role in keys:
            raise DataError(f"{path} holds {keys[role]!r} and {key!r}, which mean the same; leave one out")
        if role is not None:
            keys[role] = key
    whole = ("images", None) in keys and ("labels", None) in keys
    splits = [s for s in SPLITS if ("images", s) in keys or ("labels", s) in keys]
    if not whole and "train" not in splits:
        raise DataError(f"{path} holds {found}; expected {EXPECTED}")
    if whole and splits:
        raise DataError(f"{path} holds {found}; expected its arrays either whole or by split, not both")
    for split in splits:
        if ("images", split) not in keys or ("labels", split) not in keys:
            raise DataError(f"{path} holds {found}; expected both images and labels of {split}")
    if whole:
        return _whole(path, arrays, keys[("images", None)], keys[("labels", None)])
    pairs = [(s, keys[("images", s)], keys[("labels", s)]) for s in splits]
    return [SplitArrays(arrays[x], arrays[y], f"{path} ({x}, {y})", s) for s, x, y in pairs]


def _whole(path: Path, arrays: Mapping[str, NDArray[Any]], x: str, y: str) -> list[SplitArrays]:
    images, labels, where = arrays[x], arrays[y], f"{path} ({x}, {y})"
    if "split" not in arrays:
        return [SplitArrays(images, labels, where)]
    split = arrays["split"]
    if not images.shape[:1] == labels.shape[:1] == split.shape:
        shapes = f"images of shape {images.shape}, labels of {labels.shape}, split of {split.shape}"
        raise DataError(f"{path} holds {shapes}; expected one label and one split per image")
    if not np.isin(split, range(len(SPLITS))).all():
        raise DataError(f"split of {path} must hold 0 (train), 1 (valid) and 2 (test) only")
    present = [i for i in range(len(SPLITS)) if (split == i).any()]
    return [SplitArrays(images[split == i], labels[split == i], where, SPLITS[i]) for i in present]


def _class_names(arrays: Mapping[str, NDArray[Any]]) -> list[str] | None:
    for key in CLASSES:
        if key in arrays:
            names = np.asarray(arrays[key]).ravel()
            return [n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist()]
    return None
