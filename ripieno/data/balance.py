"""Checks and notes on the balance of targets, by kind of task: rare classes and labels, and those a split lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import check_class_sizes, check_count
from ripieno.errors import DataError
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, Task

RARE = 10
"""Samples of a label below which a note reports it."""


def check_sizes(targets: NDArray[Any], given: NDArray[np.int8], task: Task) -> None:
    """Raise DataError unless there are targets to train on, and enough for every split that ripieno makes.

    `given` is as in `Samples.fixed_split`. To be called before long work: the splits are checked again when made.
    """
    if task.kind == "classification":
        check_class_sizes(targets, given, task.names)
    kind_of(task).check_task(task, "the data", DataError)
    check_count(given)
    kind_of(task).check_training(targets[given == UNASSIGNED], task, "the data", DataError)


def balance_notes(targets: NDArray[Any], split: NDArray[np.uint8], task: Task) -> list[str]:
    """Return notes on the balance of the targets of all samples and of each split; targets are as in `Dataset`."""
    return _NOTES[task.kind](targets, split, task.names)


def _of_classes(labels: NDArray[Any], split: NDArray[np.uint8], classes: Sequence[str]) -> list[str]:
    """Return notes on imbalance, and on classes that a split of the source lacks."""
    notes = []
    counts = np.bincount(labels, minlength=len(classes))
    if counts.max() >= 3 * counts.min():
        advice = "consider select --loss macro-f1, which weights all classes equally"
        notes.append(f"classes hold {counts.min():,} to {counts.max():,} images; {advice}")
    for i, name in enumerate(SPLITS[1:], start=1):
        absent = np.flatnonzero(np.bincount(labels[split == i], minlength=len(classes)) == 0)
        if len(absent):
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            notes.append(f"the source's {name} split has no image of class {classes[absent[0]]!r}{more}")
    return notes


def _of_labels(targets: NDArray[Any], split: NDArray[np.uint8], labels: Sequence[str]) -> list[str]:
    """Return notes on rare labels, and on labels that the validation or test split lacks."""
    notes = []
    counts = targets.sum(axis=0)
    rare = np.flatnonzero(counts < RARE)
    if len(rare):
        more = f" (so do {len(rare) - 1} more labels)" if len(rare) > 1 else ""
        notes.append(f"label {labels[rare[0]]!r} has {counts[rare[0]]:,} samples{more}; scores of it say little")
    for i, name in enumerate(SPLITS[1:], start=1):
        absent = np.flatnonzero(targets[split == i].sum(axis=0) == 0)
        if len(absent):
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            notes.append(f"the {name} split has no sample of label {labels[absent[0]]!r}{more}")
    return notes


def _of_numbers(targets: NDArray[Any], split: NDArray[np.uint8], names: Sequence[str]) -> list[str]:
    """Return notes on targets of the other splits that are beyond the range of the training split."""
    notes = []
    train = targets[split == 0]
    low, high = train.min(axis=0), train.max(axis=0)
    for i, name in enumerate(SPLITS[1:], start=1):
        beyond = (targets[split == i] < low) | (targets[split == i] > high)
        shares = beyond.mean(axis=0) if len(beyond) else np.zeros(len(names))
        if shares.max() > 0.1:
            worst = int(shares.argmax())
            span = f"{low[worst]:g} to {high[worst]:g}, the range of the training samples"
            notes.append(f"{shares[worst]:.0%} of {names[worst]!r} in the {name} split are outside {span}")
    return notes


_NOTES: Mapping[str, Callable[[NDArray[Any], NDArray[np.uint8], Sequence[str]], list[str]]] = {
    "classification": _of_classes,
    "multilabel": _of_labels,
    "regression": _of_numbers,
}
