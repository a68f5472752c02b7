from __future__ import annotations

from pathlib import Path

import pytest

from ripieno import Library, pipeline
from ripieno.allocation.costs import ENGINE_OVERHEAD, ProfileCosts
from ripieno.allocation.explain import explain
from ripieno.errors import AllocationError
from ripieno.types import Allocation, BatchProfile, Device, Placement, Profile

DEVICES = (Device("cuda:0", "gpu", 100), Device("cuda:1", "gpu", 100), Device("cpu:0", "cpu-2-cores", 100, (0, 1)))
COSTS = ProfileCosts(
    {
        kind: {
            "a": Profile("a", kind, "onnx", (BatchProfile(8, 0.08 * slow, 0.0, 20),), base=5),
            "b": Profile("b", kind, "onnx", (BatchProfile(8, 0.02 * slow, 0.0, 30),), base=5),
        }
        for kind, slow in (("gpu", 1), ("cpu-2-cores", 10))
    }
)
PLACEMENTS = (Placement("a", "cuda:0", 8), Placement("b", "cuda:1", 8))
FOUND = explain(Allocation("x", "B1", DEVICES, PLACEMENTS, bound=200.0, shares=(0.9, 0.2)), COSTS)


def test_each_placement_has_its_memory_rate_and_share_of_time() -> None:
    a, b = FOUND.placements
    assert (a.member, a.device, a.batch_size, a.bytes, a.seconds) == ("a", "cuda:0", 8, 20, 0.08)
    assert (a.rate, a.share, a.measured) == (pytest.approx(100), pytest.approx(1), 0.9)
    assert (b.rate, b.share, b.measured) == (pytest.approx(100), pytest.approx(0.25), 0.2)


def test_each_device_has_what_is_used_and_left() -> None:
    first, second, cpu = FOUND.devices
    assert (first.used, first.left, first.busy) == (25, 75, pytest.approx(1))
    assert (second.used, second.left, second.busy) == (35, 65, pytest.approx(0.25))
    assert (cpu.used, cpu.left, cpu.busy) == (0, 100, 0)


def test_one_line_says_what_limits_the_throughput() -> None:
    assert FOUND.limits == (
        "cuda:0 limits the throughput (always busy); members that limit it most: a (100%); idle: cpu:0."
    )
    assert (FOUND.throughput, FOUND.bound) == (pytest.approx(100), 200.0)


def test_benchmark_results_are_shown_with_the_prediction() -> None:
    benched = Allocation("x", "B1", DEVICES, PLACEMENTS, throughput=90.0, shares=(0.8, 0.2), bound=125.0)
    found = explain(benched, COSTS)
    assert [s.measured for s in found.placements] == [0.8, 0.2]
    assert (found.measured, found.gap_to_bound) == (90.0, pytest.approx(0.2))


def test_a_long_list_is_cut_short() -> None:
    devices = tuple(Device(f"cuda:{i}", "gpu", 100) for i in range(9))
    found = explain(Allocation("x", "B1", devices, tuple(Placement("a", d.name, 8) for d in devices[:7])), COSTS)
    assert found.limits == (
        "cuda:0, cuda:1, cuda:2, cuda:3 and 3 more limit the throughput (always busy); "
        "members that limit it most: a (100%); idle: cuda:7, cuda:8."
    )


def test_each_placement_is_explained_by_the_profile_of_what_runs_it(tmp_path: Path) -> None:
    library, kind = Library(tmp_path), "cpu-2-cores"
    (tmp_path / "library").mkdir()
    for backend, members, seconds in (("onnx", "abc", 0.08), ("openvino:bf16", "ab", 0.04)):
        points = (BatchProfile(8, seconds, 0.0, 20),)
        library.write_profiles(kind, [Profile(m, kind, backend, points, base=5) for m in members])
    halves = [Profile(m, "cpu-1-core", "openvino:bf16", (BatchProfile(8, 0.05, 0.0, 20),)) for m in "ab"]
    library.write_profiles("cpu-1-core", halves)
    cpu = Device("cpu:0", kind, 100, (0, 1))
    whole, cut = ((Placement("a", "cpu:0", 8), Placement("b", "cpu:0", 8, lane)) for lane in (0, 1))

    def seconds_of(placements: tuple[Placement, ...], *backends: str) -> list[float]:
        made = Allocation("x", "B1", (cpu,), placements, backends=backends)
        return [round(s.seconds - ENGINE_OVERHEAD, 9) for s in pipeline.explain(library, made).placements]

    assert seconds_of(whole) == [0.08, 0.08]
    assert seconds_of(whole, "openvino:bf16", "onnx") == [0.04, 0.08]
    assert seconds_of(cut, "openvino:bf16", "openvino:bf16") == [0.05, 0.05]
    with pytest.raises(AllocationError, match="b has no profile on cpu-2-cores"):
        seconds_of(whole, "onnx", "torch")
