"""Targets of a multilabel task: 0 and 1 for each label, from columns of them, lists of labels, or joined names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.raw_targets import RawTargets
from ripieno.errors import DataError
from ripieno.tasks.labels import label_text, number_of, shown
from ripieno.tasks.target_text import SEPARATOR


def read_label_sets(
    parts: Sequence[RawTargets], names: Sequence[str] | None, columns: Sequence[str], positions: bool
) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Read labels as uint8 (samples, labels), see `TargetReader`; without `names` the labels become the names."""
    if all(part.values.ndim == 2 for part in parts):
        return _read_columns(parts, names or (columns if len(columns) == parts[0].values.shape[1] else None))
    sets = [[_labels_of(part, row) for row in range(len(part.values))] for part in parts]
    if names is None:
        found = {label for one in sets for labels in one for label in labels}
        numbers = {label: number for label in found if (number := number_of(label)) is not None}
        labels = tuple(sorted(found, key=lambda label: (numbers.get(label, 0), label)))
        if len(numbers) < len(found):
            labels = tuple(sorted(found))
    else:
        labels = tuple(str(name) for name in names)
    return [_encode(one, part, labels, positions) for one, part in zip(sets, parts, strict=True)], labels


def _read_columns(
    parts: Sequence[RawTargets], names: Sequence[str] | None
) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Read columns of 0 and 1."""
    columns = parts[0].values.shape[1]
    labels = tuple(str(n) for n in (range(columns) if names is None else names))
    for part in parts:
        values = part.values
        if values.shape[1] != len(labels):
            raise DataError(
                f"labels of {part.where} have {values.shape[1]} columns; expected {len(labels)}, one a label"
            )
        if values.dtype.kind not in "biuf":
            raise DataError(f"labels of {part.where} hold {values.dtype}; expected 0 and 1, a column a label")
        wrong = np.argwhere((values != 0) & (values != 1))
        if len(wrong):
            row, column = wrong[0]
            value = f"{values[row, column]:g} for label {labels[column]!r}, {part.row(row)}"
            raise DataError(f"labels of {part.where} hold {value}; expected 0 and 1")
    return [part.values.astype(np.uint8) for part in parts], labels


def _labels_of(part: RawTargets, row: int) -> list[str]:
    """Return the labels of a sample as text."""
    value, what = part.values[row], f"labels of {part.where}"
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(value, str):
        value = str(value)
        found = [label.strip() for label in value.split(SEPARATOR)]
        if value.strip() and not any(found):
            return []  # the separator alone
        if "" in found:
            raise DataError(f"{what} hold {value!r}, {part.row(row)}; expected names joined by {SEPARATOR}")
        return found
    labels = value if isinstance(value, list | tuple | set | frozenset | np.ndarray) else [value]
    plain = (label.item() if isinstance(label, np.generic) else label for label in labels)
    return [label_text(label, row, what, DataError) for label in plain]


def _encode(
    sets: Sequence[Sequence[str]], part: RawTargets, names: Sequence[str], positions: bool
) -> NDArray[np.uint8]:
    """Encode the labels of each sample as 0 and 1."""
    index = {name: i for i, name in enumerate(names)}
    if positions and names:  # whole numbers are indices, whatever the names
        index |= {str(i): i for i in range(len(names))}
    targets = np.zeros((len(sets), len(names)), np.uint8)
    for row, labels in enumerate(sets):
        for label in labels:
            if label not in index:
                known = f"the labels are {shown(list(names))}"
                raise DataError(
                    f"labels of {part.where} hold {label!r}, {part.row(row)}, which is none of them: {known}"
                )
            targets[row, index[label]] = 1
    return targets
