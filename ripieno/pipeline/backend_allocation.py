"""Joint choice of backends and placements: a backend decides a member's cost, its worker decides how it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ripieno.library import BackendChoice, Library
from ripieno.pipeline.backend_selection import BackendSelector
from ripieno.pipeline.costs import profile_members
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.types import Allocation, Device, Ensemble, Profile

BackendByDevice = Mapping[str, Mapping[str, str]]
"""Backend by member name and device name; the bundle's default backend applies to absent entries."""
BATCH = {"cpu": 16, "cuda": 64}
"""Batch size at which backends are compared before the plan has chosen one."""


def allocate_with_backends(
    selector: BackendSelector,
    place: Callable[[BackendByDevice], Allocation],
    ensemble: Ensemble,
    devices: Sequence[Device],
    threads: Mapping[str, int],
    units: Mapping[str, str],
    progress: ProgressFunction = no_progress,
) -> tuple[Allocation, tuple[BackendChoice, ...]]:
    """Return an allocation, and the backend choice of each member on each device it is placed on.

    Backends are chosen for `threads`, the threads that a worker of each device most likely has, and `place` plans with
    them. If the plan's workers differ, backends are chosen again; if any backend changes, `place` is called once more.
    `units` holds the unit of each member: the members of a unit run with one backend on a device, the reference where
    their choices differ.
    """
    pairs = [(member, device) for device in devices for member in ensemble.members]
    choices = []
    for done, (member, device) in enumerate(pairs):
        progress(f"comparing backends on {device.name}", done, len(pairs))
        choices.append(selector.select(member, device, threads[device.name], BATCH[device.type]))
    progress("comparing backends", len(pairs), len(pairs))
    choices = _one_backend_per_unit(selector, choices, units)
    allocation = place(backends_by_device(choices))
    placed = _as_placed(selector, allocation, choices, units)
    if any(choice.backend != old.backend for choice, old in placed):
        again = {(c.member, c.device): c for c in (*choices, *(choice for choice, _ in placed))}
        allocation = place(backends_by_device(list(again.values())))
        placed = _as_placed(selector, allocation, list(again.values()), units)
    return allocation, tuple(choice for choice, _ in placed)


def backends_by_device(choices: Sequence[BackendChoice]) -> dict[str, dict[str, str]]:
    """Return the backends of `choices` by member and device."""
    chosen: dict[str, dict[str, str]] = {}
    for choice in choices:
        chosen.setdefault(choice.member, {})[choice.device] = choice.backend
    return chosen


def profiles_for(
    library: Library,
    members: Sequence[str],
    device: Device,
    chosen: BackendByDevice,
    backend: str,
    *,
    progress: ProgressFunction = no_progress,
) -> dict[str, Profile]:
    """Return profiles of `members` on `device`, by the backend in `chosen` or else `backend`; measure missing ones."""
    groups: dict[str, list[str]] = {}
    for member in members:
        groups.setdefault(chosen.get(member, {}).get(device.name, backend), []).append(member)
    profiles: dict[str, Profile] = {}
    for name, group in groups.items():
        profiles |= profile_members(library, group, device, name, progress=progress)
    return profiles


def _one_backend_per_unit(
    selector: BackendSelector, choices: Sequence[BackendChoice], units: Mapping[str, str]
) -> list[BackendChoice]:
    """Replace the choices of members of one unit by the reference on devices where they differ."""
    backends: dict[tuple[str, str], set[str]] = {}
    for choice in choices:
        backends.setdefault((units[choice.member], choice.device), set()).add(choice.backend)
    return [
        choice if len(backends[units[choice.member], choice.device]) == 1 else selector.select_reference(choice)
        for choice in choices
    ]


def _as_placed(
    selector: BackendSelector, allocation: Allocation, choices: Sequence[BackendChoice], units: Mapping[str, str]
) -> list[tuple[BackendChoice, BackendChoice]]:
    """Return pairs: a choice for the threads and batch size of the allocation's worker, and the planned choice."""
    planned = {(choice.member, choice.device): choice for choice in choices}
    pairs = []
    for device in allocation.devices:
        placements = [p for p in allocation.placements if p.device == device.name]
        workers = len({p.lane for p in placements})
        for member in dict.fromkeys(p.member for p in placements):
            old = planned[member, device.name]
            # on a CPU the batch size hardly matters; on a GPU the threads do not
            threads = max(1, len(device.cores) // workers) if device.type == "cpu" and device.cores else old.threads
            batch = max(p.batch_size for p in placements if p.member == member)
            same = threads == old.threads and (device.type == "cpu" or batch == old.batch_size)
            pairs.append((old if same else selector.select(member, device, threads, batch), old))
    agreed = _one_backend_per_unit(selector, [choice for choice, _ in pairs], units)
    return [(choice, old) for choice, (_, old) in zip(agreed, pairs, strict=True)]
