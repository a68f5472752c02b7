"""Assignment of samples to train, valid and test: seeded, and stratified as the task says, such as by class.

A validation or test split of the source is kept. The other samples are divided among the remaining splits by their
ratios: usually all three, train and valid for a source with a test split.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.blocks import select_rows
from ripieno.data.samples import UNASSIGNED
from ripieno.errors import DataError
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, Ints, Split, Task

SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "development": "valid",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test",
}  # fmt: skip
"""Common names of the splits. `eval` is a test split, because its samples may be reserved for the final evaluation."""
_ABOUT = "(?:set|split|data|images?|imgs?|pictures?|photos?|folder)*"
_NAME = re.compile(f"{_ABOUT}({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))}){_ABOUT}")

RATIOS = (0.72, 0.08, 0.20)
"""Shares of train, valid and test where none are given: those of appendix A.1 of the paper."""
FEWEST = 20
"""Images of a stratum, such as a class, that validation gets at least, where none of the shares are given."""
ENOUGH = 4
"""`FEWEST` is a share of a stratum at most as large as one of this number."""
TWICE = 0.05
"""Share of a split's images above which a note reports duplicates in another split."""


def split_of(name: str) -> Split | None:
    """Return the split that `name` names; None where it names none.

    >>> split_of("training_set"), split_of("Images-Val"), split_of("test2017"), split_of("trains")
    ('train', 'valid', 'test', None)
    """
    found = _NAME.fullmatch(re.sub(r"[\W\d_]", "", name.lower()))
    return SPLIT_WORDS[found[1]] if found else None


def splits_of(names: Iterable[str]) -> dict[str, Split | None]:
    """Apply `split_of` to every name; `eval` is the validation split when another folder or array is named test."""
    found = {name: split_of(name) for name in names}
    tests = [name for name, split in found.items() if split == "test"]
    others = [name for name in tests if "eval" in name.lower()]
    if len(tests) > len(others) and "valid" not in found.values():
        found |= dict.fromkeys(others, "valid")
    return found


def check_ratios(ratios: Sequence[float]) -> None:
    """Raise DataError unless these are three positive numbers that sum to at most 1, or to 100 (percent)."""
    if len(ratios) != len(SPLITS) or not all(math.isfinite(r) and r > 0 for r in ratios):
        expected = "three positive numbers, for train, valid and test, such as 0.72, 0.08, 0.20"
        raise DataError(f"split is {tuple(ratios)}; expected {expected}")
    if sum(ratios) > 1 + 1e-6 and not math.isclose(sum(ratios), 100, abs_tol=1e-6):
        raise DataError(
            f"split is {tuple(ratios)}, which sums to {sum(ratios):g}; expected a sum of 1, such as 0.72, 0.08, 0.20"
        )


def check_sizes(targets: NDArray[Any], given: NDArray[np.int8], task: Task, for_training: bool = True) -> None:
    """Raise DataError unless there are targets to train on, and enough for every split that ripieno makes.

    `given` is as in `Samples.fixed_split`. Data that are not `for_training` need enough samples alone. To be called
    before long work: the splits are checked again when made.
    """
    kind, free = kind_of(task), select_rows(targets, given == UNASSIGNED)
    if for_training:
        kind.check_sizes(free, task, _names(splits_to_make(given)), DataError)
    kind.check_task(task, "the data", DataError)
    check_count(given)
    if for_training:
        kind.check_training(free, task, "the data", DataError)


def check_count(given: NDArray[np.int8]) -> None:
    """Raise DataError for too few samples for one in every split that ripieno makes."""
    makes, count = splits_to_make(given), int((given == UNASSIGNED).sum())
    if count < len(makes):
        names = ", ".join(_names(makes))
        raise DataError(f"there are {count} samples for {names}; expected at least {len(makes)}; add some")


def split_samples(
    strata: Ints | None, given: NDArray[np.int8], ratios: Sequence[float] | None, seed: int
) -> NDArray[np.uint8]:
    """Assign every sample a split, as an index into `SPLITS`, (samples,).

    `strata` (samples,) are divided each by itself, with at least one sample in each split where there are enough; None:
    all samples together. Each stratum is shuffled by its own generator, so that its split depends on its samples and
    `seed` only. Without `ratios` they are `RATIOS`, but validation gets at least `FEWEST` samples of a stratum with
    `ENOUGH` times as many. Raises DataError as `check_ratios` and `check_count`.
    """
    check_ratios(RATIOS if ratios is None else ratios)
    check_count(given)
    makes = splits_to_make(given)
    split = np.where(given == UNASSIGNED, 0, given).astype(np.uint8)
    strata = np.zeros(len(given), np.int64) if strata is None else strata
    free = given == UNASSIGNED
    for stratum in np.unique(strata[free]):
        rows = np.flatnonzero((strata == stratum) & free)
        shuffled = np.random.default_rng([seed, int(stratum)]).permutation(rows)
        split[shuffled] = np.repeat(np.array(makes, np.uint8), split_counts(len(rows), makes, ratios))
    return split


def split_counts(samples: int, makes: Sequence[int], ratios: Sequence[float] | None) -> list[int]:
    """Return the number of samples of a stratum for each of the splits `makes`; few samples go to the first splits."""
    if samples < len(makes):
        return [int(i < samples) for i in range(len(makes))]
    counts = shares(samples, [(ratios or RATIOS)[s] for s in makes])
    if ratios is not None or 1 not in makes or samples < ENOUGH * FEWEST or counts[makes.index(1)] >= FEWEST:
        return counts
    others = [s for s in makes if s != 1]
    rest = dict(zip(others, shares(samples - FEWEST, [RATIOS[s] for s in others]), strict=True))
    return [FEWEST if s == 1 else rest[s] for s in makes]


def shares(samples: int, ratios: Sequence[float]) -> list[int]:
    """Divide `samples` by `ratios` with the largest remainder method, at least one each; the sum is `samples`."""
    assert samples >= len(ratios)
    exact = [samples * r / sum(ratios) for r in ratios]
    counts = [int(e) for e in exact]
    by_remainder = sorted(range(len(ratios)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: samples - sum(counts)]:
        counts[i] += 1
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1
    return counts


def without_valid(split: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `split` with the samples of the validation split in the training split, as folds need it."""
    return np.where(split == SPLITS.index("valid"), np.uint8(SPLITS.index("train")), split)


def duplicate_notes(
    images: NDArray[Any], split: NDArray[np.uint8], folds: NDArray[np.uint8] | None = None
) -> list[str]:
    """Return notes on images with duplicates, pixel by pixel, in an earlier split; most data sets have few.

    With `folds`, as in `Dataset`, also on those with duplicates in another fold.
    """
    hashes = (hashlib.blake2b(image.tobytes(), digest_size=8) for image in images)
    digests = np.array([int.from_bytes(one.digest()) for one in hashes], np.uint64)
    notes = []
    for later, earlier in ((1, "training"), (2, "training or validation")):
        own = digests[split == later]
        again = int(np.isin(own, digests[split < later]).sum())
        if again > TWICE * len(own):
            duplicates = f"{again:,} of {len(own):,} {SPLITS[later]} samples are also {earlier} samples"
            notes.append(f"{duplicates}; scores on the {SPLITS[later]} split say little about new samples")
    if folds is not None:
        train = digests[split == 0]
        held = folds[split == 0]
        pairs = np.unique(np.stack([train, held.astype(np.uint64)]), axis=1)
        several = np.unique(pairs[0], return_counts=True)
        again = int(np.isin(train, several[0][several[1] > 1]).sum())
        if again > TWICE * len(train):
            duplicates = f"{again:,} of {len(train):,} training samples are also in another fold"
            notes.append(f"{duplicates}; validation scores say little about new samples")
    return notes


def splits_to_make(given: NDArray[np.int8]) -> list[int]:
    """Return the splits that ripieno makes: train always, valid and test where the source has none."""
    fixed = set(np.unique(given).tolist())
    return [0, *(i for i in range(1, len(SPLITS)) if i not in fixed)]


def _names(splits: Sequence[int]) -> list[Split]:
    return [SPLITS[i] for i in splits]
