"""Splits and folds by a column of a table: in the order of its values, or by groups that stay together.

A date or a number orders the samples: those of training come before those of validation, and these before those of
test. A category groups them: all samples of a group are in one split, and in one fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.raw_columns import SplitBy, day_text
from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import check_ratios, split_counts, splits_to_make
from ripieno.errors import DataError
from ripieno.types import SPLITS, Ints


def split_by_column(
    by: SplitBy, strata: Ints | None, given: NDArray[np.int8], ratios: Sequence[float] | None, seed: int
) -> NDArray[np.uint8]:
    """Assign every sample a split by the column `by`; arguments and result are those of `split_samples`.

    Samples of one value are in one split, so that shares are met as nearly as its values allow. Raises DataError where
    the column has fewer values than there are splits to make.
    """
    if ratios is not None:
        check_ratios(ratios)
    makes, rows = splits_to_make(given), np.flatnonzero(given == UNASSIGNED)
    distinct = len(np.unique(by.values[rows]))
    if distinct < len(makes):
        names = ", ".join(SPLITS[i] for i in makes)
        held = f"column {by.name!r} has {distinct} values for the splits {names}"
        raise DataError(f"{held}; expected at least {len(makes)}; split by another column")
    split = np.where(given == UNASSIGNED, 0, given).astype(np.uint8)
    counts = split_counts(len(rows), makes, ratios)
    if by.is_order:
        split[rows] = np.array(makes, np.uint8)[_cut(by.values[rows], counts)]
    else:
        own = None if strata is None else strata[rows]
        split[rows] = np.array(makes, np.uint8)[assign_groups(by.values[rows], own, counts, seed)]
    return split


def split_by_note(by: SplitBy, split: NDArray[np.uint8]) -> str:
    """Return a line that describes a split by a column."""
    if not by.is_order:
        return f"column {by.name!r} splits the samples: {len(np.unique(by.values)):,} groups, each in one split"
    last = [by.values[split == number].max() for number in range(len(SPLITS) - 1)]
    ends = [day_text(end) if by.kind == "date" else f"{end:.6g}" for end in last]
    line = f"column {by.name!r} splits the samples: train to {ends[0]}, valid to {ends[1]}, test after"
    is_whole = by.kind == "number" and (by.values == np.floor(by.values)).all()
    return f"{line}; --column {by.name}=category splits by groups" if is_whole else line


def assign_groups(groups: Ints, strata: Ints | None, counts: Sequence[int], seed: int) -> Ints:
    """Assign each sample one of several parts of `counts` samples, all samples of a group the same: (samples,).

    Groups are shuffled by `seed` and assigned from the largest to the smallest, each to the part that lacks the most
    samples of its strata; every part gets a group. There are at least as many groups as parts.
    """
    _, number = np.unique(groups, return_inverse=True)
    _, stratum = np.unique(np.zeros(len(groups)) if strata is None else strata, return_inverse=True)
    table = np.zeros((number.max() + 1, stratum.max() + 1))
    np.add.at(table, (number, stratum), 1)
    lacking = np.outer(np.array(counts) / sum(counts), table.sum(axis=0))  # (parts, strata)
    shuffled = np.random.default_rng([seed, 2]).permutation(len(table))
    order = shuffled[np.argsort(-table.sum(axis=1)[shuffled], kind="stable")]
    part_of = np.empty(len(table), np.int64)
    empty = set(range(len(counts)))
    for place, group in enumerate(order):
        scores = lacking @ table[group]
        if len(order) - place <= len(empty):
            scores[[part for part in range(len(counts)) if part not in empty]] = -np.inf
        part = int(scores.argmax())
        part_of[group] = part
        lacking[part] -= table[group]
        empty.discard(part)
    return part_of[number]


def _cut(values: NDArray[Any], counts: Sequence[int]) -> Ints:
    """Return the part of each value (samples,): the least `counts[0]` are in part 0, and so on, equal ones together."""
    ordered = np.sort(values)
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1  # where a part may begin
    ends = np.cumsum(counts)[:-1]
    parts = np.zeros(len(values), np.int64)
    first = 0
    for number, end in enumerate(ends):
        last = len(starts) - (len(ends) - number)  # leaves a value for each part that follows
        chosen = first + int(np.abs(starts[first : last + 1] - end).argmin())
        parts += values >= ordered[starts[chosen]]
        first = chosen + 1
    return parts
