"""From an ensemble, devices and profiles to an allocation: what the pipeline calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ripieno.allocation import memory
from ripieno.allocation.costs import Costs
from ripieno.allocation.refine import Bench, Placements, refine
from ripieno.allocation.worst_fit import DEFAULT_BATCH_SIZE, worst_fit
from ripieno.errors import AllocationError
from ripieno.types import Allocation, Device, Ensemble, Profile

MAX_BENCHES = 100
"""Benches the refinement may run unless told otherwise."""


def plan(
    ensemble: Ensemble,
    devices: Sequence[Device],
    profiles: Mapping[str, Mapping[str, Profile]],
    batch_sizes: Sequence[int] = (),
    bench: Bench | None = None,
    max_benches: int = MAX_BENCHES,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    name: str = "",
    progress: Callable[[int, int, float], None] | None = None,
) -> Allocation:
    """Place the members of `ensemble` on `devices`: worst-fit, then algorithm 1 when there is a `bench`.

    `profiles` are by kind of device, then by member: `{d.kind: library.profiles(d.kind) for d in devices}`.
    `batch_sizes` to choose from are those measured everywhere, unless given. `bench` measures placements in samples
    per second, at most `max_benches` times. Where the ensemble does not fit in batches of `batch_size`, smaller ones
    are tried.

    Raises AllocationError when it fits in none, or a profile is missing.
    """
    costs = Costs(profiles)
    sizes = tuple(sorted(batch_sizes or costs.batch_sizes(ensemble.members, devices)))
    if not sizes:
        raise AllocationError(f"no batch size was measured for all members of {ensemble.name}: measure them again")
    start = first_fit_size(ensemble.members, devices, costs, sizes, batch_size)
    placements, throughput, started, benches = start, None, None, 0
    if bench is not None:
        refined = refine(
            start,
            devices,
            sizes,
            bench,
            max_benches,
            fits=lambda candidate: memory.fits(candidate, devices, costs),
            progress=progress,
        )
        placements, benches = refined.placements, refined.benches
        throughput, started = refined.measurement.throughput, refined.start.throughput
    return Allocation(
        name=name or default_name(ensemble, devices),
        ensemble=ensemble.name,
        devices=tuple(devices),
        placements=placements,
        throughput=throughput,
        start_throughput=started,
        benches=benches,
    )


def first_fit_size(
    members: Sequence[str], devices: Sequence[Device], costs: Costs, sizes: Sequence[int], batch_size: int
) -> Placements:
    """Worst-fit at the largest of `sizes` up to `batch_size` that fits. Raises AllocationError when none does."""
    usable = sorted((s for s in sizes if s <= batch_size), reverse=True) or [min(sizes)]
    for size in usable[:-1]:
        try:
            return worst_fit(members, devices, costs, size)
        except AllocationError:
            continue
    return worst_fit(members, devices, costs, usable[-1])


def default_name(ensemble: Ensemble, devices: Sequence[Device]) -> str:
    """`B80-on-2-cuda-1-cpu`."""
    counts = Counter(device.type for device in devices)
    return "-".join([ensemble.name, "on", *(f"{counts[t]}-{t}" for t in ("cuda", "cpu") if counts[t])])
