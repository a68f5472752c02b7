"""Room for a library: what it takes on disk, and which members it can lose."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.errors import BrokenFileWarning, LibraryError
from ripieno.library.library import Library
from ripieno.types import Member


@dataclass(frozen=True)
class Eviction:
    """A member that was removed because the member `by` beats it in loss and cost; `bytes` came free."""

    member: str
    by: str
    bytes: int


def bytes_of(library: Library, member: str) -> int:
    """Bytes a member takes on disk."""
    return sum(p.stat().st_size for p in library.member_path(member).iterdir() if p.is_file())


def common_costs(library: Library) -> dict[str, float]:
    """A cost of every member, all in one unit: the first that none of them lacks.

    Seconds, brought or else measured; a kind of their own that all brought (of several, the first by name); parameters.
    When each is lacked by some, all cost 0, so that the loss alone tells members apart.
    """
    members = library.members()
    device = library.usual_device()
    measured = library.profiles(device) if device else {}

    def cost(member: Member, kind: str) -> float | None:
        if kind in member.costs:
            return member.costs[kind]
        if kind == "seconds" and member.id in measured:
            return measured[member.id].cost
        return float(member.parameters) or None if kind == "parameters" else None

    for kind in ("seconds", *sorted({kind for m in members for kind in m.costs}), "parameters"):
        found = {m.id: value for m in members if (value := cost(m, kind)) is not None}
        if len(found) == len(members):
            return found
    return {m.id: 0.0 for m in members}


def dominated(library: Library, costs: Mapping[str, float] | None = None) -> dict[str, str]:
    """Members that another is better than in loss and no worse than in cost, or the reverse; with that other one.

    `costs` are by member, by default `common_costs`. A member without a cost is never dominated. The one named is the
    best by loss among those that dominate.
    """
    members = library.members()
    if costs is None:
        costs = common_costs(library)
    points = {m.id: (m.losses["valid_cross_entropy"], costs[m.id]) for m in members if m.id in costs}
    ranked = sorted(points, key=lambda i: (*points[i], i))
    found = {}
    for place, name in enumerate(ranked):
        loss, cost = points[name]
        better = [o for o in ranked[:place] if points[o][1] <= cost and points[o] != (loss, cost)]
        if better:
            found[name] = better[0]
    return found


def enforce_quota(
    library: Library, quota: int, costs: Mapping[str, float] | None = None
) -> tuple[tuple[Eviction, ...], int]:
    """Remove dominated members, the worst first, until all take at most `quota` bytes; gives them and the bytes left.

    Members of a written ensemble and of the kept front stay, and so do members that nothing dominates: then more than
    `quota` may be left. Raises LibraryError for a quota that is no positive number, and when an ensemble or the front
    cannot be read: nobody knows then which members it holds.
    """
    if isinstance(quota, bool) or not quota > 0:
        raise LibraryError(f"a quota of {quota!r} bytes: it must be above 0")
    sizes = {member: bytes_of(library, member) for member in library.ids()}
    left = sum(sizes.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrokenFileWarning)
        try:
            front = library.front()
            kept = (*library.ensembles(), *(front.ensembles if front is not None else ()))
        except BrokenFileWarning as error:
            raise LibraryError(f"cannot tell which members are in use: {error}") from error
    used = {member for ensemble in kept for member in ensemble.members}
    losers = dominated(library, costs) if left > quota else {}
    order = sorted(losers, key=lambda i: library.member(i).losses["valid_cross_entropy"], reverse=True)
    evictions = []
    for member in order:
        if left <= quota:
            break
        if member not in used:
            library.remove(member)
            left -= sizes[member]
            evictions.append(Eviction(member, losers[member], sizes[member]))
    return tuple(evictions), left
