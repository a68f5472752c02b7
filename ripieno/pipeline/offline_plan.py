"""Offline plans, for absent devices: by the model, from measured or imported profiles, without benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno import files
from ripieno.cluster.nodes import cluster_devices, names_cluster
from ripieno.errors import AllocationError
from ripieno.library import Library
from ripieno.pipeline.runs import open_run
from ripieno.pipeline.scaling import Scaling, scaling_curve, write_scaling
from ripieno.profiles import local_devices
from ripieno.profiles.device_spec import parse_spec_or_none
from ripieno.profiles.importers import Profiles, import_profiles
from ripieno.types import Allocation, Device, Ensemble

if TYPE_CHECKING:
    from ripieno.allocation.explain import Explanation
    from ripieno.allocation.plan import AllocationMethod


@dataclass(frozen=True)
class OfflinePlan:
    """The model's plan for absent devices. All figures are predicted, none is measured."""

    allocation: Allocation
    explanation: Explanation
    scaling: Scaling | None
    """throughput by number of GPUs, if requested"""
    errors: tuple[float, ...]
    """errors of the model in the benchmarks of the run's earlier plans, on other devices"""
    path: Path
    """output folder"""
    written: tuple[str, ...]
    """names of the files in the output folder"""


def is_offline_spec(spec: str) -> bool:
    """Return whether `spec` names devices of another machine: a file, a description, or a Ray cluster."""
    return names_cluster(spec) or parse_spec_or_none(spec) is not None


def plan_offline(
    run: str | Path | Library | None = None,
    ensemble: str | Ensemble | None = None,
    *,
    devices: str | Sequence[Device],
    profiles: Sequence[str] = (),
    members: Sequence[str] = (),
    scale: int | None = None,
    method: AllocationMethod = "model",
    pins: Sequence[str] = (),
    replicas: bool = True,
    rate: float | None = None,
    output: str | Path | None = None,
) -> OfflinePlan:
    """Plan an ensemble for `devices`, which may be absent; with `scale`, also for 0 to `scale` of the first GPU.

    `devices` are a file, a description (`4x V100-16GB, 1x cpu 32 cores`), a Ray cluster (`ray`), or this machine's.
    Members are those of `ensemble` in `run`, or `members` by name, or all with profiles. Profiles are the run's and
    those of `profiles`, each `PATH` or `KIND=PATH`: a profile file, a run, or a timm benchmark table. Writes
    `allocation.json`, `allocation.svg` and, with `scale`, `scale.csv`, `.json`, `.svg` and `.png` to `output`, by
    default `RUN/plans/ENSEMBLE`, without a run `plan`.

    Raises AllocationError when members do not fit, with the smallest change that makes them fit, or when a profile is
    missing.
    """
    from ripieno.allocation import AllocationOptions, ProfileCosts, check_pins, parse_pins, plan
    from ripieno.allocation.costs import ENGINE_OVERHEAD
    from ripieno.allocation.explain import explain
    from ripieno.allocation.units import PlacementUnits
    from ripieno.reports.allocation_svg import allocation_svg

    options = AllocationOptions(method, pins=parse_pins(pins), replicas=replicas, rate=rate)
    if scale is not None and scale < 1:
        raise AllocationError(f"scale {scale} must be a number of GPUs, at least 1")
    if output is not None:
        files.check_folder(Path(output))
    library = None if run is None else open_run(run)
    targets = _devices(devices) if isinstance(devices, str) else tuple(devices)
    chosen = ensemble if isinstance(ensemble, Ensemble) else None
    if isinstance(ensemble, str):
        if library is None:
            raise AllocationError(f"ensemble {ensemble} needs a run: ripieno allocate RUN {ensemble}")
        chosen = library.ensemble(ensemble)
    names = chosen.members if chosen else tuple(members)
    backbones = {m.id: m.backbone for m in library.members() if m.backbone} if library else {}
    shared = tuple({backbones[name] for name in names if name in backbones})
    known = _profiles(library, profiles, targets, (*names, *shared))
    if not names:  # all members with a profile on every kind of device
        measured = set.intersection(*(set(known.get(device.kind, {})) for device in targets))
        names = tuple(sorted(measured - set(backbones.values())))
    chosen = chosen or _equal_ensemble(names)
    shared = tuple({backbones[name] for name in chosen.members if name in backbones})
    _check(known, (*chosen.members, *shared), targets)
    check_pins(options.pins, chosen.members, [d.name for d in targets])
    units = PlacementUnits(chosen.members, backbones)
    costs = ProfileCosts({kind: units.profiles(of) for kind, of in known.items()}, ENGINE_OVERHEAD)
    allocation = plan(chosen, targets, known, options=options, name=chosen.name, backbones=backbones)
    explanation = explain(allocation, costs, units)
    default = Path("plan") if library is None else library.path / "plans" / chosen.name
    path = Path(output) if output is not None else default
    files.write_json(path / "allocation.json", allocation)
    files.write_bytes(path / "allocation.svg", allocation_svg(explanation).encode())
    written = ["allocation.json", "allocation.svg"]
    scaling = None
    if scale is not None:
        unpinned = dataclasses.replace(options, pins=units.pins(options.pins))
        scaling = scaling_curve(tuple(units.members), targets, costs, scale, unpinned)
        written += write_scaling(scaling, path)
    past = library.allocations() if library else []
    errors = tuple(e for a in past if (a.rate is None) == (rate is None) for e in a.errors)
    return OfflinePlan(allocation, explanation, scaling, errors, path, tuple(written))


def _devices(spec: str) -> tuple[Device, ...]:
    described = parse_spec_or_none(spec)
    if described is not None:
        return described
    return cluster_devices(spec) if names_cluster(spec) else local_devices(spec)


def _profiles(
    library: Library | None, sources: Sequence[str], devices: Sequence[Device], members: Sequence[str]
) -> Profiles:
    """Return the run's profiles, overridden by imported ones, by kind of device and member."""
    known: Profiles = {k: dict(library.profiles(k)) for k in library.profile_devices()} if library else {}
    for kind, profiles in import_profiles(sources, devices, members or None).items():
        known.setdefault(kind, {}).update(profiles)
    if not known:
        raise AllocationError("no profiles to plan with: give a measured RUN, or --profiles FILE")
    return known


def _equal_ensemble(members: Sequence[str]) -> Ensemble:
    """Make an ensemble of `members` with equal weights, without a selection."""
    if not members:
        raise AllocationError(
            "no member has profiles on every kind of device: name members with --members, or import more --profiles"
        )
    if len(set(members)) < len(members):
        raise AllocationError(f"members {', '.join(members)} are repeated: name each member once")
    count = len(members)
    return Ensemble(f"of-{count}", tuple(members), (1 / count,) * count, "named", {}, {}, {})


def _check(profiles: Profiles, members: Sequence[str], devices: Sequence[Device]) -> None:
    """Raise AllocationError, with the covered kinds, for a kind of device on which a member has no profile."""
    for kind in dict.fromkeys(d.kind for d in devices):
        missing = [m for m in members if m not in profiles.get(kind, {})]
        if missing:
            known = ", ".join(k for k, of in profiles.items() if set(members) <= set(of)) or "none"
            raise AllocationError(
                f"{missing[0]} has no profile on {kind} (all members have one on: {known}): measure it on such a "
                f"device, or give a profile file: --profiles {kind}=FILE"
            )
