from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.allocation import placement_milp, throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.mcnaughton import mcnaughton_wrap
from ripieno.allocation.problem import AllocationProblem, PlacementConstraint
from ripieno.types import BatchProfile, Device, Profile


def fleet(times: list[float], counts: dict[str, tuple[int, float]], memory: int = 10**9) -> AllocationProblem:
    """Return members that take `times` per sample, and `counts` devices of each kind with its slowdown."""
    members = [f"m{i}" for i in range(len(times))]
    costs = ProfileCosts(
        {
            kind: {
                m: Profile(m, kind, "onnx", (BatchProfile(8, 8 * t * slow, 0.0, 10),))
                for m, t in zip(members, times, strict=False)
            }
            for kind, (_, slow) in counts.items()
        }
    )
    devices = [Device(f"cuda:{kind}{i}", kind, memory) for kind, (count, _) in counts.items() for i in range(count)]
    return AllocationProblem(members, tuple(devices), costs, (8,))


times = st.lists(st.floats(0.001, 0.1), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(times, st.integers(1, 12), st.integers(0, 3))
def test_where_memory_is_plenty_nothing_is_lost_against_the_bound(times: list[float], fast: int, slow: int) -> None:
    problem = fleet(times, {"a": (fast, 1.0), **({"b": (slow, 3.0)} if slow else {})})
    placements = mcnaughton_wrap(problem)
    assert placements is not None
    assert problem.allows(placements)
    reached = throughput_model.predict(placements, problem.devices, problem.costs).throughput
    assert reached == pytest.approx(placement_milp.solve_optimum(problem, relaxed=True).bound, rel=1e-4)


def test_a_device_is_shared_by_neighbours_only() -> None:
    problem = fleet([0.01] * 3, {"a": (2, 1.0)})  # each member needs two thirds of a device
    placements = mcnaughton_wrap(problem)
    assert placements is not None
    assert [(p.member, p.device) for p in placements] == [
        ("m0", "cuda:a0"), ("m1", "cuda:a0"), ("m1", "cuda:a1"), ("m2", "cuda:a1"),
    ]  # fmt: skip


def test_it_gives_up_where_memory_pins_or_single_places_forbid_it() -> None:
    assert mcnaughton_wrap(fleet([0.01, 0.01], {"a": (1, 1.0)}, memory=15)) is None
    problem = fleet([0.01, 0.01], {"a": (2, 1.0)})
    assert mcnaughton_wrap(dataclasses.replace(problem, replicas=False)) is None
    assert mcnaughton_wrap(dataclasses.replace(problem, pins={"m0": PlacementConstraint("cuda:a1")})) is None
