"""Units of an allocation: members that share a backbone are placed, replicated and batched together.

A unit runs its backbone once a batch, then the head of each member. To the planner it is one member, with the name of
the backbone and the sum of the parts' costs. Every other member is a unit of its own, with its own name and costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ripieno.allocation.problem import FREE, PlacementConstraint
from ripieno.errors import AllocationError
from ripieno.profiles.profile_sum import sum_profiles
from ripieno.types import Placement, Placements, Profile


class PlacementUnits:
    """Units of `members`; `backbones` holds the backbone of each member that shares one."""

    def __init__(self, members: Sequence[str], backbones: Mapping[str, str]) -> None:
        self._unit_of = {member: backbones.get(member) or member for member in members}
        self.members: dict[str, tuple[str, ...]] = {}
        """by unit, in the order of `members`"""
        for member, unit in self._unit_of.items():
            self.members[unit] = (*self.members.get(unit, ()), member)

    def expand(self, placements: Iterable[Placement]) -> Placements:
        """Return the placements of members from those of units."""
        return tuple(dataclasses.replace(p, member=member) for p in placements for member in self.members[p.member])

    def collapse(self, placements: Iterable[Placement]) -> Placements:
        """Return the placements of units from those of members, which differ in their member only."""
        return tuple(dict.fromkeys(dataclasses.replace(p, member=self._unit_of[p.member]) for p in placements))

    def unit_of(self, member: str) -> str:
        """Return the unit of a member."""
        return self._unit_of[member]

    def profiles(self, profiles: Mapping[str, Profile]) -> dict[str, Profile]:
        """Return the profiles of units from those of members and backbones on one kind of device.

        A unit with a part that has no profile is left out.
        """
        sums: dict[str, Profile] = {}
        for unit, members in self.members.items():
            parts = members if unit in self._unit_of else (unit, *members)
            if all(part in profiles for part in parts):
                known = [profiles[part] for part in parts]
                sums[unit] = known[0] if len(known) == 1 else sum_profiles(unit, known)
        return sums

    def pins(self, pins: Mapping[str, PlacementConstraint]) -> dict[str, PlacementConstraint]:
        """Return the pins of units. Raises AllocationError for members of one unit with different pins."""
        of_units: dict[str, PlacementConstraint] = {}
        for member, pin in pins.items():
            unit = self._unit_of[member]
            known = of_units.get(unit, FREE)
            for old, new in ((known.device, pin.device), (known.batch_size, pin.batch_size)):
                if old is not None and new is not None and old != new:
                    others = ", ".join(self.members[unit])
                    raise AllocationError(
                        f"{member} is pinned to {new}, but {others} share a backbone and one of them is pinned to "
                        f"{old}: pin them to the same device and batch size"
                    )
            of_units[unit] = PlacementConstraint(known.device or pin.device, known.batch_size or pin.batch_size)
        return of_units
