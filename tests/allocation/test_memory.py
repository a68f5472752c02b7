from __future__ import annotations

import pytest

from ripieno.allocation import memory
from ripieno.allocation.costs import ProfileCosts, bytes_at, seconds_at
from ripieno.errors import AllocationError
from ripieno.types import BatchProfile, Device, Placement, Profile

POINTS = (BatchProfile(1, 0.1, 0.0, 100), BatchProfile(8, 0.2, 0.0, 170), BatchProfile(32, 0.8, 0.0, 650))
COSTS = ProfileCosts({"cpu-4-cores": {"a": Profile("a", "cpu-4-cores", "onnx", POINTS, base=50)}})
CPU = Device("cpu:0", "cpu-4-cores", 1000, (0, 1, 2, 3))


@pytest.mark.parametrize(("batch", "expected"), [(1, 100), (8, 170), (4, 130), (32, 650), (42, 850)])
def test_bytes_are_interpolated_and_rise_steepest_beyond(batch: int, expected: int) -> None:
    assert bytes_at(POINTS, batch) == expected


@pytest.mark.parametrize(("batch", "expected"), [(1, 0.1), (8, 0.2), (20, 0.5), (64, 1.6)])
def test_seconds_are_interpolated_and_proportional_beyond(batch: int, expected: float) -> None:
    assert seconds_at(POINTS, batch) == pytest.approx(expected)


def test_one_measured_batch_size_is_enough() -> None:
    point = (BatchProfile(8, 0.2, 0.0, 160),)
    assert (bytes_at(point, 1), bytes_at(point, 16)) == (160, 320)
    assert (seconds_at(point, 1), seconds_at(point, 16)) == (0.2, 0.4)


def test_each_worker_needs_the_base_and_each_placement_its_bytes() -> None:
    placements = (Placement("a", "cpu:0", 1), Placement("a", "cpu:0", 8), Placement("a", "cpu:0", 8, lane=1))
    assert memory.device_usage(placements, [CPU], COSTS) == {"cpu:0": 2 * 50 + 100 + 170 + 170}
    assert memory.fits(placements, [CPU], COSTS)
    assert not memory.fits((*placements, Placement("a", "cpu:0", 32, lane=1)), [CPU], COSTS)


def test_a_worker_needs_the_base_of_each_runtime_of_its_members() -> None:
    by = (
        ("a", "onnx", 50),
        ("b", "onnx:int8", 60),
        ("c", "openvino", 70),
        ("d", "torch", 20),
        ("e", "torch-compile", 30),
    )
    mixed = {m: Profile(m, CPU.kind, backend, POINTS, base=base) for m, backend, base in by}
    assert ProfileCosts({CPU.kind: mixed}).base(CPU) == 60 + 70 + 30


def test_a_device_may_be_filled_to_its_last_byte() -> None:
    placements = (Placement("a", "cpu:0", 8),)
    assert memory.fits(placements, [Device("cpu:0", "cpu-4-cores", 220)], COSTS)
    assert not memory.fits(placements, [Device("cpu:0", "cpu-4-cores", 219)], COSTS)


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(AllocationError, match="unknown device 'cuda:9': expected one of cpu:0"):
        memory.device_usage((Placement("a", "cuda:9", 1),), [CPU], COSTS)


def test_half_the_cores_take_the_profile_of_half_or_twice_as_long() -> None:
    assert COSTS.seconds("a", CPU, 8, lanes=2) == pytest.approx(0.4)
    half = Profile("a", "cpu-2-cores", "onnx", (BatchProfile(8, 0.25, 0.0, 1),))
    both = ProfileCosts({**COSTS.profiles, "cpu-2-cores": {"a": half}})
    assert both.seconds("a", CPU, 8, lanes=2) == 0.25


def test_lanes_of_a_gpu_have_all_of_it() -> None:
    costs = ProfileCosts({"gpu": {"a": Profile("a", "gpu", "onnx", POINTS)}})
    assert costs.seconds("a", Device("cuda:0", "gpu", 1), 8, lanes=2) == 0.2


def test_batch_sizes_are_those_measured_everywhere() -> None:
    other = Profile("a", "gpu", "onnx", POINTS[1:])
    costs = ProfileCosts({**COSTS.profiles, "gpu": {"a": other}})
    assert costs.batch_sizes(["a"], [CPU, Device("cuda:0", "gpu", 1)]) == (8, 32)


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (2e6, "1.9 MiB")]
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert memory.format_bytes(count) == words


def test_bytes_of_workers_add_up_to_those_of_their_device() -> None:
    placed = (Placement("a", "cpu:0", 32), Placement("a", "cpu:0", 8, 1))
    lanes = memory.worker_usage(placed, [CPU], COSTS)
    assert set(lanes) == {"cpu:0/0", "cpu:0/1"}
    assert sum(lanes.values()) == memory.device_usage(placed, [CPU], COSTS)["cpu:0"]
    assert lanes["cpu:0/0"] > lanes["cpu:0/1"]
