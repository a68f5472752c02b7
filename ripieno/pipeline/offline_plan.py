"""Plans for devices that are not here: by the model alone, from profiles measured or brought; nothing is benched."""

from __future__ import annotations

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
    from ripieno.allocation.plan import Method

LANES = 4
"""Most lanes a CPU is cut in."""


@dataclass(frozen=True)
class OfflinePlan:
    """What the model says of devices that are not here. Predicted: no figure in it was measured."""

    allocation: Allocation
    explanation: Explanation
    scaling: Scaling | None
    """how the throughput grows with the GPUs, where that was asked for"""
    errors: tuple[float, ...]
    """how far the model was off in the benches of earlier plans of the run, on other devices"""
    path: Path
    """the folder it was written to"""
    written: tuple[str, ...]
    """the files in it"""


def is_offline_spec(spec: str) -> bool:
    """Whether `spec` names devices that are not this machine's: a file, a description, or a Ray cluster."""
    return names_cluster(spec) or parse_spec_or_none(spec) is not None


def plan_offline(
    run: str | Path | Library | None = None,
    ensemble: str | Ensemble | None = None,
    *,
    devices: str | Sequence[Device],
    profiles: Sequence[str] = (),
    members: Sequence[str] = (),
    scale: int | None = None,
    method: Method = "model",
    pins: Sequence[str] = (),
    replicas: bool = True,
    rate: float | None = None,
    output: str | Path | None = None,
) -> OfflinePlan:
    """Plan an ensemble for `devices` one need not have, and with `scale` for 0, 1, 2, ... so many of the first GPU.

    `devices` are a file, a description (`4x V100-16GB, 1x cpu 32 cores`), a Ray cluster (`ray`), or this machine's.
    Members are those of `ensemble` in `run`, or `members` by name, or all there are profiles of. Their profiles are the
    run's and those of `profiles`, each `PATH` or `KIND=PATH`: a profile file, a run, or a table of timm's. Writes
    `allocation.json`, `allocation.svg` and, with `scale`, `scale.csv`, `.json`, `.svg` and `.png` to `output`, by
    default `RUN/plans/ENSEMBLE`, without a run `plan`.

    Raises AllocationError when members do not fit, with the smallest change that mends it, or a profile is missing.
    """
    from ripieno.allocation import AllocationOptions, ProfileCosts, check_pins, parse_pins, plan
    from ripieno.allocation.costs import ENGINE_OVERHEAD
    from ripieno.allocation.explain import explain
    from ripieno.reports.allocation_svg import allocation_svg

    options = AllocationOptions(method, pins=parse_pins(pins), replicas=replicas, lanes=LANES, rate=rate)
    if scale is not None and scale < 1:
        raise AllocationError(f"scale {scale} must be a number of GPUs, at least 1")
    if output is not None:
        files.check_folder(Path(output))
    library = None if run is None else open_run(run)
    there = _devices(devices) if isinstance(devices, str) else tuple(devices)
    chosen = ensemble if isinstance(ensemble, Ensemble) else None
    if isinstance(ensemble, str):
        if library is None:
            raise AllocationError(f"ensemble {ensemble} of which run? name it: ripieno allocate RUN {ensemble}")
        chosen = library.ensemble(ensemble)
    names = chosen.members if chosen else tuple(members)
    brought = _profiles(library, profiles, there, names)
    chosen = chosen or _named(names or _common(brought, there))
    _check(brought, chosen.members, there)
    check_pins(options.pins, chosen.members, [d.name for d in there])
    costs = ProfileCosts(
        {k: {m: p for m, p in of.items() if m in chosen.members} for k, of in brought.items()}, ENGINE_OVERHEAD
    )
    allocation = plan(chosen, there, brought, options=options, name=chosen.name)
    explanation = explain(allocation, costs)
    default = Path("plan") if library is None else library.path / "plans" / chosen.name
    path = Path(output) if output is not None else default
    files.write_json(path / "allocation.json", allocation)
    files.write_bytes(path / "allocation.svg", allocation_svg(explanation).encode())
    written = ["allocation.json", "allocation.svg"]
    growth = None
    if scale is not None:
        growth = scaling_curve(chosen.members, there, costs, scale, options)
        written += write_scaling(growth, path)
    past = library.allocations() if library else []
    errors = tuple(e for a in past if (a.rate is None) == (rate is None) for e in a.errors)
    return OfflinePlan(allocation, explanation, growth, errors, path, tuple(written))


def _devices(spec: str) -> tuple[Device, ...]:
    found = parse_spec_or_none(spec)
    if found is not None:
        return found
    return cluster_devices(spec) if names_cluster(spec) else local_devices(spec)


def _profiles(
    library: Library | None, words: Sequence[str], devices: Sequence[Device], members: Sequence[str]
) -> Profiles:
    """The run's profiles and over them those brought, by kind of device and member."""
    found: Profiles = {k: dict(library.profiles(k)) for k in library.profile_devices()} if library else {}
    for kind, profiles in import_profiles(words, devices, members or None).items():
        found.setdefault(kind, {}).update(profiles)
    if not found:
        raise AllocationError("no profiles to plan by: name a RUN that was measured, or --profiles FILE")
    return found


def _common(profiles: Profiles, devices: Sequence[Device]) -> tuple[str, ...]:
    """Members that have a profile on every kind of device."""
    kinds = {d.kind for d in devices}
    return tuple(sorted(set.intersection(*(set(profiles.get(kind, {})) for kind in kinds))))


def _named(members: Sequence[str]) -> Ensemble:
    """Members that nobody selected, in equal parts."""
    if not members:
        raise AllocationError("no member has profiles on every kind of device: name them with --members, or bring more")
    if len(set(members)) < len(members):
        raise AllocationError(f"members {', '.join(members)}: name each once")
    count = len(members)
    return Ensemble(f"of-{count}", tuple(members), (1 / count,) * count, "named", {}, {}, {})


def _check(profiles: Profiles, members: Sequence[str], devices: Sequence[Device]) -> None:
    """Raise AllocationError for a kind of device that some member has no profile on, with the kinds there are."""
    for kind in dict.fromkeys(d.kind for d in devices):
        missing = [m for m in members if m not in profiles.get(kind, {})]
        if missing:
            known = ", ".join(k for k, of in profiles.items() if set(members) <= set(of)) or "none"
            raise AllocationError(
                f"{missing[0]} has no profile on {kind} (all members have them on: {known}): measure it on such a "
                f"device, or say what stands for it: --profiles {kind}=FILE"
            )
