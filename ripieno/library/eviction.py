"""Eviction of members: disk usage of a library, and the members that it can lose."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from ripieno.errors import BrokenFileWarning, LibraryError
from ripieno.library.cost_table import CostTable, read_cost_table
from ripieno.library.library import Library


@dataclass(frozen=True)
class Eviction:
    """A removed member, dominated by the member `by` in loss and cost; `bytes` were freed."""

    member: str
    by: str
    bytes: int


def bytes_of(library: Library, member: str) -> int:
    """Return the bytes of a member on disk."""
    return sum(p.stat().st_size for p in library.member_path(member).iterdir() if p.is_file())


def common_costs(library: Library) -> tuple[str, CostTable]:
    """Return a kind of cost and the costs of every member in it: the first kind that all members have.

    The kinds are seconds, imported or measured; imported kinds, by name; parameters. When no kind is common to all, all
    costs are 0, so that only the loss distinguishes members.
    """
    members = library.members()
    device = library.usual_device()
    for kind in ("seconds", *sorted({kind for m in members for kind in m.costs}), "parameters"):
        table = read_cost_table(library, (kind,), device, members)
        if len(table.own) == len(members):
            return kind, table
    return "seconds", CostTable({m.id: {"seconds": 0.0} for m in members}, {}, {})


def dominated(library: Library, costs: Mapping[str, float] | None = None) -> dict[str, str]:
    """Return the members that another one dominates (better in loss or cost, no worse in the other), with that one.

    `costs` are by member, by default `common_costs`. A member without a cost is never dominated. One that shares a
    backbone may cost its own part only, so it is dominated by members that cost no more than that, or share the
    backbone. The dominating member returned is the best by loss.
    """
    members = library.members()
    if costs is None:
        kind, table = common_costs(library)
    else:
        kind, table = "seconds", CostTable({m: {"seconds": cost} for m, cost in costs.items()}, {}, {})
    alone = table.alone(kind)

    def never_dearer(other: str, member: str) -> bool:
        same = table.backbones.get(other) == table.backbones.get(member)
        return (table.own[other][kind] if same else alone[other]) <= table.own[member][kind]

    points = {m.id: (m.loss, alone[m.id]) for m in members if m.id in alone}
    ranked = sorted(points, key=lambda i: (*points[i], i))
    found = {}
    for place, name in enumerate(ranked):
        better = [o for o in ranked[:place] if points[o] != points[name] and never_dearer(o, name)]
        if better:
            found[name] = better[0]
    return found


def enforce_quota(
    library: Library, quota: int, costs: Mapping[str, float] | None = None
) -> tuple[tuple[Eviction, ...], int]:
    """Remove dominated members, the worst first, until all take at most `quota` bytes; return them and the bytes left.

    Members of a stored ensemble or of the stored front are kept, and so are members that are not dominated: then more
    than `quota` may be left. Raises LibraryError for a quota that is no positive number, and when an ensemble or the
    front cannot be read, because its members are then unknown.
    """
    if isinstance(quota, bool) or not quota > 0:
        raise LibraryError(f"the quota is {quota!r} bytes, must be above 0")
    sizes = {member: bytes_of(library, member) for member in library.ids()}
    left = sum(sizes.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error", BrokenFileWarning)
        try:
            front = library.front()
            kept = (*library.ensembles(), *(front.ensembles if front is not None else ()))
        except BrokenFileWarning as error:
            raise LibraryError(f"cannot determine the members in use: {error}") from error
    used = {member for ensemble in kept for member in ensemble.members}
    losers = dominated(library, costs) if left > quota else {}
    order = sorted(losers, key=lambda i: library.member(i).loss, reverse=True)
    evictions = []
    for member in order:
        if left <= quota:
            break
        if member not in used:
            library.remove(member)
            left -= sizes[member]
            evictions.append(Eviction(member, losers[member], sizes[member]))
    return tuple(evictions), left
