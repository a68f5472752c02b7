"""What the measured benchmarks share: real ONNX networks, two cores as two devices with memory caps, real benches."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from networks import Size, write_members

from ripieno.allocation import Costs, Measurement, memory
from ripieno.allocation.problem import Placements, Problem
from ripieno.engine import AllocationBench
from ripieno.profiles import local_devices, profile
from ripieno.types import Allocation, Device, Ensemble, Member

SIZES = {
    4: (Size(8, 2), Size(16, 1), Size(16, 3), Size(24, 3)),
    7: (Size(8, 1), Size(8, 3), Size(12, 2), Size(16, 1), Size(16, 3), Size(24, 1), Size(24, 3)),
    12: tuple(Size(width, blocks) for width in (8, 12, 16) for blocks in (1, 2, 3, 4)),
}
"""Ensembles of so many networks, 5 to 100 million multiply-adds each."""
BATCH_SIZES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Setting:
    """An ensemble measured on devices, and what benches it."""

    ensemble: Ensemble
    members: Sequence[Member]
    problem: Problem
    bench: Callable[[Placements], Measurement]
    folder: Path

    def allocation(self, placements: Placements) -> Allocation:
        """`placements` as the engine takes them."""
        return Allocation("bench", self.ensemble.name, tuple(self.problem.devices), placements)


@contextlib.contextmanager
def setting(
    folder: Path, count: int, devices: str, seconds: float, room: float | None = 1.5, lanes: int = 1
) -> Iterator[Setting]:
    """`count` networks on `devices` of this machine, profiled there and on halves of them.

    All devices together have `room` times the memory that all members take in batches of 16, shared out equally;
    no cap when None. A bench lasts `seconds`.
    """
    members, _ = write_members(folder, SIZES[count])
    paths = {m.id: folder / "members" / m.id / "model.onnx" for m in members}
    here = local_devices(devices)
    kinds = {d.kind: d for d in (*here, *(local_devices("cpu:2") if lanes > 1 else ()))}
    profiles = {
        kind: {m.id: profile(paths[m.id], m, d, batch_sizes=BATCH_SIZES) for m in members} for kind, d in kinds.items()
    }
    costs = Costs(profiles)
    if room is not None:
        total = sum(costs.bytes(m.id, here[0], 16) for m in members) * room
        here = tuple(dataclasses.replace(d, memory=int(total / len(here)) + costs.base(d)) for d in here)
    ids = tuple(m.id for m in members)
    ensemble = Ensemble(f"of-{count}", ids, (1 / count,) * count, "hand", {}, {}, {})
    with AllocationBench(ensemble, {m.id: m for m in members}, paths, seconds=seconds, batch=64) as engine:

        def bench(placements: Placements) -> Measurement:
            result = engine.measure(Allocation("bench", ensemble.name, here, placements))
            return Measurement(result.throughput, result.spread)

        yield Setting(ensemble, members, Problem(ids, here, costs, BATCH_SIZES, lanes=lanes), bench, folder)


def described(placements: Placements, devices: Sequence[Device], costs: Costs) -> str:
    """Memory used per device, in words."""
    taken = memory.used(placements, devices, costs)
    return ", ".join(f"{d.name} {memory.in_words(taken[d.name])} of {memory.in_words(d.memory)}" for d in devices)
