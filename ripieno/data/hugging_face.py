"""Hugging Face data sets, recognised by their interface: the columns of inputs and targets, and their types.

The package `datasets` is not imported: a data set has `features`, the types of its columns, and rows that are mappings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.data.npz import IMAGES, LABELS
from ripieno.errors import DataError

ARRAYS = ("Image", "Array2D", "Array3D")
"""Types of columns that hold inputs, whatever their names."""
LISTS = ("List", "LargeList", "Sequence")
"""Types of columns of lists; those of numbers hold inputs where no other column does."""

MASKS = LABELS | {"annotation", "annotations", "segmentation", "segmentation_mask", "label_mask"}
"""Names of columns of masks, where another column holds images too."""


class FeatureColumns(NamedTuple):
    """Columns of a data set: that of the inputs, and those of the targets."""

    inputs: str
    targets: tuple[str, ...]
    dtype: np.dtype[Any] | None = None
    """of the inputs, where the type of their column has one: rows hold arrays as lists"""
    classes: list[str] | None = None
    """names of the classes or labels of a single column of targets"""


def plain_rows(part: Any) -> Any:
    """Return a data set that gives Python values and pictures, not tensors; a transform of the user's is kept."""
    form = getattr(part, "format", None)
    if isinstance(form, Mapping) and form.get("type") not in (None, "custom") and hasattr(part, "with_format"):
        return part.with_format(None, columns=form.get("columns"))
    return part


def find_columns(features: Any, where: str, target: Sequence[str]) -> FeatureColumns | None:
    """Find the columns of inputs and targets, by types, else by names; None when there are no columns.

    `features` are the types, or a row. `target` names the columns of targets; without it a data set with one column
    besides the inputs needs no names. Raises DataError, naming `where`, for columns that leave a choice.
    """
    if not isinstance(features, Mapping):
        return None
    inputs = [name for name in _input_columns(features) if name not in target]
    if not target and (mask := _mask_column(inputs)) is not None:
        target, inputs = [mask], [name for name in inputs if name != mask]
    if target:
        unknown = next((name for name in target if name not in features), None)
        if unknown is not None:
            raise DataError(f"{where} has no target {unknown!r}; expected one of {', '.join(features)}")
        targets = list(target)
    else:
        targets = [name for name, feature in features.items() if _class_names(feature) is not None]
        targets = [n for n in targets if n.lower() in LABELS] or targets or [n for n in features if n.lower() in LABELS]
        targets = targets or [n for n in features if n not in inputs][: len(features) - 1 if len(features) == 2 else 0]
    if len(inputs) != 1 or (len(targets) != 1 and not target):
        raise DataError(
            f"{where} has the columns {', '.join(features)}; expected one of images or arrays and one of targets; "
            "choose two with select_columns, rename them image and label with rename_column, or name the target "
            "with --target"
        )
    classes = _class_names(features[targets[0]]) if len(targets) == 1 else None
    return FeatureColumns(inputs[0], tuple(targets), _dtype(features[inputs[0]]), classes)


def find_input_column(features: Any) -> str | None:
    """Find the column of inputs; None when there are no columns. Raises DataError unless there is one."""
    if not isinstance(features, Mapping):
        return None
    found = _input_columns(features)
    if (mask := _mask_column(found)) is not None:
        found.remove(mask)
    if len(found) != 1:
        raise DataError(f"the data has the columns {', '.join(features)}; expected one of images; name it image")
    return found[0]


def split_row(row: Mapping[str, Any], columns: FeatureColumns) -> tuple[Any, Any]:
    """Return inputs and target of a row; several columns of targets are an array. Raises ValueError for a gap."""
    missing = next((name for name in columns.targets if row[name] is None), None)
    if missing is not None:
        raise ValueError(f"it has no {missing}")
    inputs = row[columns.inputs]
    if columns.dtype is not None and isinstance(inputs, list):
        inputs = np.asarray(inputs, columns.dtype)
    if len(columns.targets) == 1:
        return inputs, row[columns.targets[0]]
    targets: NDArray[Any] = np.array([row[name] for name in columns.targets])
    return inputs, targets


def _input_columns(features: Mapping[str, Any]) -> list[str]:
    """Return the columns that hold inputs: by type, else by name, else lists of numbers."""
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    named = [name for name in kinds if name.lower() in IMAGES]
    lists = [
        name
        for name, kind in kinds.items()
        if kind in LISTS and name.lower() not in LABELS and _dtype(features[name]) is not None
    ]
    return [name for name, kind in kinds.items() if kind in ARRAYS] or named or lists


def _mask_column(inputs: Sequence[str]) -> str | None:
    """Return the column of masks among several of `inputs`, by name; None where not exactly one is named so."""
    masks = [name for name in inputs if name.lower() in MASKS] if len(inputs) > 1 else []
    return masks[0] if len(masks) == 1 else None


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel column, or of a column of lists of such; None for any other."""
    inner = feature[0] if isinstance(feature, list) and len(feature) == 1 else getattr(feature, "feature", feature)
    names = getattr(inner, "names", None) if type(inner).__name__ == "ClassLabel" else None
    return None if names is None else [str(name) for name in names]


def _dtype(feature: Any) -> np.dtype[Any] | None:
    """Return the type of the numbers of a column; None for pictures, classes, text and values of unknown type."""
    if _class_names(feature) is not None:
        return None
    inner = getattr(feature, "feature", feature)
    try:
        found = np.dtype(inner.dtype)
    except (AttributeError, TypeError):
        return None
    return found if found.kind in "biuf" else None
