"""Ensemble -> bundle -> predictions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import AllocationError
from ripieno.library import Library, write_bundle
from ripieno.pipeline.costs import profiles_on
from ripieno.pipeline.runs import Progress, open_run, quiet
from ripieno.types import Allocation, Bundle, Device, Ensemble, Placement


def allocate(
    run: str | Path | Library,
    ensemble: str | Ensemble,
    *,
    devices: str | Sequence[Device] = "auto",
    bundle: str | Path | None = None,
    backend: str = "onnx",
    max_benches: int = 20,
    trusted: Sequence[str] = (),
    progress: Progress = quiet,
) -> Bundle:
    """Place an ensemble on devices (section 2.4: worst-fit, then algorithm 1) and write the deployment folder.

    The bundle lies in `bundle`, by default `RUN/bundles/ENSEMBLE`. Raises AllocationError when a member fits nowhere.
    """
    from ripieno.allocation import Measurement, plan
    from ripieno.engine import AllocationBench
    from ripieno.profiles import local_devices

    library = open_run(run)
    chosen = library.ensemble(ensemble) if isinstance(ensemble, str) else ensemble
    here = local_devices(devices, backend) if isinstance(devices, str) else tuple(devices)
    if not here:
        raise AllocationError("no devices to place members on: `ripieno doctor` lists those of this machine")
    kinds = {d.kind: d for d in here}
    profiles = {
        kind: profiles_on(library, chosen.members, device, backend, trusted=trusted, progress=progress)
        for kind, device in kinds.items()
    }

    def told(benches: int, limit: int, throughput: float) -> None:
        progress(f"refining the allocation: {throughput:.0f} images/s", benches, limit)

    placed = functools.partial(plan, chosen, here, profiles, name=chosen.name)
    if max_benches > 0:
        members = {m: library.member(m) for m in chosen.members}
        paths = {m: library.model_path(m, backend) for m in chosen.members}
        with AllocationBench(chosen, members, paths, backend) as measured:

            def bench(placements: tuple[Placement, ...]) -> Measurement:
                result = measured.measure(Allocation(chosen.name, chosen.name, here, placements))
                return Measurement(result.throughput, result.spread)

            allocation = placed(bench=bench, max_benches=max_benches, progress=told)
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
