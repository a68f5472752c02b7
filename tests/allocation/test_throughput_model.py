from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.throughput_model import Workload
from ripieno.errors import AllocationError
from ripieno.types import BatchProfile, Device, Placement, Profile


def load(*placements: tuple[str, str, float]) -> Workload:
    """Return the workload of placements (member, resource, seconds per sample)."""
    return Workload(
        tuple(p[0] for p in placements), tuple((p[1], 0) for p in placements), tuple(p[2] for p in placements)
    )


def test_members_of_one_device_share_its_time() -> None:
    found = throughput_model.solve(load(("a", "gpu", 0.01), ("b", "gpu", 0.03)))
    assert found.throughput == pytest.approx(25)
    assert found.busy == {("gpu", 0): pytest.approx(1)}
    assert found.prices == {"a": pytest.approx(0.25), "b": pytest.approx(0.75)}


def test_the_slowest_device_limits_the_throughput_and_the_others_wait() -> None:
    found = throughput_model.solve(load(("a", "gpu", 0.01), ("b", "cpu", 0.05)))
    assert found.throughput == pytest.approx(20)
    assert found.busy == {("gpu", 0): pytest.approx(0.2), ("cpu", 0): pytest.approx(1)}
    assert found.prices == {"a": 0, "b": pytest.approx(1)}


def test_replicas_add_up() -> None:
    found = throughput_model.solve(load(("a", "gpu", 0.01), ("a", "cpu", 0.1)))
    assert found.throughput == pytest.approx(110)
    assert found.rates == (pytest.approx(100), pytest.approx(10))


def test_a_replica_takes_what_time_its_neighbour_leaves() -> None:
    # a alone on gpu0 would do 100, b on gpu1 200; with a replica of a on gpu1: X/200 + (X - 100)/100 = 1
    found = throughput_model.solve(load(("a", "gpu0", 0.01), ("b", "gpu1", 0.005), ("a", "gpu1", 0.01)))
    assert found.throughput == pytest.approx(400 / 3)
    assert sum(found.prices.values()) == pytest.approx(1)


def test_one_member_on_sixteen_devices_is_sixteen_times_as_fast() -> None:
    found = throughput_model.solve(load(*(("a", f"gpu{i}", 0.01) for i in range(16))))
    assert found.throughput == pytest.approx(1600)


drawn_placements = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0.001, 1)), min_size=1, max_size=7,
    unique_by=lambda seat: seat[:2],
)  # fmt: skip


@given(drawn_placements, st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_no_prices_bound_the_throughput_below_what_is_reached(
    chosen: list[tuple[str, str, float]], raw: list[float]
) -> None:
    loads = load(*chosen)
    found = throughput_model.solve(loads)
    members = sorted(set(loads.members))
    weights = dict(zip("abc", raw, strict=True))
    total = sum(weights[m] for m in members)
    assert loads.bound({m: weights[m] / total for m in members}) >= found.throughput * (1 - 1e-9)
    assert loads.bound(found.prices) == pytest.approx(found.throughput, rel=1e-6)


@given(drawn_placements)
def test_all_members_reach_the_throughput_and_no_resource_is_overused(chosen: list[tuple[str, str, float]]) -> None:
    loads = load(*chosen)
    found = throughput_model.solve(loads)
    for member in set(loads.members):
        rate = sum(r for r, m in zip(found.rates, loads.members, strict=True) if m == member)
        assert rate >= found.throughput * (1 - 1e-6)
    assert all(busy <= 1 + 1e-6 for busy in found.busy.values())
    assert max(found.busy.values()) == pytest.approx(1)


@given(drawn_placements)
def test_the_linear_program_agrees_with_the_formula_where_there_are_no_replicas(
    chosen: list[tuple[str, str, float]],
) -> None:
    loads = load(*{member: (member, resource, s) for member, resource, s in chosen}.values())
    balanced = throughput_model.balance_replicas(loads)
    assert balanced.throughput == pytest.approx(throughput_model.solve(loads).throughput, rel=1e-6)


POINTS = (BatchProfile(1, 0.01, 0.0, 1), BatchProfile(8, 0.04, 0.0, 1))
COSTS = ProfileCosts({k: {m: Profile(m, k, "onnx", POINTS) for m in "ab"} for k in ("gpu", "cpu-2-cores")})
GPU, CPU = Device("cuda:0", "gpu", 1), Device("cpu:0", "cpu-2-cores", 1, (0, 1))


def test_workers_of_a_gpu_take_turns_and_workers_of_a_cpu_have_their_own_cores() -> None:
    on_gpu = (Placement("a", "cuda:0", 8, 0), Placement("b", "cuda:0", 8, 1))
    assert throughput_model.predict(on_gpu, [GPU], COSTS).throughput == pytest.approx(100)
    on_cpu = (Placement("a", "cpu:0", 8, 0), Placement("b", "cpu:0", 8, 1))
    assert throughput_model.predict(on_cpu, [CPU], COSTS).throughput == pytest.approx(100)
    half = {m: Profile(m, "cpu-1-core", "onnx", (BatchProfile(8, 0.05, 0.0, 1),)) for m in "ab"}
    measured = ProfileCosts({**COSTS.profiles, "cpu-1-core": half})
    assert throughput_model.predict(on_cpu, [CPU], measured).throughput == pytest.approx(160)


def test_a_larger_batch_is_faster_by_its_profile() -> None:
    speeds = [throughput_model.predict((Placement("a", "cuda:0", b),), [GPU], COSTS).throughput for b in (1, 8)]
    assert speeds == [pytest.approx(100), pytest.approx(200)]


def test_what_the_engine_adds_to_a_batch_weighs_on_small_ones() -> None:
    slow = ProfileCosts(COSTS.profiles, overhead=0.01)
    speeds = [throughput_model.predict((Placement("a", "cuda:0", b),), [GPU], slow).throughput for b in (1, 8)]
    assert speeds == [pytest.approx(50), pytest.approx(160)]


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(AllocationError, match="unknown device 'cuda:7'"):
        throughput_model.predict((Placement("a", "cuda:7", 1),), [GPU], COSTS)


def test_nothing_is_as_fast_as_nothing() -> None:
    assert throughput_model.predict((), [GPU], COSTS).throughput == 0


def test_sharing_replicas_equals_a_fine_search_over_all_sharings() -> None:
    seconds = {("a", "x"): 0.01, ("a", "y"): 0.02, ("b", "x"): 0.03, ("b", "y"): 0.01}
    best = 0.0
    for f, g in itertools.product(np.linspace(0, 1, 201), repeat=2):  # fractions of x's and y's time for a
        a = f / seconds["a", "x"] + g / seconds["a", "y"]
        b = (1 - f) / seconds["b", "x"] + (1 - g) / seconds["b", "y"]
        best = max(best, min(a, b))
    found = throughput_model.solve(load(*((m, r, s) for (m, r), s in seconds.items())))
    assert best <= found.throughput <= best * 1.01
