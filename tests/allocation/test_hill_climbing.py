from __future__ import annotations

import pytest

from ripieno.allocation import placement_milp
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.hill_climbing import with_best_batch_sizes
from ripieno.allocation.problem import AllocationProblem
from ripieno.types import BatchProfile, Device, Placement, Profile

POINTS = (BatchProfile(1, 0.1, 0.0, 100), BatchProfile(8, 0.2, 0.0, 170))
"""A batch of eight needs 70 bytes more than a sample, and a quarter of the time per sample."""


def problem(memory: int, cores: int = 2) -> AllocationProblem:
    kind = f"cpu-{cores}-cores"
    profiles = {m: Profile(m, kind, "onnx", POINTS, base=50) for m in "ab"}
    device = Device("cpu:0", kind, memory, tuple(range(cores)))
    return AllocationProblem(("a", "b"), (device,), ProfileCosts({kind: profiles}), (1, 8), lanes=2)


@pytest.mark.parametrize(
    ("memory", "lanes", "sizes"),
    [(389, (0, 1), [1, 8]), (439, (0, 1), [1, 8]), (440, (0, 1), [8, 8]), (389, (0, 0), [1, 8]), (390, (0, 0), [8, 8])],
)
def test_batches_grow_as_far_as_memory_holds_them_with_the_base_of_each_worker(
    memory: int, lanes: tuple[int, int], sizes: list[int]
) -> None:
    some = problem(memory)
    start = tuple(Placement(m, "cpu:0", 1, lane) for m, lane in zip("ab", lanes, strict=True))
    found = with_best_batch_sizes(start, some, ["cpu:0"])
    assert sorted(p.batch_size for p in found) == sizes
    assert some.fits(found)


def test_where_not_even_the_smallest_batches_fit_these_come_back() -> None:
    some = problem(249)
    start = tuple(Placement(m, "cpu:0", 8) for m in "ab")
    assert [p.batch_size for p in with_best_batch_sizes(start, some, ["cpu:0"])] == [1, 1]


@pytest.mark.parametrize(("spare", "lanes"), [(0, 2), (-1, 1)])
def test_the_optimum_counts_the_base_of_each_worker_to_the_byte(spare: int, lanes: int) -> None:
    # a program's tolerance exceeds a thousand bytes of a terabyte: without the check a device would be overfilled
    memory, base = 1 << 40, 1 << 20
    half = memory // 2 - base - spare
    kinds = {"cpu-2-cores": 0.010, "cpu-1-core": 0.012}
    profiles = {
        kind: {m: Profile(m, kind, "onnx", (BatchProfile(8, seconds, 0.0, half),), base=base) for m in "ab"}
        for kind, seconds in kinds.items()
    }
    some = AllocationProblem(
        ("a", "b"), (Device("cpu:0", "cpu-2-cores", memory, (0, 1)),), ProfileCosts(profiles), (8,), lanes=2
    )
    found = placement_milp.solve_optimum(some)
    assert found.placements is not None
    assert some.fits(found.placements)
    assert len({p.lane for p in found.placements}) == lanes
