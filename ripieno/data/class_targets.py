"""Targets of a classification: labels from 0, from numbers, names, a column or one-hot rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.raw_targets import RawTargets, holds_sequences
from ripieno.errors import DataError
from ripieno.tasks.labels import check_names, label_indices, label_text, read_labels


def read_classes(
    parts: Sequence[RawTargets], names: Sequence[str] | None, columns: Sequence[str], positions: bool
) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Read labels as int64 (samples,), see `TargetReader`; without `names` the values become the class names."""
    labels = [_flat_labels(part, columns) for part in parts]
    if len({array.dtype.kind for array in labels}) > 1:
        wheres = " and ".join(part.where for part in parts)
        raise DataError(f"labels of {wheres} are numbers in one and names in the other; expected the same kind")
    if names is None and len(columns) > 1:  # one-hot rows
        names = columns
    if names is None:
        values = np.unique(np.concatenate(labels))
        return [np.searchsorted(values, a).astype(np.int64) for a in labels], tuple(str(v) for v in values)
    classes = tuple(str(name) for name in names)
    check_names(classes, f"classes of {parts[0].where}", DataError)

    def encode(labels: NDArray[Any], where: str) -> NDArray[np.int64]:
        if positions and labels.dtype.kind != "U":
            return read_labels(labels, len(classes), where, DataError)
        return label_indices(labels, classes, where, DataError)

    return [encode(a, f"labels of {part.where}") for a, part in zip(labels, parts, strict=True)], classes


def is_one_hot(labels: NDArray[Any]) -> bool:
    """Return whether each row (samples, classes) holds one 1 and zeros."""
    if labels.dtype.kind not in "biuf":
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _flat_labels(part: RawTargets, columns: Sequence[str]) -> NDArray[Any]:
    """Return labels (samples,) of integers or strings; a column or one-hot rows are flattened."""
    labels, where = part.values, part.where
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and is_one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        held = f"are in the columns {', '.join(columns)}" if len(columns) > 1 else f"have shape {labels.shape}"
        raise DataError(f"labels of {where} {held}; expected one label a sample; name one column with --target")
    if holds_sequences(labels):
        raise DataError(f"labels of {where} are lists; expected one label a sample, or --task multilabel")
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
    if labels.dtype.kind == "f":
        row = int(np.argmax(~np.isfinite(labels) | (labels != np.floor(labels))))
        held = f"{labels[row]:g}, {part.row(row)}"
        raise DataError(f"labels of {where} hold {held}; expected whole numbers or names, or --task regression")
    if labels.dtype.kind not in "biu":
        raise DataError(f"labels of {where} hold {labels.dtype}; expected whole numbers or names; convert them")
    return labels.astype(np.int64)
