"""Ensemble -> bundle, and the explanation of an allocation by the profiles of its run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno.backends.candidates import parse_backend
from ripieno.backends.support import check_support
from ripieno.errors import AllocationError
from ripieno.library import Library, write_bundle
from ripieno.library.bundle import check_target
from ripieno.pipeline.backend_allocation import (
    BackendByDevice,
    allocate_with_backends,
    backends_by_device,
    profiles_for,
)
from ripieno.pipeline.backend_selection import BackendSelector
from ripieno.pipeline.offline_plan import is_offline_spec
from ripieno.pipeline.runs import ProgressFunction, no_progress, open_run
from ripieno.profiles import cpu_partitions, local_devices
from ripieno.profiles.timing import CpuInterference
from ripieno.types import Allocation, Bundle, Device, Ensemble, Placement

if TYPE_CHECKING:
    from ripieno.allocation import Measurement
    from ripieno.allocation.explain import Explanation
    from ripieno.allocation.plan import AllocationMethod
    from ripieno.engine import AllocationBenchmark, BenchResult


def allocate(
    run: str | Path | Library,
    ensemble: str | Ensemble,
    *,
    devices: str | Sequence[Device] = "auto",
    bundle: str | Path | None = None,
    backend: str = "onnx",
    precision: str = "fp32",
    method: AllocationMethod = "model",
    max_benches: int = 20,
    pins: Sequence[str] = (),
    replicas: bool = True,
    rate: float | None = None,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> Bundle:
    """Place an ensemble on devices (section 2.4) and write the deployment folder.

    `method` is `model` (plan by the profiles, confirm by benchmarks), `algorithm-1` (worst-fit, then the paper's greedy
    search with benchmarks) or `worst-fit`. At most `max_benches` benchmarks run, none at 0. `pins` fix a member's
    device or batch size (`MEMBER=cuda:0@32`); without `replicas` each member is placed on one device. With a `rate`, in
    samples per second, the plan minimises the p99 latency at that rate instead of maximising throughput. The bundle is
    written to `bundle`, by default `RUN/bundles/ENSEMBLE`.

    Members run with `backend` in `precision`, by default `onnx` in `fp32` (`ripieno.backends.backend_id`). `auto` takes
    for each member and device the fastest backend with the fp32 reference's predictions on validation images. A
    precision other than fp32 is accepted only where the validation loss hardly grows
    (`pipeline.backend_selection.Tolerances`). `ripieno.library.read_backend_report` returns the choices
    and their effect on the ensemble.

    Raises AllocationError when the members do not fit, with the smallest change that makes them fit, and for devices
    that are not on this machine: use `pipeline.plan_offline` for these.
    """
    from ripieno.allocation import AllocationOptions, check_pins, parse_pins, plan
    from ripieno.engine import AllocationBenchmark

    backend, precision = parse_backend(backend, precision)
    library = open_run(run, writing=True, trusted=trusted)
    chosen = library.ensemble(ensemble) if isinstance(ensemble, str) else ensemble
    path = Path(bundle) if bundle is not None else library.path / "bundles" / chosen.name
    check_target(path)  # before minutes of benchmarks, not after them
    options = AllocationOptions(method, max_benches=max_benches, pins=parse_pins(pins), replicas=replicas, rate=rate)
    members = {m: library.member(m) for m in chosen.members}
    bare = [m for m in chosen.members if members[m].format == "predictions"]
    if bare:
        raise AllocationError(f"{bare[0]} has predictions only and no model to place: import its ONNX file")
    for member in map(library.member, chosen.members if backend != "auto" else ()):
        check_support(backend, member, library.onnx_path(member.id))
    if isinstance(devices, str) and is_offline_spec(devices):
        raise AllocationError(f"devices {devices!r} are not on this machine: plan offline, or use auto or cpu")
    targets = local_devices(devices, backend) if isinstance(devices, str) else tuple(devices)
    if not targets:
        raise AllocationError("no devices to place members on: `ripieno doctor` lists those of this machine")
    check_pins(options.pins, chosen.members, [d.name for d in targets])
    # the model considers several workers on a CPU, so members are measured on a part of its cores too
    pieces = cpu_partitions(targets, options.lanes) if method == "model" else ()
    kinds = {d.kind: d for d in (*targets, *pieces)}

    def report(benches: int, limit: int, best: float) -> None:
        value = f"{best:.0f} samples/s" if rate is None else f"p99 {1000 / best:.3g} ms"
        progress(f"refining the allocation: {value}", benches, limit)

    # the backend where no measurement chose one
    default = backend if backend != "auto" and precision == "fp32" else "onnx"

    def place(by: BackendByDevice) -> Allocation:
        profiles = {
            kind: profiles_for(library, chosen.members, device, by, default, progress=progress)
            for kind, device in kinds.items()
        }
        backbones = {name: member.backbone for name, member in members.items()}
        make_plan = functools.partial(
            plan, chosen, targets, profiles, options=options, name=chosen.name, backbones=backbones
        )
        if max_benches > 0 and method != "worst-fit":
            paths = {m: library.model_path(m, default) for m in chosen.members}
            with AllocationBenchmark(chosen, members, paths, default, chosen=by, trusted=library.trusted) as engine:
                bench = _Benchmark(engine, Allocation(chosen.name, chosen.name, targets, ()), rate)
                interference = CpuInterference()
                allocation = make_plan(bench=bench, progress=report)
                shares, filled = bench.figures(allocation.placements)
                return dataclasses.replace(allocation, shares=shares, filled=filled, others=interference.share())
        return make_plan()

    if backend == "auto" or precision != "fp32":
        selector = BackendSelector(library, chosen, backend, precision)
        # those that a worker of each device most likely has: of its smallest part
        threads = {d.name: max(1, min(len(p.cores) for p in (d, *pieces) if p.name == d.name)) for d in targets}
        units = {name: member.inference_unit for name, member in members.items()}
        allocation, choices = allocate_with_backends(selector, place, chosen, targets, threads, units, progress)
        proof, by = selector.proof(choices), backends_by_device(choices)
        for device in targets:  # the last choice for a worker may differ from the planned one
            placed = sorted({p.member for p in allocation.placements if p.device == device.name})
            profiles_for(library, placed, device, by, default, progress=progress)
    else:
        allocation, proof, by = place({}), None, {}
    backends = tuple(by.get(p.member, {}).get(p.device, default) for p in allocation.placements)
    allocation = dataclasses.replace(allocation, backends=backends)
    library.write_allocation(allocation)
    return write_bundle(library, chosen, allocation, default, path, proof)


class _Benchmark:
    """The planner's measurement: throughput, or 1 / p99 at a rate; it keeps the results of all throughputs."""

    def __init__(self, engine: AllocationBenchmark, template: Allocation, rate: float | None) -> None:
        self._engine, self._template, self._rate = engine, template, rate
        self._results: dict[frozenset[Placement], BenchResult] = {}

    def __call__(self, placements: tuple[Placement, ...]) -> Measurement:
        from ripieno.allocation import Measurement

        candidate = dataclasses.replace(self._template, placements=placements)
        if self._rate is not None:
            latency = self._engine.latency(candidate, self._rate)
            return Measurement(1 / latency.p99, latency.spread)
        result = self._engine.measure(candidate)
        self._results[frozenset(placements)] = result
        return Measurement(result.throughput, result.spread)

    def figures(self, placements: tuple[Placement, ...]) -> tuple[tuple[float, ...], float | None]:
        """Return shares of time in the order of `placements`, and the fill of the busiest member's batches.

        No shares and None when their throughput was not measured.
        """
        result = self._results.get(frozenset(placements))
        return (result.shares(placements), result.filled(placements)) if result is not None else ((), None)


def explain(run: str | Path | Library, allocation: str | Allocation) -> Explanation:
    """Explain an allocation: placements, memory used and free, shares of time, and the throughput bottleneck.

    `allocation` is an allocation of the run or its name. Raises LibraryError for an unknown name, AllocationError when
    a profile that the plan used no longer exists.
    """
    from ripieno.allocation.explain import explain_from

    library = open_run(run)
    chosen = library.allocation(allocation) if isinstance(allocation, str) else allocation
    return explain_from(library, chosen)
