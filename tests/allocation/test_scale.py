from __future__ import annotations

import dataclasses

import pytest

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions, ModelPlan, plan_with_model, problem_of
from ripieno.allocation.problem import AllocationProblem
from ripieno.allocation.scale import ScalingPoint, plateau, scale
from ripieno.types import BatchProfile, Device, Profile

MEMBERS = ("a", "b", "c")


def one(member: str, kind: str, slower: float) -> Profile:
    points = tuple(BatchProfile(b, slower * 0.01 * (1 + "abc".index(member)), 0.0, 10) for b in (8,))
    return Profile(member, kind, "onnx", points)


COSTS = ProfileCosts(
    {kind: {m: one(m, kind, slow) for m in MEMBERS} for kind, slow in (("gpu", 1), ("cpu-4-cores", 40))}
)
GPU, CPU = Device("cuda:0", "gpu", 100), Device("cpu:0", "cpu-4-cores", 100, (0, 1, 2, 3))


def test_without_replicas_the_slowest_member_alone_is_the_plateau() -> None:
    rows = scale(MEMBERS, GPU, [CPU], COSTS, (0, 1, 2, 3, 4), AllocationOptions(replicas=False, lanes=1))
    speeds = [row.planned for row in rows]
    # all on the CPU 8/2.4; one GPU 8/0.06; two: c against a + b, 8/0.03; then c alone, 8/0.03
    assert speeds == [pytest.approx(x) for x in (8 / 2.4, 8 / 0.06, 8 / 0.03, 8 / 0.03, 8 / 0.03)]
    assert plateau(rows) == 2


def test_with_replicas_each_device_adds_its_part() -> None:
    rows = scale(MEMBERS, GPU, [], COSTS, (1, 2, 4), AllocationOptions(lanes=1))
    assert [row.planned for row in rows] == [pytest.approx(n * 8 / 0.06) for n in (1, 2, 4)]
    assert plateau(rows) is None


def test_more_devices_are_never_slower_and_never_beyond_the_bound() -> None:
    rows = scale(MEMBERS, GPU, [CPU], COSTS, (0, 1, 2, 3), AllocationOptions(lanes=1))
    planned = [row.planned or 0.0 for row in rows]
    assert planned == sorted(planned)
    for row in rows:
        assert row.worst_fit is not None
        assert row.planned is not None
        assert row.bound is not None
        assert row.worst_fit <= row.planned * (1 + 1e-9) <= row.bound * (1 + 1e-4)


def test_a_worse_plan_for_more_devices_gives_way_to_that_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan_with_model(
        problem_of(MEMBERS, [GPU], COSTS, (), AllocationOptions(lanes=1)), AllocationOptions(lanes=1)
    )
    slow = (*found.best[:2], dataclasses.replace(found.best[2], device="cpu:0"))

    def poor(problem: AllocationProblem, options: AllocationOptions) -> ModelPlan:
        made = plan_with_model(problem, options)
        return dataclasses.replace(made, best=slow) if len(problem.devices) == 3 else made

    monkeypatch.setattr("ripieno.allocation.scale.plan_with_model", poor)
    one_gpu, two = scale(MEMBERS, GPU, [CPU], COSTS, (1, 2), AllocationOptions(lanes=1))
    assert two.planned == one_gpu.planned


def test_counts_that_cannot_hold_the_members_have_no_figures() -> None:
    rows = scale(MEMBERS, GPU, [], COSTS, (0, 1), AllocationOptions(lanes=1))
    assert rows[0] == ScalingPoint(0, None, None, None)
    assert rows[1].planned is not None
    assert plateau([rows[0]]) is None
