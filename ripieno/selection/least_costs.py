"""Least cost of a number of members, some of which share parts that are paid once.

Theory of operation. Without shared parts, the k cheapest members cost least. With them, each group (the members of one
part) is a choice of its own: its j cheapest members and, if j > 0, its part. `least_totals` adds group after group: the
least cost of k members is the minimum over j of that of k - j members of the groups before and j of the new one. Kinds
of cost are counted one by one and may take different members, so with several kinds the result is a lower bound.
"""

from __future__ import annotations

import numpy as np

from ripieno.types import Floats, Ints


def least_totals(own: Floats, groups: Ints | None, shared: Floats, most: int) -> Floats:
    """Return the least cost (count + 1, kinds) of 0, 1, ... members; count is the smaller of `most` and all.

    `own` (members, kinds) are costs without shared parts, `groups` (members,) are rows of `shared` (groups, kinds), -1
    for members that share no part; None: no member shares one.
    """
    if groups is None:
        return _least_sums(own, most)
    totals = _least_sums(own[groups < 0], most)
    for group in np.unique(groups[groups >= 0]):
        sums = _least_sums(own[groups == group], most)
        sums[1:] += shared[group]
        totals = _join(totals, sums, most)
    return totals


def least_totals_with_each(own: Floats, groups: Ints | None, shared: Floats, more: int) -> Floats:
    """Return the least cost (members, kinds) of each member with `more` others; infinite where they are too few."""
    if groups is None:
        return _with_cheapest(own, _least_sums(own, more + 1), more)
    least = np.full_like(own, np.inf)
    for group in np.unique(groups):
        here = groups == group
        # with one member of the group its part is paid, so the others of the group cost their own part only
        others = least_totals(own[~here], groups[~here], shared, more)
        sums = _least_sums(own[here], more + 1)
        for count, rest in enumerate(others):
            least[here] = np.minimum(least[here], _with_cheapest(own[here], sums, more - count) + rest)
        if group >= 0:
            least[here] += shared[group]
    return least


def _least_sums(own: Floats, most: int) -> Floats:
    """Return the sums (count + 1, kinds) of the 0, 1, ..., `most` cheapest, for each kind."""
    sums = np.cumsum(np.sort(own, axis=0), axis=0)[:most]
    return np.concatenate([np.zeros((1, own.shape[1])), sums])


def _with_cheapest(own: Floats, sums: Floats, more: int) -> Floats:
    """Return the cost of each member with the `more` cheapest others, from the `sums` of all."""
    if more + 1 >= len(sums):
        return np.full_like(own, np.inf)
    # a member that is itself among the cheapest is replaced there by the next cheapest
    costs: Floats = np.maximum(own + sums[more], sums[more + 1])
    return costs


def _join(first: Floats, second: Floats, most: int) -> Floats:
    """Return the least cost of 0, 1, ..., `most` members, some counted in `first` and the rest in `second`."""
    count = min(most, len(first) + len(second) - 2)
    totals = np.full((count + 1, first.shape[1]), np.inf)
    for taken, cost in enumerate(second[: count + 1]):
        fits = min(len(first), count + 1 - taken)
        totals[taken : taken + fits] = np.minimum(totals[taken : taken + fits], first[:fits] + cost)
    return totals
