"""Backends and places depend on each other: what a member is run by decides what it costs, its lane how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ripieno.library import BackendChoice, Library
from ripieno.pipeline.backend_selection import BackendSelector
from ripieno.pipeline.costs import profile_members
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.types import Allocation, Device, Ensemble, Profile

BackendByDevice = Mapping[str, Mapping[str, str]]
"""Backend by member and device, both by name; a bundle's own where it says nothing."""
BATCH = {"cpu": 16, "cuda": 64}
"""Batch size that backends are compared at before the plan knows better."""


def allocate_with_backends(
    fitter: BackendSelector,
    place: Callable[[BackendByDevice], Allocation],
    ensemble: Ensemble,
    devices: Sequence[Device],
    threads: Mapping[str, int],
    progress: ProgressFunction = no_progress,
) -> tuple[Allocation, tuple[BackendChoice, ...]]:
    """An allocation, and how its members are run on the devices they sit on.

    Backends are chosen for the `threads` by device that a lane most likely has, `place` plans with them, and where
    lanes turn out otherwise they are chosen again; if that changes any, `place` is asked once more.
    """
    pairs = [(member, device) for device in devices for member in ensemble.members]
    fits = []
    for done, (member, device) in enumerate(pairs):
        progress(f"comparing backends on {device.name}", done, len(pairs))
        fits.append(fitter.select(member, device, threads[device.name], BATCH[device.type]))
    progress("comparing backends", len(pairs), len(pairs))
    allocation = place(backends_by_device(fits))
    placed = _as_placed(fitter, allocation, fits)
    if any(fit.backend != old.backend for fit, old in placed):
        again = {(fit.member, fit.device): fit for fit in (*fits, *(fit for fit, _ in placed))}
        allocation = place(backends_by_device(list(again.values())))
        placed = _as_placed(fitter, allocation, list(again.values()))
    return allocation, tuple(fit for fit, _ in placed)


def backends_by_device(fits: Sequence[BackendChoice]) -> dict[str, dict[str, str]]:
    """The backends of `fits`."""
    chosen: dict[str, dict[str, str]] = {}
    for fit in fits:
        chosen.setdefault(fit.member, {})[fit.device] = fit.backend
    return chosen


def profiles_for(
    library: Library,
    members: Sequence[str],
    device: Device,
    chosen: BackendByDevice,
    backend: str,
    *,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> dict[str, Profile]:
    """Profiles of `members` on `device`, each as `chosen` says or else by `backend`; missing ones are measured."""
    groups: dict[str, list[str]] = {}
    for member in members:
        groups.setdefault(chosen.get(member, {}).get(device.name, backend), []).append(member)
    found: dict[str, Profile] = {}
    for name, group in groups.items():
        found |= profile_members(library, group, device, name, trusted=trusted, progress=progress)
    return found


def _as_placed(
    fitter: BackendSelector, allocation: Allocation, fits: Sequence[BackendChoice]
) -> list[tuple[BackendChoice, BackendChoice]]:
    """Each fit with the threads and batch size of its lane, beside the one that was planned with."""
    planned = {(fit.member, fit.device): fit for fit in fits}
    made = []
    for device in allocation.devices:
        here = [p for p in allocation.placements if p.device == device.name]
        lanes = len({p.lane for p in here})
        for member in dict.fromkeys(p.member for p in here):
            old = planned[member, device.name]
            # on a processor the batch hardly matters; on a GPU threads do not
            threads = max(1, len(device.cores) // lanes) if device.type == "cpu" and device.cores else old.threads
            batch = max(p.batch_size for p in here if p.member == member)
            same = threads == old.threads and (device.type == "cpu" or batch == old.batch_size)
            made.append((old if same else fitter.select(member, device, threads, batch), old))
    return made
