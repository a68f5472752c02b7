"""Folds of the training samples, by which a data set too small for a validation split is validated.

Each training sample is in one fold. A trial has a model for each fold, trained on the samples of all other folds, which
predicts those of its own; together they predict every training sample, out of fold. See `ripieno.train.folds`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.split_by import assign_groups
from ripieno.errors import DataError
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, Dataset, Folds, Ints, Task

FEWEST, MOST = 2, 20
"""Fewest and most folds."""
FOLDS = 5
"""Folds of a data set for which the user gives no number. More are no better and take longer; where classes have fewer
samples than there are folds, they are worse: each fold lacks the classes that it holds out (benchmarks/tasks/folds.py).
"""
NO_FOLD = 255
"""Fold of samples that are not trained on."""


def check_fold_option(folds: Folds) -> None:
    """Raise DataError unless this is `auto`, 0 or a possible number of folds."""
    is_count = isinstance(folds, int) and not isinstance(folds, bool)
    if folds != "auto" and not (is_count and (folds == 0 or FEWEST <= folds <= MOST)):
        raise DataError(f"folds is {folds!r}: it must be auto, 0 for none, or {FEWEST} to {MOST}")


def choose_folds(split: NDArray[np.uint8], given: Collection[int], enough: int) -> int:
    """Return the number of folds that suits `split`, as in `Dataset`; 0 where it has `enough` validation samples.

    A validation split that the source has, an index in `given`, is kept.
    """
    valid = SPLITS.index("valid")
    if valid in given or np.count_nonzero(split == valid) >= enough:
        return 0
    samples = int(np.count_nonzero(split != SPLITS.index("test")))
    return min(samples, FOLDS)


def make_folds(
    targets: NDArray[Any], split: NDArray[np.uint8], task: Task, count: int, seed: int, groups: Ints | None = None
) -> NDArray[np.uint8]:
    """Divide the training samples into `count` folds, stratified as splits are: (samples,), as in `Dataset`.

    Folds differ by at most one sample, also in each stratum. Each stratum is shuffled by `seed`. With `groups`
    (samples,), all samples of a group are in one fold. Raises DataError when there are too few samples or groups, or
    when no model can be trained without the samples of a fold; a class of pixels may be in one fold alone.
    """
    kind, train = kind_of(task), np.flatnonzero(split == SPLITS.index("train"))
    held = len(train) if groups is None else len(np.unique(groups[train]))
    if held < count:
        noun = "samples" if groups is None else "groups"
        raise DataError(f"there are {held} training {noun} for {count} folds; expected at least one a fold")
    strata = kind.strata(targets)
    strata = np.zeros(len(targets), np.int64) if strata is None else strata
    folds = np.full(len(targets), NO_FOLD, np.uint8)
    if groups is None:
        folds[_shuffled(train, strata, seed)] = np.arange(len(train)) % count
    else:
        folds[train] = assign_groups(groups[train], strata[train], [len(train)] * count, seed)
    for fold in range(count) if not kind.is_pixelwise else ():
        where = f"the data without fold {fold + 1} of {count}"
        kind.check_training(np.asarray(targets[train[folds[train] != fold]]), task, where, DataError)
    return folds


def _shuffled(rows: NDArray[np.int64], strata: Ints, seed: int) -> NDArray[np.int64]:
    """Return `rows` stratum by stratum, each shuffled by a generator of its own."""
    parts = []
    for stratum in np.unique(strata[rows]):
        generator = np.random.default_rng([seed, int(stratum), 1])  # not those of splits
        parts.append(generator.permutation(rows[strata[rows] == stratum]))
    return np.concatenate(parts)


def fold_dataset(dataset: Dataset, fold: int) -> Dataset:
    """Return the data set as the model of `fold` sees it: the samples of `fold` are its validation split.

    The moments of the inputs remain those of all training samples; targets have no part in them.
    """
    assert dataset.folds is not None
    held = (dataset.folds == fold) & (dataset.split == SPLITS.index("train"))
    split = np.where(held, np.uint8(SPLITS.index("valid")), dataset.split)
    return dataclasses.replace(dataset, split=split, folds=None)


def has_form(folds: NDArray[Any], split: NDArray[np.uint8]) -> bool:
    """Return whether `folds` have the shape and the type of the split."""
    return folds.shape == split.shape and folds.dtype == split.dtype


def check_folds(dataset: Dataset, where: str) -> None:
    """Raise DataError, which begins with `where`, unless the folds of `dataset` divide its training samples."""
    assert dataset.folds is not None
    if (dataset.split == SPLITS.index("valid")).any():
        raise DataError(f"{where}: it has folds and a validation split; prepare it again")
    found, count = np.unique(dataset.folds[dataset.rows("train")]), dataset.fold_count
    if not FEWEST <= count <= MOST or len(found) != count:
        expected = f"expected {FEWEST} to {MOST}, each with a sample"
        raise DataError(
            f"{where}: it has {count} folds, {len(found)} of them with samples, {expected}; prepare it again"
        )


def validation_words(folds: int) -> str:
    """Describe the validation of a data set with `folds` folds: "out-of-fold, 5 folds"."""
    return f"out-of-fold, {folds} folds"
