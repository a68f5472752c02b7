from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ripieno import files
from ripieno.allocation import AllocationOptions, PlacementConstraint, placement_milp, plan, throughput_model
from ripieno.allocation.costs import ENGINE_OVERHEAD, ProfileCosts
from ripieno.allocation.hill_climbing import hill_climb, longest_processing_time_first
from ripieno.allocation.latency import arrivals, p99
from ripieno.allocation.plan import AllocationMethod, plan_with_model
from ripieno.allocation.problem import AllocationProblem
from ripieno.allocation.refine import Placements
from ripieno.errors import AllocationError
from ripieno.types import Allocation, BatchProfile, Device, Ensemble, Profile
from tests.allocation.instances import random_problem

CPU = Device("cpu:0", "cpu-2-cores", 1000, (0, 1))
ENSEMBLE = Ensemble("B80", ("a", "b"), (0.5, 0.5), "smobf", {"seconds": 80.0}, {"seconds": 3.0}, {})


def profiles(load: int = 10) -> dict[str, dict[str, Profile]]:
    points = tuple(BatchProfile(b, 0.01 * b, 0.0, load * b) for b in (1, 8, 32))
    return {"cpu-2-cores": {m: Profile(m, "cpu-2-cores", "onnx", points) for m in "ab"}}


def larger_is_faster(placements: Placements) -> float:
    return float(sum(p.batch_size for p in placements))


PAPER = AllocationOptions(method="algorithm-1", max_benches=100)


def test_without_a_bench_worst_fit_says_nothing_of_measured_speed() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), options=AllocationOptions(method="worst-fit"))
    assert [(p.member, p.device, p.batch_size) for p in allocation.placements] == [("a", "cpu:0", 8), ("b", "cpu:0", 8)]
    assert (allocation.throughput, allocation.start_throughput, allocation.benches) == (None, None, 0)
    assert (allocation.name, allocation.ensemble) == ("B80-on-1-cpu", "B80")
    assert allocation.predicted == pytest.approx(50, rel=0.01)


def test_algorithm_1_refines_within_memory() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster, options=PAPER)
    assert sorted(p.batch_size for p in allocation.placements) == [32, 32]
    assert (allocation.throughput, allocation.start_throughput) == (64, 16)
    allocation = plan(ENSEMBLE, [CPU], profiles(load=20), bench=larger_is_faster, options=PAPER)
    assert sorted(p.batch_size for p in allocation.placements) == [8, 32]  # 2 x 640 do not fit in 1000


def test_the_allocation_holds_the_planned_memory_of_each_worker() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), options=AllocationOptions(method="worst-fit"))
    assert allocation.planned == {"cpu:0/0": 160}


def test_a_smaller_batch_is_taken_where_the_default_does_not_fit() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(load=100))
    assert sorted(p.batch_size for p in allocation.placements) == [1, 8]


@pytest.mark.parametrize("method", ["model", "algorithm-1", "worst-fit"])
def test_what_fits_at_no_batch_size_is_refused(method: AllocationMethod) -> None:
    says = "2 members do not fit on cpu:0" if method == "model" else r"b needs .* in batches of 1"
    with pytest.raises(AllocationError, match=says):
        plan(ENSEMBLE, [CPU], profiles(load=600), options=AllocationOptions(method=method))


def test_the_model_plans_without_a_bench_and_says_how_near_the_best_it_is() -> None:
    falling = {8: 0.02, 1: 0.01, 32: 0.04}
    points = tuple(BatchProfile(b, falling[b], 0.0, 10 * b) for b in (1, 8, 32))
    kinds = {"cpu-2-cores": {m: Profile(m, "cpu-2-cores", "onnx", points) for m in "ab"}}
    allocation = plan(ENSEMBLE, [CPU], kinds)
    assert {p.batch_size for p in allocation.placements} == {32}
    assert allocation.predicted == pytest.approx(400, rel=0.01)
    assert allocation.bound == pytest.approx(400, rel=0.01)
    assert allocation.throughput is None


def test_the_model_is_confirmed_by_few_benches_and_never_below_worst_fit() -> None:
    def contrary(placements: Placements) -> float:
        return 100.0 / sum(p.batch_size for p in placements)

    points = tuple(BatchProfile(b, 0.01, 0.0, 10 * b) for b in (1, 8, 32))  # the model predicts that 32 is best
    kinds = {"cpu-2-cores": {m: Profile(m, "cpu-2-cores", "onnx", points) for m in "ab"}}
    allocation = plan(ENSEMBLE, [CPU], kinds, bench=contrary)
    assert allocation.start_throughput == pytest.approx(100 / 16)
    assert allocation.throughput is not None
    assert allocation.throughput >= 100 / 16
    assert allocation.benches <= 30
    assert plan(ENSEMBLE, [CPU], kinds, bench=contrary, max_benches=1).benches == 1


def test_a_plan_is_found_where_worst_fit_finds_none() -> None:
    sizes = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}
    kinds = {"gpu": {m: Profile(m, "gpu", "onnx", (BatchProfile(8, 0.01, 0.0, s),)) for m, s in sizes.items()}}
    ensemble = Ensemble("B1", tuple(sizes), (0.2,) * 5, "smobf", {}, {}, {})
    devices = [Device("cuda:0", "gpu", 9), Device("cuda:1", "gpu", 9)]
    assert len(plan(ensemble, devices, kinds).placements) == 5
    with pytest.raises(AllocationError, match=r"do not fit .*, or pass method model, which fits all members"):
        plan(ensemble, devices, kinds, options=PAPER)


@pytest.mark.parametrize("method", ["model", "algorithm-1", "worst-fit"])
def test_pins_hold_by_every_method(method: AllocationMethod) -> None:
    options = AllocationOptions(method=method, pins={"a": PlacementConstraint(None, 1)})
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster, options=options)
    assert {p.batch_size for p in allocation.placements if p.member == "a"} == {1}


@pytest.mark.parametrize("method", ["algorithm-1", "worst-fit"])
def test_every_method_says_how_far_it_is_from_what_any_plan_could_reach(method: AllocationMethod) -> None:
    kinds = {"gpu": {m: Profile(m, "gpu", "onnx", (BatchProfile(8, 0.01, 0.0, 1),)) for m in "ab"}}
    devices = [Device(f"cuda:{i}", "gpu", 10) for i in range(4)]
    allocation = plan(ENSEMBLE, devices, kinds, options=AllocationOptions(method=method))
    assert allocation.predicted == pytest.approx(800, rel=0.01)
    assert allocation.bound == pytest.approx(1600, rel=0.01)  # with replicas


def test_a_single_bench_is_the_plans() -> None:
    kinds = {"gpu": {m: Profile(m, "gpu", "onnx", (BatchProfile(8, 0.01, 0.0, 1),)) for m in "ab"}}
    devices = [Device(f"cuda:{i}", "gpu", 10) for i in range(4)]
    benched: list[Placements] = []

    def bench(placements: Placements) -> float:
        benched.append(placements)
        return 1.0

    allocation = plan(ENSEMBLE, devices, kinds, bench=bench, max_benches=1)
    assert len(benched) == 1
    assert len(allocation.placements) == 4


def test_members_that_are_not_placed_cost_nothing() -> None:
    kinds = profiles()
    kinds["cpu-2-cores"]["z"] = Profile("z", "cpu-2-cores", "torch", (BatchProfile(8, 1.0, 0.0, 9),), base=10**9)
    assert plan(ENSEMBLE, [CPU], kinds, options=AllocationOptions(method="worst-fit")).planned == {"cpu:0/0": 160}


@pytest.mark.parametrize("rate", [0.0, -5.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(AllocationError, match="expected samples per second above 0"):
        AllocationOptions(rate=rate)
    with pytest.raises(AllocationError, match="max_benches -1 is invalid"):
        AllocationOptions(max_benches=-1)


def test_no_devices_and_no_common_batch_size_are_refused() -> None:
    with pytest.raises(AllocationError, match="no devices"):
        plan(ENSEMBLE, [], profiles())
    mixed = profiles()
    mixed["cpu-2-cores"]["a"] = Profile("a", "cpu-2-cores", "onnx", (BatchProfile(4, 0.1, 0.0, 1),))
    with pytest.raises(AllocationError, match="no batch size was measured for all"):
        plan(ENSEMBLE, [CPU], mixed)


def test_placements_come_in_the_order_of_the_members() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster)
    members = [p.member for p in allocation.placements]
    assert members == sorted(members, key=ENSEMBLE.members.index)


def test_it_is_stored_and_read_back() -> None:
    allocation = plan(ENSEMBLE, [CPU], profiles(), bench=larger_is_faster, name="mine")
    assert allocation.name == "mine"
    fields = msgspec.json.decode(files.to_json(allocation))
    del fields["version"]
    assert msgspec.convert(fields, Allocation) == allocation


def test_at_a_rate_the_plan_is_the_quickest_to_answer() -> None:
    points = (BatchProfile(1, 0.01, 0.0, 10), BatchProfile(8, 0.04, 0.0, 10), BatchProfile(32, 0.12, 0.0, 10))
    kinds = {"gpu": {m: Profile(m, "gpu", "onnx", points) for m in "ab"}}
    devices = [Device("cuda:0", "gpu", 1000), Device("cuda:1", "gpu", 1000)]
    slow = plan(ENSEMBLE, devices, kinds)
    quick = plan(ENSEMBLE, devices, kinds, options=AllocationOptions(rate=60.0))
    assert (slow.latency, slow.rate, quick.rate, quick.throughput) == (None, None, 60.0, None)
    times = arrivals(60.0, 1000, np.random.default_rng(0))
    assert quick.latency == pytest.approx(p99(quick.placements, devices, ProfileCosts(kinds, ENGINE_OVERHEAD), times))
    assert quick.latency <= p99(slow.placements, devices, ProfileCosts(kinds, ENGINE_OVERHEAD), times) * (1 + 1e-9)


def test_a_measured_latency_is_what_the_bench_says() -> None:
    found = plan(ENSEMBLE, [CPU], profiles(), bench=lambda _: 4.0, options=AllocationOptions(rate=5.0))
    assert (found.latency, found.throughput, found.start_throughput) == (0.25, None, None)


def test_a_rate_beyond_the_bound_is_refused() -> None:
    with pytest.raises(AllocationError, match=r"rate 1e\+06 samples/s exceeds the capacity of the devices \(50\)"):
        plan(ENSEMBLE, [CPU], profiles(), options=AllocationOptions(rate=1e6))


def test_where_ascents_end_below_the_optimum_the_optimum_is_planned() -> None:
    below = 0
    for seed in (8, 9, 10, 11):
        problem = random_problem(seed, 3, 3, 3, seed % 2 == 0)
        best = placement_milp.solve_optimum(problem).throughput
        tops = [
            hill_climb(p, problem)
            for p in (longest_processing_time_first(problem), plan_with_model(problem, AllocationOptions()).start)
            if p
        ]
        below += max(speed(p, problem) for p in tops) < 0.95 * best
        assert speed(plan_with_model(problem, AllocationOptions()).best, problem) == pytest.approx(best, rel=1e-3)
    assert below


def speed(placements: Placements, problem: AllocationProblem) -> float:
    return throughput_model.predict(placements, problem.devices, problem.costs).throughput
