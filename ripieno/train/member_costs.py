"""Costs of a member that the worker measures or counts after training, because a search asks for them."""

from __future__ import annotations

from collections.abc import Collection

from ripieno.backends.network_part import parts_of
from ripieno.library import Library
from ripieno.library.cost_table import COUNTED, MEASURED, backbone_cost, own_cost, profile_cost
from ripieno.profiles.devices import local_devices
from ripieno.profiles.profiler import model_file, profile
from ripieno.types import Member

KINDS = (*MEASURED, *COUNTED)
"""Costs that can be measured or counted."""
REPEATS = 3
"""Measurements of a member, each in a process of its own: the least counts, as other trials run meanwhile."""
WINDOW, MOST_SECONDS = 0.05, 2.0
"""Seconds of a window of a measurement, and of all its batch sizes; see `profile`."""


def measure_costs(library: Library, member: Member, kinds: Collection[str], device: str) -> dict[str, float]:
    """Return the costs of `kinds` of a member alone, with its backbone, on a device of this machine.

    `device` is a name in torch, such as `cuda:0`. The member is exported to ONNX. Profiles of the library are neither
    read nor written. Raises EngineError or LibraryError for a member that cannot be exported or run.
    """
    path = model_file(library, member, "onnx")
    costs: dict[str, float] = {}
    for kind in (kind for kind in COUNTED if kind in kinds):
        found = [own_cost(library, member, None, kind)]
        found += [backbone_cost(library, member.backbone, None, kind)] if member.backbone else []
        known = [cost for cost in found if cost is not None]
        costs |= {kind: sum(known)} if len(known) == len(found) else {}
    timed = [kind for kind in MEASURED if kind in kinds]
    if not timed:
        return costs
    target = local_devices(device)[0]
    sizes = (1,) if timed == ["latency"] else None
    for _ in range(REPEATS):
        profiles = [
            profile(
                path,
                member,
                target,
                batch_sizes=sizes,
                window=WINDOW,
                max_seconds=MOST_SECONDS,
                trusted=library.trusted,
                part=part,
                energy="joules" in timed,
            )
            for part in parts_of(member).values()
        ]
        for kind in timed:
            total = sum(profile_cost(one, kind) or 0.0 for one in profiles)
            costs[kind] = min(total, costs.get(kind, total))
    return costs
