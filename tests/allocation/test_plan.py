from __future__ import annotations

import msgspec
import pytest

from ripieno import files
from ripieno.allocation import plan
from ripieno.allocation.refine import Placements
from ripieno.errors import AllocationError
from ripieno.types import Allocation, Device, Ensemble, Point, Profile

CPU = Device("cpu:0", "cpu-2-cores", 1000, (0, 1))
ENSEMBLE = Ensemble("B80", ("a", "b"), (0.5, 0.5), "smobf", {"seconds": 80.0}, {"seconds": 3.0}, {})


def profiles(load: int = 10) -> dict[str, dict[str, Profile]]:
    points = tuple(Point(b, 0.01 * b, 0.0, load * b) for b in (1, 8, 32))
    return {"cpu-2-cores": {m: Profile(m, "cpu-2-cores", "onnx", points) for m in "ab"}}


def larger_is_faster(placements: Placements) -> float:
    return float(sum(p.batch_size for p in placements))


def test_without_a_bench_it_is_worst_fit_and_says_nothing_of_speed() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles())
    assert [(p.member, p.device, p.batch_size) for p in allocation.placements] == [("a", "cpu:0", 8), ("b", "cpu:0", 8)]
    assert (allocation.throughput, allocation.start_throughput, allocation.benches) == (None, None, 0)
    assert (allocation.name, allocation.ensemble) == ("B80-on-1-cpu", "B80")


def test_with_a_bench_it_is_refined_within_memory() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster)
    assert sorted(p.batch_size for p in allocation.placements) == [32, 32]
    assert (allocation.throughput, allocation.start_throughput) == (64, 16)
    allocation = plan(ENSEMBLE, [CPU], profiles(load=20), bench=larger_is_faster)
    assert sorted(p.batch_size for p in allocation.placements) == [8, 32]  # 2 x 640 do not fit in 1000


def test_a_smaller_batch_is_taken_where_the_default_does_not_fit() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(load=100))
    assert {p.batch_size for p in allocation.placements} == {1}


def test_what_fits_at_no_batch_size_is_refused() -> None:
    with pytest.raises(AllocationError, match=r"no room for b .* in batches of 1"):
        plan(ENSEMBLE, [CPU], profiles(load=600))


def test_it_is_stored_and_read_back() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster, name="mine")
    assert allocation.name == "mine"
    fields = msgspec.json.decode(files.to_json(allocation))
    del fields["version"]
    assert msgspec.convert(fields, Allocation) == allocation
