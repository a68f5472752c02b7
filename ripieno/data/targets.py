"""Targets as sources hold them, read as those of a task: the kind of task is inferred from them, or given.

Values of one part of a source are an array (samples,) or (samples, columns) of numbers or text, or (samples,) sequences
of labels. Integers are classes; a matrix of 0 and 1 is several labels, unless each row holds one 1; fractions are
numbers to predict. In a column of a file, numbers are text or values without a purpose, so that whole numbers are
classes only where they are few. Whole numbers with two axes for each sample are masks, see `ripieno.data.mask_classes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.data.class_targets import is_one_hot, read_classes
from ripieno.data.label_targets import read_label_sets
from ripieno.data.mask_classes import is_masks, read_masks
from ripieno.data.number_targets import read_numbers
from ripieno.data.raw_targets import RawTargets, holds_sequences, squeezed
from ripieno.errors import DataError
from ripieno.tasks.registry import DEFAULT_TASK, TASKS, kind_of
from ripieno.types import Task

FEW = 20
"""Distinct whole numbers of a column that are read as classes, at most."""


class TargetReader(Protocol):
    """Read targets of one kind of task; return them as in `Dataset`, with the names of the last axis.

    `names` are those of the classes, labels or targets where the source has them, `columns` those of the columns that
    hold the targets. With `positions`, whole numbers are indices into `names`. Raises DataError, in one line that names
    the sample, for what cannot be read.
    """

    def __call__(
        self, parts: Sequence[RawTargets], names: Sequence[str] | None, columns: Sequence[str], positions: bool
    ) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
        """Read the targets of all parts of a source."""
        ...


SEGMENTATION = "segmentation"
READERS: Mapping[str, TargetReader] = {
    "classification": read_classes,
    "multilabel": read_label_sets,
    "regression": read_numbers,
}
"""Readers of targets, by kind of task; those of masks are read by `read_masks`."""
KINDS = (*READERS, SEGMENTATION)
"""Kinds of tasks whose targets can be read."""


def read_targets(
    parts: Sequence[RawTargets],
    names: Sequence[str] | None,
    notes: list[str],
    *,
    task: str | None = None,
    positions: bool = False,
    columns: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> tuple[list[NDArray[Any]], Task]:
    """Read the targets of all parts of a source, and return them with their task.

    `names` are those of classes or labels, where the source defines them; `columns` those of the columns of targets,
    where they have any; `ignore` values and classes of masks whose pixels are ignored. Without `task`, a kind of task,
    it is inferred. Raises DataError, in one line, for targets that cannot be used.
    """
    kind = infer_task(parts, names is not None) if task is None else task
    if kind not in KINDS:
        raise DataError(f"task is {kind!r}: targets are those of {', '.join(KINDS)} (--task)")
    if task is None and kind != DEFAULT_TASK:
        notes.append(f"targets of {parts[0].where}: read as {kind}; --task sets another kind")
    if kind == SEGMENTATION:
        masks, found = read_masks(parts, names, ignore, notes)
        return [*masks], Task(kind, (*masks[0].shape[1:], len(found)), found)
    check_no_ignore(ignore, parts[0].where)
    targets, found = READERS[kind](parts, names, columns, positions)
    return targets, Task(kind, (len(found),), found)


def check_kind(task: str | None) -> None:
    """Raise DataError unless `task` is None or a kind of task."""
    if task is not None and task not in TASKS:
        raise DataError(f"task is {task!r}: it must be {', '.join(TASKS)} (--task)")


def check_no_ignore(ignore: Sequence[str], where: str) -> None:
    """Raise DataError where values of masks are to be ignored, but the targets of `where` are no masks."""
    if ignore:
        raise DataError(f"ignore {ignore[0]!r} applies to masks, which {where} do not have; leave ignore out")


def infer_task(parts: Sequence[RawTargets], has_names: bool = False) -> str:
    """Return the kind of task of arrays of targets. Raises DataError where they leave it open.

    With `has_names` the source names classes or labels, so that whole numbers are their indices.
    """
    arrays = [squeezed(part.values) for part in parts]
    if all(is_masks(array) for array in arrays):
        return SEGMENTATION
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

    Raises DataError for another kind of task and for other names.
    """
    if found.kind != wanted.kind:
        raise DataError(f"the task of the data is {found.kind}; expected {wanted.kind}, the task of the bundle")
    if found.names == wanted.names:
        return targets
    return kind_of(wanted).match_targets(targets, found.names, wanted, DataError)
