"""Ensemble -> bundle -> predictions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import AllocationError
from ripieno.library import Library, write_bundle
from ripieno.pipeline.costs import profiles_on
from ripieno.pipeline.runs import Progress, open_run, quiet
from ripieno.profiles import local_devices, parts
from ripieno.types import Allocation, Bundle, Device, Ensemble, Placement

if TYPE_CHECKING:
    from ripieno.allocation.plan import Method

LANES = 4
"""Most lanes a CPU is cut in."""


def allocate(
    run: str | Path | Library,
    ensemble: str | Ensemble,
    *,
    devices: str | Sequence[Device] = "auto",
    bundle: str | Path | None = None,
    backend: str = "onnx",
    method: Method = "model",
    max_benches: int = 20,
    pins: Sequence[str] = (),
    replicas: bool = True,
    trusted: Sequence[str] = (),
    progress: Progress = quiet,
) -> Bundle:
    """Place an ensemble on devices (section 2.4) and write the deployment folder.

    `method` is `model` (plan by the profiles, confirm by benches), `algorithm-1` (worst-fit, then the paper's greedy by
    benches) or `worst-fit`. At most `max_benches` are run, none at 0. `pins` fix a member's device or batch size
    (`MEMBER=cuda:0@32`); without `replicas` each member sits on one device. The bundle lies in `bundle`, by default
    `RUN/bundles/ENSEMBLE`. Raises AllocationError when the members do not fit, with the smallest change that mends it.
    """
    from ripieno.allocation import Measurement, Options, parse_pins, plan
    from ripieno.engine import AllocationBench

    library = open_run(run)
    chosen = library.ensemble(ensemble) if isinstance(ensemble, str) else ensemble
    here = local_devices(devices, backend) if isinstance(devices, str) else tuple(devices)
    if not here:
        raise AllocationError("no devices to place members on: `ripieno doctor` lists those of this machine")
    # the model weighs cutting a CPU in lanes, so what a lane costs is measured too
    kinds = {d.kind: d for d in (*here, *(parts(here, LANES) if method == "model" else ()))}
    profiles = {
        kind: profiles_on(library, chosen.members, device, backend, trusted=trusted, progress=progress)
        for kind, device in kinds.items()
    }

    def told(benches: int, limit: int, throughput: float) -> None:
        progress(f"refining the allocation: {throughput:.0f} images/s", benches, limit)

    options = Options(method, max_benches=max_benches, pins=parse_pins(pins), replicas=replicas, lanes=LANES)
    placed = functools.partial(plan, chosen, here, profiles, options=options, name=chosen.name)
    if max_benches > 0 and method != "worst-fit":
        members = {m: library.member(m) for m in chosen.members}
        paths = {m: library.model_path(m, backend) for m in chosen.members}
        with AllocationBench(chosen, members, paths, backend) as measured:

            def bench(placements: tuple[Placement, ...]) -> Measurement:
                result = measured.measure(Allocation(chosen.name, chosen.name, here, placements))
                return Measurement(result.throughput, result.spread)

            allocation = placed(bench=bench, progress=told)
    else:
        allocation = placed()
    library.write_allocation(allocation)
    path = Path(bundle) if bundle is not None else library.path / "bundles" / chosen.name
    return write_bundle(library, chosen, allocation, backend, path)


def predict(bundle: str | Path | Bundle, images: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities (samples, classes) of `images` (samples, height, width, channels) by a bundle, without a server."""
    from ripieno.engine import Engine

    with Engine(bundle) as engine:
        return engine.predict(images)
