"""Arrays of images and labels from readers, converted to one form: NHWC uint8 or float32, labels from 0.

A reader returns one `SplitArrays` per split; `join` checks them and makes one `Samples`. Arrays that have the form
already are never copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.pixels import channels_last, check_finite
from ripieno.errors import DataError
from ripieno.tasks.labels import check_names, label_indices, label_text, read_labels
from ripieno.types import SPLITS, Split

UNASSIGNED = -1
"""Value of `Samples.fixed_split` for a sample without a split."""
BLOCK_BYTES = 1 << 22
"""Approximate bytes of a block in which whole arrays are scanned, so that a mapped array is never in memory at once."""


@dataclass(frozen=True, eq=False)
class SplitArrays:
    """Images (samples, height, width[, channels]) and labels of one split, as read.

    The split "train" is divided further when the source has no validation or test split. `where` names the arrays in
    messages.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    where: str
    split: Split = "train"
    channels_last: bool = False
    """whether the reader knows that the channels come last; otherwise the shape decides"""


@dataclass(frozen=True, eq=False)
class Samples:
    """Content of a source: images NHWC (uint8 or float32), labels (samples,) as indices into `classes`.

    `fixed_split` (samples,) is an index into `SPLITS` where the source names valid or test, else `UNASSIGNED`.
    """

    name: str
    images: NDArray[Any]
    labels: NDArray[np.int64]
    fixed_split: NDArray[np.int8]
    classes: tuple[str, ...]


def join(
    name: str, parts: Sequence[SplitArrays], classes: Sequence[str] | None, notes: list[str], positions: bool = False
) -> Samples:
    """Join all parts into one `Samples`; without `classes` the label values become the class names.

    With `positions`, numbers are indices into `classes` by the definition of the source; without, they are first
    matched as names, see `ripieno.tasks.labels`.

    Raises DataError (one line) for shapes, types, values or labels that cannot be used.
    """
    images = _one_type([_laid_out(p, notes) for p in parts], parts)
    labels, names = _encode(
        [_flat_labels(p, len(i)) for p, i in zip(parts, images, strict=True)], parts, classes, positions
    )
    given = [given_of(p.split, len(i)) for p, i in zip(parts, images, strict=True)]
    if len(parts) == 1:
        return Samples(name, images[0], labels[0], given[0], names)
    return Samples(name, np.concatenate(images), np.concatenate(labels), np.concatenate(given), names)


def given_of(split: Split, samples: int) -> NDArray[np.int8]:
    """Return `Samples.fixed_split` of `samples` samples from `split`."""
    return np.full(samples, UNASSIGNED if split == "train" else SPLITS.index(split), np.int8)


def blocks(array: NDArray[Any], length: int | None = None) -> list[slice]:
    """Return the blocks of an array, or of a selection of `length` of its rows: of about `BLOCK_BYTES` each."""
    rows = max(1, BLOCK_BYTES // max(1, array.nbytes // max(1, len(array))))
    return [slice(start, start + rows) for start in range(0, len(array) if length is None else length, rows)]


def extremes(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return the least and the largest pixel of each image (samples, 2)."""
    found = np.empty((len(images), 2))
    for block in blocks(images):
        rows = images[block].reshape(len(found[block]), -1)
        found[block, 0], found[block, 1] = rows.min(axis=1), rows.max(axis=1)
    return found


def _laid_out(part: SplitArrays, notes: list[str]) -> NDArray[Any]:
    """Return the images of a part as NHWC; a layout known to the reader is not guessed from the shape."""
    images = np.asanyarray(part.images)
    known = part.channels_last and images.ndim == 4 and 0 not in images.shape
    return images if known else channels_last(images, part.where, notes)


def _one_type(arrays: list[NDArray[Any]], parts: Sequence[SplitArrays]) -> list[NDArray[Any]]:
    """Convert all arrays to uint8 (whole numbers 0 to 255, or booleans) or all to float32, with one image shape."""
    first = parts[0].where
    for array, part in zip(arrays, parts, strict=True):
        if array.dtype.kind not in "biuf":
            raise DataError(f"images of {part.where} hold {array.dtype}; expected numbers; convert them")
        if array.shape[1:] != arrays[0].shape[1:]:
            shapes = f"{arrays[0].shape[1:]} and {array.shape[1:]}"
            raise DataError(f"images of {first} and {part.where} have shapes {shapes}; expected one shape")
        if (array.dtype.kind == "f") != (arrays[0].dtype.kind == "f"):
            types = f"{arrays[0].dtype} and {array.dtype}"
            raise DataError(f"images of {first} and {part.where} hold {types}; expected one type and one unit")
    if all(a.dtype == np.uint8 for a in arrays):
        return arrays
    if arrays[0].dtype.kind == "f":
        # a float64 beyond the range of float32 becomes infinity, which check_finite reports
        with np.errstate(over="ignore"):
            arrays = [a.astype(np.float32, copy=False) for a in arrays]
        for array, part in zip(arrays, parts, strict=True):
            check_finite(extremes(array), f" of {part.where}")
        return arrays
    if all(a.dtype.kind == "b" for a in arrays):
        return [a.view(np.uint8) * np.uint8(255) for a in arrays]
    bytes_only = all(int(a.min()) >= 0 and int(a.max()) <= 255 for a in arrays)
    return [a.astype(np.uint8 if bytes_only else np.float32) for a in arrays]


def _flat_labels(part: SplitArrays, samples: int) -> NDArray[Any]:
    """Return labels (samples,) of integers or strings; a column or one-hot rows are flattened."""
    labels, where = np.asarray(part.labels), part.where
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and _one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise DataError(f"labels of {where} have shape {labels.shape}; expected one label per image")
    if len(labels) != samples:
        raise DataError(f"{where}: {samples:,} images but {len(labels):,} labels; expected one label per image")
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8")
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind == "O":  # from pandas: names, categories, numbers with gaps
        texts = np.array([label_text(v, i, f"labels of {where}", DataError) for i, v in enumerate(labels.tolist())])
        named = any(isinstance(value, str | bytes) for value in labels.tolist())
        return texts if named else texts.astype(np.int64)
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all() and np.isfinite(labels).all():
        return labels.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise DataError(f"labels of {where} hold {labels.dtype}; expected whole numbers or names; convert them")
    return labels.astype(np.int64)


def _one_hot(labels: NDArray[Any]) -> bool:
    if labels.dtype.kind not in "biuf":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _encode(
    labels: list[NDArray[Any]], parts: Sequence[SplitArrays], classes: Sequence[str] | None, positions: bool
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Encode labels as indices into the names of the classes, and return both."""
    if len({a.dtype.kind for a in labels}) > 1:
        wheres = " and ".join(p.where for p in parts)
        raise DataError(f"labels of {wheres} are numbers in one and names in the other; expected the same kind")
    if classes is None:
        values = np.unique(np.concatenate(labels))
        return [np.searchsorted(values, a).astype(np.int64) for a in labels], tuple(str(v) for v in values)
    names = tuple(str(c) for c in classes)
    check_names(names, f"classes of {parts[0].where}", DataError)

    def encode(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
        if positions and labels.dtype.kind != "U":
            return read_labels(labels, len(names), where, DataError)
        return label_indices(labels, names, where, DataError)

    return [encode(a, f"labels of {p.where}") for a, p in zip(labels, parts, strict=True)], names
