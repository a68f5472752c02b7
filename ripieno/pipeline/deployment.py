"""Ensemble -> bundle -> predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.candidates import parse_backend
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
    from ripieno.allocation.plan import Method
    from ripieno.engine import AllocationBenchmark

LANES = 4
"""Most lanes a CPU is cut in."""


def allocate(
    run: str | Path | Library,
    ensemble: str | Ensemble,
    *,
    devices: str | Sequence[Device] = "auto",
    bundle: str | Path | None = None,
    backend: str = "onnx",
    precision: str = "fp32",
    method: Method = "model",
    max_benches: int = 20,
    pins: Sequence[str] = (),
    replicas: bool = True,
    rate: float | None = None,
    trusted: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
) -> Bundle:
    """Place an ensemble on devices (section 2.4) and write the deployment folder.

    `method` is `model` (plan by the profiles, confirm by benches), `algorithm-1` (worst-fit, then the paper's greedy by
    benches) or `worst-fit`. At most `max_benches` are run, none at 0. `pins` fix a member's device or batch size
    (`MEMBER=cuda:0@32`); without `replicas` each member sits on one device. With a `rate`, in samples per second, what
    counts is not the throughput but the p99 latency at that rate. The bundle lies in `bundle`, by default
    `RUN/bundles/ENSEMBLE`.

    Members are run by `backend` in `precision`, `onnx` in `fp32` unless told otherwise (`ripieno.backends.backend_id`).
    `auto` takes the quickest backend for each member and device whose answers on validation images are those of the
    fp32 reference; a precision other than fp32 is taken only by members whose validation loss hardly suffers
    (`pipeline.fitting.Terms`). `ripieno.library.read_proof` tells what was chosen and what it does to the ensemble.

    Raises AllocationError when the members do not fit, with the smallest change that mends it,
    and for devices that are described and not here: `pipeline.foresee` plans for these.
    """
    from ripieno.allocation import AllocationOptions, check_pins, parse_pins, plan
    from ripieno.engine import AllocationBenchmark

    backend, precision = parse_backend(backend, precision)
    library = open_run(run, writing=True)
    chosen = library.ensemble(ensemble) if isinstance(ensemble, str) else ensemble
    path = Path(bundle) if bundle is not None else library.path / "bundles" / chosen.name
    check_target(path)  # before minutes of benches, not after them
    options = AllocationOptions(
        method, max_benches=max_benches, pins=parse_pins(pins), replicas=replicas, lanes=LANES, rate=rate
    )
    bare = [m for m in chosen.members if library.member(m).format == "predictions"]
    if bare:
        raise AllocationError(f"{bare[0]} is predictions only, with no network to place: import its ONNX file")
    if isinstance(devices, str) and is_offline_spec(devices):
        raise AllocationError(f"devices {devices!r} are not this machine's: plan for them, or use auto or cpu")
    here = local_devices(devices, backend) if isinstance(devices, str) else tuple(devices)
    if not here:
        raise AllocationError("no devices to place members on: `ripieno doctor` lists those of this machine")
    check_pins(options.pins, chosen.members, [d.name for d in here])
    # the model weighs cutting a CPU in lanes, so what a lane costs is measured too
    pieces = cpu_partitions(here, LANES) if method == "model" else ()
    kinds = {d.kind: d for d in (*here, *pieces)}

    def told(benches: int, limit: int, best: float) -> None:
        words = f"{best:.0f} images/s" if rate is None else f"p99 {1000 / best:.3g} ms"
        progress(f"refining the allocation: {words}", benches, limit)

    # the backend of what no measurement chose
    usual = backend if backend != "auto" and precision == "fp32" else "onnx"

    def place(by: BackendByDevice) -> Allocation:
        profiles = {
            kind: profiles_for(library, chosen.members, device, by, usual, trusted=trusted, progress=progress)
            for kind, device in kinds.items()
        }
        placed = functools.partial(plan, chosen, here, profiles, options=options, name=chosen.name)
        if max_benches > 0 and method != "worst-fit":
            members = {m: library.member(m) for m in chosen.members}
            paths = {m: library.model_path(m, usual) for m in chosen.members}
            with AllocationBenchmark(chosen, members, paths, usual, chosen=by, trusted=trusted) as engine:
                bench = _Bench(engine, Allocation(chosen.name, chosen.name, here, ()), rate)
                neighbours = CpuInterference()
                allocation = placed(bench=bench, progress=told)
                shares, filled = bench.shares(allocation.placements), bench.filled(allocation.placements)
                return dataclasses.replace(allocation, shares=shares, filled=filled, others=neighbours.share())
        return placed()

    if backend == "auto" or precision != "fp32":
        fitter = BackendSelector(library, chosen, backend, precision, trusted=trusted)
        allocation, fits = allocate_with_backends(fitter, place, chosen, here, _threads(here, pieces), progress)
        proof, by = fitter.proof(fits), backends_by_device(fits)
        for device in here:  # what was chosen last for a lane may not be what was planned with
            placed_here = sorted({p.member for p in allocation.placements if p.device == device.name})
            profiles_for(library, placed_here, device, by, usual, trusted=trusted, progress=progress)
    else:
        allocation, proof, by = place({}), None, {}
    backends = tuple(by.get(p.member, {}).get(p.device, usual) for p in allocation.placements)
    allocation = dataclasses.replace(allocation, backends=backends)
    library.write_allocation(allocation)
    return write_bundle(library, chosen, allocation, usual, path, proof)


class _Bench:
    """What the planner measures by: throughput, or 1 / p99 at a rate; it keeps who computed how much of the time."""

    def __init__(self, engine: AllocationBenchmark, frame: Allocation, rate: float | None) -> None:
        self._engine, self._frame, self._rate = engine, frame, rate
        self._shares: dict[frozenset[Placement], dict[Placement, float]] = {}
        self._filled: dict[frozenset[Placement], float] = {}

    def __call__(self, placements: tuple[Placement, ...]) -> Measurement:
        from ripieno.allocation import Measurement

        candidate = dataclasses.replace(self._frame, placements=placements)
        if self._rate is not None:
            found = self._engine.latency(candidate, self._rate)
            return Measurement(1 / found.p99, found.spread)
        result = self._engine.measure(candidate)
        self._shares[frozenset(placements)] = dict(zip(placements, result.shares(placements), strict=True))
        self._filled[frozenset(placements)] = result.filled(placements)
        return Measurement(result.throughput, result.spread)

    def shares(self, placements: tuple[Placement, ...]) -> tuple[float, ...]:
        """Shares of time in the order of `placements`; none when they were not benched for throughput."""
        known = self._shares.get(frozenset(placements), {})
        return tuple(known[p] for p in placements) if known else ()

    def filled(self, placements: tuple[Placement, ...]) -> float | None:
        """Return how full the busiest member's batches were; None when they were not benched for throughput."""
        return self._filled.get(frozenset(placements))


def _threads(devices: Sequence[Device], pieces: Sequence[Device]) -> dict[str, int]:
    """Threads that a lane of each device most likely has: those of its smallest part."""
    return {d.name: max(1, min(len(p.cores) for p in (d, *pieces) if p.name == d.name)) for d in devices}


def predict(
    bundle: str | Path | Bundle,
    images: Any,
    trusted: Sequence[str] = (),
    *,
    skip_bad: bool = False,
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """Probabilities (samples, classes) of `images` by a bundle, without a server.

    `images` is an array (samples, height, width, channels), a picture, the path of a picture, folder or file of arrays,
    a list of such, or a data set as `tune` takes it: see `ripieno.data.prediction_inputs.read_inputs`.
    With `skip_bad` pictures that cannot be read are left out, each named in a line of `notes`. `trusted` names the
    user's own families that may be imported, as of `Engine`. Raises EngineError or DataError for unusable images.
    """
    from ripieno.data.prediction_inputs import read_inputs
    from ripieno.engine import Engine
    from ripieno.library import read_bundle

    bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    if not isinstance(images, np.ndarray):
        images = read_inputs(images, bundle.input, notes, skip_bad=skip_bad)[1]
    with Engine(bundle, trusted=trusted) as engine:
        return engine.predict(images)
