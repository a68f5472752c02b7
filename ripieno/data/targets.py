"""Targets as sources hold them, read as those of a task: the kind of task is inferred from them, or given.

Values of one part of a source are an array (samples,) or (samples, columns) of numbers or text, or (samples,) sequences
of labels. Integers are classes; a matrix of 0 and 1 is several labels, unless each row holds one 1; fractions are
numbers to predict. In a column of a file, numbers are text or values without a purpose, so that whole numbers are
classes only where they are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.data.class_targets import is_one_hot, read_classes
from ripieno.data.label_targets import read_label_sets
from ripieno.data.number_targets import read_numbers
from ripieno.data.raw_targets import RawTargets, holds_sequences, squeezed
from ripieno.errors import DataError
from ripieno.tasks.labels import label_indices
from ripieno.tasks.registry import TASKS
from ripieno.types import Task

UNNAMED = (("{}", 0), ("target{}", 1))
"""Names that columns of arrays get, and the number of the first: labels from 0, targets from 1."""
FEW = 20
"""Distinct whole numbers of a column that are read as classes, at most."""


class TargetReader(Protocol):
    """Read targets of one kind of task; return them as in `Dataset`, with the names of the last axis.

    `names` are those of the classes, labels or targets where the source has them. With `positions`, whole numbers are
    indices into them. Raises DataError, in one line that names the sample, for what cannot be read.
    """

    def __call__(
        self, parts: Sequence[RawTargets], names: Sequence[str] | None, positions: bool
    ) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
        """Read the targets of all parts of a source."""
        ...


READERS: Mapping[str, TargetReader] = {
    "classification": read_classes,
    "multilabel": read_label_sets,
    "regression": read_numbers,
}
"""Readers of targets, by kind of task."""


def read_targets(
    parts: Sequence[RawTargets],
    names: Sequence[str] | None,
    notes: list[str],
    *,
    task: str | None = None,
    positions: bool = False,
    columns: Sequence[str] = (),
) -> tuple[list[NDArray[Any]], Task]:
    """Read the targets of all parts of a source, and return them with their task.

    `names` are those of classes or labels, where the source defines them; `columns` those of the columns of targets,
    where they have any. Without `task`, a kind of task, it is inferred. Raises DataError, in one line, for targets that
    cannot be used.
    """
    check_kind(kind := infer_task(parts, names is not None) if task is None else task)
    if task is None and kind != "classification":
        notes.append(f"targets of {parts[0].where} are read as those of a {kind}; --task sets another kind")
    if names is None and columns and (kind == "regression" or parts[0].values.ndim == 2):
        names = columns
    targets, found = READERS[kind](parts, names, positions)
    return targets, Task(kind, (len(found),), found)


def check_kind(task: str | None) -> None:
    """Raise DataError unless `task` is None or a kind of task."""
    if task is not None and task not in READERS.keys() & TASKS.keys():
        raise DataError(f"task is {task!r}: it must be {', '.join(name for name in READERS if name in TASKS)} (--task)")


def infer_task(parts: Sequence[RawTargets], has_names: bool = False) -> str:
    """Return the kind of task of arrays of targets. Raises DataError where they leave it open.

    With `has_names` the source names classes or labels, so that whole numbers are their indices.
    """
    arrays = [squeezed(part.values) for part in parts]
    if any(holds_sequences(array) for array in arrays):
        return "multilabel"
    where = parts[0].where
    if arrays[0].ndim == 1:
        if all(array.dtype.kind != "f" for array in arrays):
            return "classification"
        values = np.concatenate([array for array in arrays if array.dtype.kind == "f"])
        if has_names and (values == np.floor(values)).all():
            return "classification"
        return infer_from_numbers(values, f"targets of {where}")
    if arrays[0].ndim != 2 or any(array.dtype.kind not in "biuf" for array in arrays):
        return "classification"  # whose reader states what is wrong
    if all(is_one_hot(array) for array in arrays):
        return "classification"
    if all(((array == 0) | (array == 1)).all() for array in arrays):
        return "multilabel"
    if any(array.dtype.kind == "f" for array in arrays):
        return "regression"
    shape = f"targets of {where} have shape {arrays[0].shape} and are whole numbers"
    raise DataError(f"{shape}; expected one label a sample, 0 and 1 for several, or --task regression")


def infer_from_numbers(values: NDArray[np.floating[Any]], what: str) -> str:
    """Return the kind of task of numbers (samples,). Raises DataError for many distinct whole numbers."""
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        return "regression"
    if (distinct := len(np.unique(values))) <= FEW:
        return "classification"
    raise DataError(
        f"{distinct:,} distinct whole numbers in {what} may be classes or numbers; say which, with "
        "--task classification or --task regression"
    )


def match_targets(targets: NDArray[Any], found: Task, wanted: Task) -> NDArray[Any]:
    """Return targets of the task `found` in the order of the names of `wanted`.

    Names that are positions, as those of arrays, are matched by their order. Raises DataError for another kind of task
    and for other names.
    """
    if found.kind != wanted.kind:
        raise DataError(f"the data are a {found.kind}; expected a {wanted.kind}, the task of the bundle")
    if found.names == wanted.names:
        return targets
    if found.kind == "classification":
        return label_indices(np.array(found.names)[targets], wanted.names, "the data's labels", DataError)
    numbered = [tuple(form.format(i + start) for i in range(len(wanted.names))) for form, start in UNNAMED]
    if found.names in numbered or (found.kind == "regression" and len(found.names) == len(wanted.names) == 1):
        return targets
    unknown = next((name for name in found.names if name not in wanted.names), None)
    if unknown is not None or (found.kind == "regression" and len(found.names) < len(wanted.names)):
        have = f"the data's targets are {', '.join(found.names[:FEW])}"
        raise DataError(f"{have}; expected {', '.join(wanted.names[:FEW])}, in any order")
    matched = np.zeros((len(targets), len(wanted.names)), targets.dtype)
    matched[:, [wanted.names.index(name) for name in found.names]] = targets
    return matched
