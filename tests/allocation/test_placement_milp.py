from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ripieno.allocation import placement_milp, throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.hill_climbing import hill_climb, longest_processing_time_first, with_best_batch_sizes
from ripieno.allocation.problem import AllocationProblem, PlacementConstraint
from ripieno.allocation.worst_fit import worst_fit
from ripieno.errors import AllocationError
from ripieno.profiles.devices import partition_kind
from ripieno.types import BatchProfile, Device, Placement, Profile
from tests.allocation.instances import best_of_all, exhaustive, random_problem, with_lanes

SHAPES = [(2, 3, 2, False), (3, 2, 2, False), (2, 2, 2, True), (2, 3, 1, True), (3, 2, 1, True)]
INSTANCES = 50
"""of each shape: 250 in all"""


def speed(placements: tuple[Placement, ...], problem: AllocationProblem) -> float:
    return throughput_model.predict(placements, problem.devices, problem.costs).throughput


@pytest.mark.parametrize("shape", SHAPES)
def test_the_program_agrees_with_the_search_of_all_allocations(shape: tuple[int, int, int, bool]) -> None:
    for seed in range(INSTANCES):
        problem = random_problem(seed, *shape)
        best, _ = exhaustive(problem)
        found = placement_milp.solve_optimum(problem)
        assert found.throughput == pytest.approx(best, rel=1e-5)
        assert best * (1 - 1e-6) <= found.bound <= best * (1 + 1e-4)
        if found.placements:
            assert problem.allows(found.placements)
        else:
            assert best == 0


@pytest.mark.parametrize("shape", [(2, 2, 1, True), (1, 3, 2, False), (1, 2, 2, True)])
def test_the_program_agrees_where_the_cpu_may_be_cut(shape: tuple[int, int, int, bool]) -> None:
    cut = 0
    for seed in range(20):
        problem = with_lanes(random_problem(seed, *shape, tightness=4), seed)
        best, _ = exhaustive(problem)
        found = placement_milp.solve_optimum(problem)
        assert found.throughput == pytest.approx(best, rel=1e-5)
        assert best * (1 - 1e-6) <= found.bound <= best * (1 + 1e-4)
        if found.placements:
            assert problem.allows(found.placements)
            cut += any(p.lane for p in found.placements)
    assert cut > 2


def partly_measured(problem: AllocationProblem, seed: int) -> AllocationProblem:
    """Return `problem` with some, all or no members measured on parts of its CPU."""
    generator = np.random.default_rng([seed, 5])
    profiles = {
        kind: {m: p for m, p in of.items() if generator.random() < 0.5} if part_of(kind) else of
        for kind, of in problem.costs.profiles.items()
    }
    return dataclasses.replace(problem, costs=ProfileCosts(profiles, overhead=problem.costs.overhead))


def part_of(kind: str) -> bool:
    return kind in {partition_kind("cpu-4-cores", lanes) for lanes in (2, 4)}


@pytest.mark.parametrize("shape", [(1, 3, 2, False), (2, 2, 1, True), (1, 2, 2, True)])
@pytest.mark.parametrize("overhead", [0.0, 2e-3])
def test_the_bound_holds_where_a_cut_was_measured_for_some_members_only(
    shape: tuple[int, int, int, bool], overhead: float
) -> None:
    used = 0
    for seed in range(10):
        whole = with_lanes(random_problem(seed, *shape, tightness=4), seed)
        problem = partly_measured(dataclasses.replace(whole, costs=ProfileCosts(whole.costs.profiles, overhead)), seed)
        best, placements = exhaustive(problem)
        assert best <= placement_milp.solve_optimum(problem).bound * (1 + 1e-6)
        assert best <= placement_milp.solve_optimum(problem, relaxed=True).bound * (1 + 1e-6)
        assert placement_milp.solve_optimum(problem).throughput == pytest.approx(best, rel=1e-5)
        used += any(p.lane for p in placements or ())
    assert used


def test_an_unmeasured_partition_is_not_faster_than_the_whole() -> None:
    problem = random_problem(3, 1, 2, 2)
    costs = ProfileCosts(problem.costs.profiles, overhead=1e-3)
    device = problem.devices[0]
    for size in problem.batch_sizes:
        whole = costs.seconds("m0", device, size)
        assert costs.seconds("m0", device, size, 4) == pytest.approx(4 * whole)


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_device_smaller_than_the_runtimes_of_its_cuts_is_planned_whole_or_refused(room: int) -> None:
    """Four workers with a runtime of 120 MB do not fit into 130, 250 or 370 MB."""
    problem = with_lanes(random_problem(0, 1, 2, 2), 0, lanes=4)

    def heavy(profile: Profile) -> Profile:
        points = tuple(dataclasses.replace(point, bytes=4 << 20) for point in profile.points)
        return dataclasses.replace(profile, base=120 << 20, points=points)

    profiles = {kind: {m: heavy(p) for m, p in of.items()} for kind, of in problem.costs.profiles.items()}
    small = dataclasses.replace(problem.devices[0], memory=(120 * room + 10) << 20)
    tight = dataclasses.replace(problem, devices=(small,), costs=ProfileCosts(profiles))
    found = placement_milp.solve_optimum(tight)
    assert found.placements is not None
    assert tight.allows(found.placements)
    assert found.throughput == pytest.approx(exhaustive(tight)[0], rel=1e-5)
    tiny = dataclasses.replace(tight, devices=(dataclasses.replace(small, memory=100 << 20),))
    assert placement_milp.solve_optimum(tiny).placements is None


def test_the_relaxed_program_is_a_bound() -> None:
    for seed in range(10):
        problem = random_problem(seed, 2, 3, 2, True)
        throughput = placement_milp.solve_optimum(problem).throughput
        assert placement_milp.solve_optimum(problem, relaxed=True).bound >= throughput * (1 - 1e-6)


def test_known_placements_are_never_lost() -> None:
    problem = random_problem(3, 3, 4, 3, True)
    whole = placement_milp.solve_optimum(problem)
    assert whole.placements is not None
    again = placement_milp.solve_optimum(problem, known=whole.placements)
    assert again.throughput == pytest.approx(whole.throughput, rel=1e-6)
    assert again.bound == pytest.approx(whole.throughput, rel=1e-4)
    start = worst_fit(problem.members, problem.devices, problem.costs, 1)
    assert speed(start, problem) < 0.9 * whole.throughput
    assert placement_milp.solve_optimum(problem, known=start).throughput == pytest.approx(whole.throughput, rel=1e-5)


def test_without_replicas_the_relaxed_bound_is_no_more_than_the_slowest_member_alone() -> None:
    costs = ProfileCosts({"gpu": {"a": profile("a", "gpu"), "b": profile("b", "gpu", 1, 0.02)}})
    problem = AllocationProblem(
        ["a", "b"], tuple(Device(f"cuda:{i}", "gpu", 5) for i in range(9)), costs, (8,), replicas=False
    )
    assert placement_milp.solve_optimum(problem, relaxed=True).bound == pytest.approx(8 / 0.02)
    many = dataclasses.replace(problem, replicas=True)
    assert placement_milp.solve_optimum(many, relaxed=True).bound == pytest.approx(9 * 8 / 0.03)


def test_an_ascent_crosses_plateaus_where_two_devices_are_equally_slow() -> None:
    members = ["a", "b", "c", "d"]
    costs = ProfileCosts({"gpu": {m: profile(m, "gpu") for m in members}})
    problem = AllocationProblem(
        members, tuple(Device(f"cuda:{i}", "gpu", 5) for i in range(4)), costs, (8,), replicas=False
    )
    start = tuple(Placement(m, f"cuda:{i // 2}", 8) for i, m in enumerate(members))
    assert speed(start, problem) == pytest.approx(400)
    assert speed(hill_climb(start, problem), problem) == pytest.approx(800)


def test_an_ascent_moves_where_only_another_batch_size_fits() -> None:
    points = (BatchProfile(1, 0.008, 0.0, 10), BatchProfile(8, 0.040, 0.0, 20))
    costs = ProfileCosts({"gpu": {m: Profile(m, "gpu", "onnx", points) for m in "ab"}})
    devices = (Device("cuda:0", "gpu", 40), Device("cuda:1", "gpu", 12))
    problem = AllocationProblem(["a", "b"], devices, costs, (1, 8), replicas=False)
    start = (Placement("a", "cuda:0", 8), Placement("b", "cuda:0", 8))
    assert speed(start, problem) == pytest.approx(100)
    assert speed(hill_climb(start, problem), problem) == pytest.approx(125)


def test_greedy_is_near_the_optimum_and_never_below_its_start() -> None:
    ratios = []
    for seed in range(20):
        problem = random_problem(seed, 3, 3, 3, seed % 2 == 0)
        best = placement_milp.solve_optimum(problem).throughput
        starts = [longest_processing_time_first(problem)]
        for size in problem.batch_sizes:
            try:
                starts.append(worst_fit(problem.members, problem.devices, problem.costs, size))
            except AllocationError:
                continue
        reached = []
        for start in filter(None, starts):
            top = hill_climb(start, problem)
            assert problem.allows(top)
            assert speed(top, problem) >= speed(start, problem) * (1 - 1e-9)
            reached.append(speed(top, problem))
        if best:
            ratios.append(max(reached, default=0.0) / best)
    assert sum(ratios) / len(ratios) > 0.95


def profile(member: str, kind: str, size: int = 1, seconds: float = 0.01) -> Profile:
    return Profile(member, kind, "onnx", (BatchProfile(8, seconds, 0.0, size),))


def test_twelve_heavy_members_fill_four_devices_that_hold_three_each() -> None:
    members = [f"m{i}" for i in range(12)]
    costs = ProfileCosts({"gpu": {m: profile(m, "gpu", 10) for m in members}})
    devices = tuple(Device(f"cuda:{i}", "gpu", 39) for i in range(4))
    problem = AllocationProblem(members, devices, costs, (8,))
    found = placement_milp.solve_optimum(problem)
    assert found.placements is not None
    assert found.throughput == pytest.approx(8 / 0.03)
    assert {d.name: sum(p.device == d.name for p in found.placements) for d in devices} == {
        f"cuda:{i}": 3 for i in range(4)
    }
    assert hill_climb(worst_fit(members, devices, costs), problem)


def test_one_member_takes_sixteen_devices() -> None:
    costs = ProfileCosts({"gpu": {"a": profile("a", "gpu")}})
    problem = AllocationProblem(["a"], tuple(Device(f"cuda:{i}", "gpu", 5) for i in range(16)), costs, (8,))
    assert placement_milp.solve_optimum(problem).throughput == pytest.approx(16 * 800)
    assert speed(hill_climb((Placement("a", "cuda:0", 8),), problem), problem) == pytest.approx(16 * 800)


def test_what_fits_nowhere_has_no_optimum() -> None:
    costs = ProfileCosts({"gpu": {"a": profile("a", "gpu", 10)}})
    found = placement_milp.solve_optimum(AllocationProblem(["a"], (Device("cuda:0", "gpu", 9),), costs, (8,)))
    assert (found.placements, found.bound) == (None, 0)


def test_a_plan_is_found_where_worst_fit_fails() -> None:
    sizes = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}  # 5 + 4 and 3 + 3 + 3 fill two devices of 9
    costs = ProfileCosts({"gpu": {m: profile(m, "gpu", s) for m, s in sizes.items()}})
    devices = (Device("cuda:0", "gpu", 9), Device("cuda:1", "gpu", 9))
    with pytest.raises(AllocationError):
        worst_fit(list(sizes), devices, costs)
    assert placement_milp.solve_optimum(AllocationProblem(list(sizes), devices, costs, (8,))).placements


def test_pins_are_obeyed() -> None:
    problem = random_problem(1, 3, 3, 3, True, tightness=4)
    pinned = dataclasses.replace(
        problem, pins={"m0": PlacementConstraint("cpu:0", 1), "m1": PlacementConstraint(None, 8)}
    )
    found = placement_milp.solve_optimum(pinned)
    assert found.placements is not None
    assert [(p.device, p.batch_size) for p in found.placements if p.member == "m0"] == [("cpu:0", 1)]
    assert {p.batch_size for p in found.placements if p.member == "m1"} == {8}
    start = worst_fit(pinned.members, pinned.devices, pinned.costs, 8, pins=pinned.pins)
    top = hill_climb(start, pinned)
    assert pinned.allows(start)
    assert pinned.allows(top)
    assert speed(top, pinned) <= found.bound * (1 + 1e-6)


def test_a_cpu_is_cut_where_its_parts_are_measured_to_be_worth_it() -> None:
    kinds = {"cpu-2-cores": 0.010, "cpu-1-core": 0.012}
    costs = ProfileCosts({kind: {m: profile(m, kind, 1, s) for m in "ab"} for kind, s in kinds.items()})
    problem = AllocationProblem(["a", "b"], (Device("cpu:0", "cpu-2-cores", 100, (0, 1)),), costs, (8,), lanes=2)
    found = placement_milp.solve_optimum(problem)
    assert found.placements is not None
    assert {p.lane for p in found.placements} == {0, 1}
    assert found.throughput == pytest.approx(8 / 0.012)
    start = worst_fit(["a", "b"], problem.devices, costs)
    assert speed(hill_climb(start, problem), problem) == pytest.approx(8 / 0.012)
    whole = dataclasses.replace(problem, lanes=1)
    assert placement_milp.solve_optimum(whole).throughput == pytest.approx(8 / 0.020)


def test_the_batches_that_save_most_time_per_byte_are_chosen() -> None:
    def curve(member: str, times: tuple[float, float], sizes: tuple[int, int]) -> Profile:
        return Profile(
            member,
            "gpu",
            "onnx",
            tuple(BatchProfile(b, t, 0.0, s) for b, t, s in zip((1, 8), times, sizes, strict=True)),
        )

    costs = ProfileCosts({"gpu": {"a": curve("a", (0.01, 0.04), (10, 20)), "b": curve("b", (0.01, 0.02), (10, 20))}})
    problem = AllocationProblem(["a", "b"], (Device("cuda:0", "gpu", 30),), costs, (1, 8))
    placements = with_best_batch_sizes((Placement("a", "cuda:0", 1), Placement("b", "cuda:0", 1)), problem, ["cuda:0"])
    assert {p.member: p.batch_size for p in placements} == {"a": 1, "b": 8}


def test_the_program_agrees_with_tables_over_all_allocations_of_larger_problems() -> None:
    for seed in range(6):
        problem = random_problem(seed, 3, 4, 3, seed % 2 == 0)
        assert placement_milp.solve_optimum(problem).throughput == pytest.approx(best_of_all(problem), rel=1e-5)


def test_the_tables_agree_with_the_plain_search() -> None:
    for seed in range(10):
        problem = random_problem(seed, 2, 3, 2, seed % 2 == 0)
        assert best_of_all(problem) == pytest.approx(exhaustive(problem)[0], rel=1e-6)
