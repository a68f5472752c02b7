from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.allocation import neighbourhood
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.problem import (
    AllocationProblem,
    PlacementConstraint,
    Placements,
    canonical,
    check_pins,
    parse_pins,
)
from ripieno.allocation.worst_fit import worst_fit
from ripieno.errors import AllocationError
from ripieno.types import BatchProfile, Device, Placement, Profile
from tests.allocation.instances import random_problem

POINTS = (BatchProfile(1, 0.01, 0.0, 1), BatchProfile(8, 0.04, 0.0, 2))
COSTS = ProfileCosts({k: {m: Profile(m, k, "onnx", POINTS) for m in "ab"} for k in ("gpu", "cpu-4-cores")})
GPU, CPU = Device("cuda:0", "gpu", 100), Device("cpu:0", "cpu-4-cores", 100, (0, 1, 2, 3))
PROBLEM = AllocationProblem(["a", "b"], (GPU, CPU), COSTS, (1, 8), lanes=4)
START = (Placement("a", "cuda:0", 8), Placement("b", "cuda:0", 8))


def around(placements: Placements, problem: AllocationProblem = PROBLEM) -> set[Placements]:
    return set(neighbourhood.neighbours(placements, problem))


def test_every_kind_of_update_is_there() -> None:
    a, b = START
    found = around((a, dataclasses.replace(b, device="cpu:0")))
    b = dataclasses.replace(b, device="cpu:0")
    for expected in [
        (dataclasses.replace(a, batch_size=1), b),  # another batch
        (dataclasses.replace(a, device="cpu:0"), b),  # a move
        (dataclasses.replace(a, device="cpu:0"), dataclasses.replace(b, device="cuda:0")),  # an exchange
        (a, b, Placement("a", "cpu:0", 1)),  # a replica
        (a, b, dataclasses.replace(b, lane=1)),  # the CPU in two lanes, b in both
    ]:
        assert canonical(expected) in found
    assert canonical((a, b)) in around((a, b, Placement("a", "cpu:0", 8)))  # a replica less


def test_more_workers_divide_the_members_and_fewer_join_them() -> None:
    on_cpu = tuple(dataclasses.replace(p, device="cpu:0") for p in START)
    cut = (on_cpu[0], dataclasses.replace(on_cpu[1], lane=1))
    assert canonical(cut) in around(on_cpu)
    assert canonical(on_cpu) in around(cut)


def test_lanes_are_divisors_of_the_cores() -> None:
    assert PROBLEM.lane_counts(CPU) == [1, 2, 4]
    assert PROBLEM.lane_counts(GPU) == [1]
    six = Device("cpu:1", "cpu-6-cores", 1, tuple(range(6)))
    assert PROBLEM.lane_counts(six) == [1, 2, 3]


def test_without_replicas_each_member_stays_single() -> None:
    alone = dataclasses.replace(PROBLEM, replicas=False)
    assert all(len(found) == 2 for found in around(START, alone))


def test_the_last_placement_of_a_member_is_never_dropped() -> None:
    assert all({p.member for p in found} == {"a", "b"} for found in around(START))


def test_lanes_are_renumbered_without_gaps() -> None:
    raw = (Placement("a", "cpu:0", 8, 5), Placement("b", "cpu:0", 8, 2), Placement("a", "cuda:0", 8, 3))
    assert [(p.member, p.device, p.lane) for p in canonical(raw)] == [
        ("b", "cpu:0", 0),
        ("a", "cpu:0", 1),
        ("a", "cuda:0", 0),
    ]


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 1000), st.booleans())
def test_neighbours_fit_place_all_members_and_are_new(seed: int, step: int, replicas: bool) -> None:
    problem = random_problem(seed % 50, 3, 3, 2, replicas, tightness=2)
    try:
        current = canonical(worst_fit(problem.members, problem.devices, problem.costs, 1))
    except AllocationError:
        return
    for turn in range(3):  # a walk
        found = list(neighbourhood.neighbours(current, problem))
        assert len(set(found)) == len(found)
        assert current not in found
        for candidate in found:
            assert problem.allows(candidate)
            assert canonical(candidate) == candidate
            places = [(p.member, p.device, p.lane) for p in candidate]
            assert len(set(places)) == len(places)
        if not found:
            return
        current = found[(step + turn) % len(found)]


def test_pins_are_read_and_joined() -> None:
    assert parse_pins(["a=cuda:0", "a=@8", "b=cpu:0@32", "c=@1"]) == {
        "a": PlacementConstraint("cuda:0", 8),
        "b": PlacementConstraint("cpu:0", 32),
        "c": PlacementConstraint(None, 1),
    }


@pytest.mark.parametrize("text", ["a", "a=", "=cuda:0", "a=@", "a=@x", "a=@0", "a=cuda:0@-1"])
def test_what_is_no_pin_is_refused(text: str) -> None:
    with pytest.raises(AllocationError, match="cannot parse pin"):
        parse_pins([text])


def test_contradicting_and_unknown_pins_are_refused() -> None:
    with pytest.raises(AllocationError, match="a is pinned twice"):
        parse_pins(["a=cuda:0", "a=cpu:0"])
    with pytest.raises(AllocationError, match="pinned member z is not in the ensemble: pass one of a, b"):
        check_pins({"z": PlacementConstraint("cpu:0")}, PROBLEM.members, list(PROBLEM.by_name))
    with pytest.raises(AllocationError, match="a is pinned to unknown device cuda:9"):
        check_pins({"a": PlacementConstraint("cuda:9")}, PROBLEM.members, list(PROBLEM.by_name))


def test_neighbours_obey_pins() -> None:
    pinned = dataclasses.replace(PROBLEM, pins={"a": PlacementConstraint("cuda:0"), "b": PlacementConstraint(None, 8)})
    for found in around(START, pinned):
        assert {p.device for p in found if p.member == "a"} == {"cuda:0"}
        assert {p.batch_size for p in found if p.member == "b"} == {8}
