"""Common parts of the measured benchmarks: real ONNX networks, cores of this machine as devices with memory caps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from networks import Size, write_members

from ripieno.allocation import Measurement, ProfileCosts, memory, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD
from ripieno.allocation.problem import AllocationProblem, Placements
from ripieno.backends import load
from ripieno.engine import Engine, bench
from ripieno.engine.benchmark import BackendPool
from ripieno.engine.memory_limit import resident
from ripieno.profiles import local_devices, profile
from ripieno.types import Allocation, Bundle, Device, Ensemble, Member, Profile

SIZES = {
    4: (Size(8, 2), Size(16, 1), Size(16, 3), Size(24, 3)),
    7: (Size(8, 1), Size(8, 3), Size(12, 2), Size(16, 1), Size(16, 3), Size(24, 1), Size(24, 3)),
    12: tuple(Size(width, blocks) for width in (8, 12, 16) for blocks in (1, 2, 3, 4)),
    14: tuple(Size(width, blocks) for width in (8, 12, 16, 24) for blocks in (1, 2, 3, 4))[:14],
}
"""Ensembles by number of networks, 5 to 100 million multiply-adds each."""
BATCH_SIZES = (1, 4, 16, 64)
REQUEST = 16
"""Samples per request: a benchmark lasts for some requests at least, regardless of its seconds."""


@dataclass(frozen=True)
class Seen:
    """A benchmark: samples per second, its spread, and the lost share of each worker, by (device, lane).

    The lost share is the part of the time that a worker waited for a core, or that other threads held its core.
    """

    throughput: float
    spread: float
    lost: dict[tuple[str, int], float]


@dataclass(frozen=True)
class Setting:
    """An ensemble on devices, with its benchmark."""

    ensemble: Ensemble
    members: Sequence[Member]
    problem: AllocationProblem
    folder: Path
    backend_pool: BackendPool

    def bundle(self, placements: Placements) -> Bundle:
        """Return `placements` as a bundle for the engine, with planned memory."""
        devices, first = tuple(self.problem.devices), self.members[0]
        planned = memory.worker_usage(placements, devices, self.problem.costs)
        allocation = Allocation("bench", self.ensemble.name, devices, placements, planned=planned)
        return Bundle(
            self.ensemble, allocation, tuple(self.members), first.input, first.task, "onnx", self.folder
        )  # fmt: skip

    def see(self, placements: Placements, seconds: float, request: int = REQUEST) -> Seen:
        """Benchmark `placements` for `seconds` in requests of `request` samples.

        Workers are threads; their members stay loaded between benchmarks.
        """
        with Engine(self.bundle(placements), isolation="thread", load=self.backend_pool.load) as engine:
            workers = [(w.device, w.lane) for w in engine.stats().lanes]
            threads = {t.name: t.native_id for t in threading.enumerate()}
            ids = [threads[f"ripieno-worker-{i}"] for i in range(len(workers))]
            pool = [int(t) for t in os.listdir("/proc/self/task") if int(t) not in threads.values()]
            before, began, own = [_times(i) for i in (*ids, *pool)], time.perf_counter(), time.process_time()
            result = bench(self.bundle(placements), seconds=seconds, batch=request, engine=engine)
            after, took, own = (
                [_times(i) for i in (*ids, *pool)],
                time.perf_counter() - began,
                time.process_time() - own,
            )
        used, waited = (np.array(after) - np.array(before)).T
        # workers also wait for the engine's own threads, which do not count as other programs
        ours = max(0.0, own - used.sum()) / len(workers)
        # a worker of several threads waits for its slowest thread
        helpers = waited[len(workers) :].sum() if len(workers) == 1 else 0.0
        lost = {
            worker: min(0.99, max(0.0, waited[i] - ours, helpers - ours) / took) for i, worker in enumerate(workers)
        }  # fmt: skip
        return Seen(result.throughput, result.spread, lost)

    def bench(self, placements: Placements, seconds: float) -> Measurement:
        """Return a benchmark's result as a planner needs it."""
        seen = self.see(placements, seconds)
        return Measurement(seen.throughput, seen.spread)

    def predicted(self, placements: Placements, lost: dict[tuple[str, int], float] | None = None) -> float:
        """Return the model's samples per second; `lost` reduces the time of each worker."""
        loads = throughput_model.workload(placements, self.problem.devices, self.problem.costs)
        left = [1 - (lost or {}).get(r, 0.0) for r in loads.resources]
        slower = tuple(s / share for s, share in zip(loads.seconds, left, strict=True))
        return throughput_model.solve(dataclasses.replace(loads, seconds=slower)).throughput

    def memory(self, placements: Placements, seconds: float = 0.3) -> list[float]:
        """Return the resident bytes of each process worker under its cap, as a share of its planned memory."""
        made = self.bundle(placements)
        with Engine(made, isolation="process") as engine:
            bench(made, engine=engine, seconds=seconds, batch=64)
            workers = engine.stats().lanes
            if any(w.restarts for w in workers):
                raise SystemExit(f"A worker restarted under its memory cap: {placements}")
            return [resident(w.process) / made.allocation.planned[f"{w.device}/{w.lane}"] for w in workers]


@contextlib.contextmanager
def setting(folder: Path, count: int, devices: str, room: float | None = 1.5, lanes: int = 1) -> Iterator[Setting]:
    """Profile `count` networks on `devices` of this machine and on halves of them.

    All devices together have `room` times the memory that all members take in batches of 16, shared equally;
    no cap if None.
    """
    members, _ = write_members(folder, SIZES[count])
    paths = {m.id: folder / "members" / m.id / "model.onnx" for m in members}
    here = local_devices(devices)
    kinds = {d.kind: d for d in (*here, *(local_devices("cpu:2") if lanes > 1 else ()))}
    costs = ProfileCosts({kind: _profiles(count, d, folder) for kind, d in kinds.items()}, ENGINE_OVERHEAD)
    if room is not None:
        total = sum(costs.bytes(m.id, here[0], 16) for m in members) * room
        here = tuple(dataclasses.replace(d, memory=int(total / len(here)) + costs.base(d)) for d in here)
    ids = tuple(m.id for m in members)
    ensemble = Ensemble(f"of-{count}", ids, (1 / count,) * count, "hand", {}, {}, {})
    backend_pool = BackendPool(paths, "model.onnx", load)
    try:
        yield Setting(
            ensemble, members, AllocationProblem(ids, here, costs, BATCH_SIZES, lanes=lanes), folder, backend_pool
        )
    finally:
        backend_pool.close()


_measured: dict[tuple[int, str], dict[str, Profile]] = {}


def _profiles(count: int, device: Device, folder: Path) -> dict[str, Profile]:
    """Return profiles of the `count` networks in `folder` on a kind of device, measured once per run."""
    key = (count, device.kind)
    if key not in _measured:
        members, _ = write_members(folder, SIZES[count])
        measure = functools.partial(profile, batch_sizes=BATCH_SIZES, max_seconds=4.0)
        _measured[key] = {m.id: measure(folder / "members" / m.id / "model.onnx", m, device) for m in members}
    return _measured[key]


def _times(thread: int) -> tuple[float, float]:
    """Return the seconds a thread of this process has run, and has waited for a core."""
    ran, waited, _ = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def described(placements: Placements, devices: Sequence[Device], costs: ProfileCosts) -> str:
    """Return the memory used per device, as text."""
    taken = memory.device_usage(placements, devices, costs)
    return ", ".join(
        f"{d.name} {memory.format_bytes(taken[d.name])} of {memory.format_bytes(d.memory)}" for d in devices
    )
