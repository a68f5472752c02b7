"""Infeasible problems are rejected with the smallest change that makes them feasible, and the change suffices."""

from __future__ import annotations

import dataclasses
import re
import time

import numpy as np
import pytest

from ripieno.allocation import AllocationOptions, PlacementConstraint, infeasibility, memory, throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.memory import format_bytes, format_rounded_up
from ripieno.allocation.plan import plan_with_model
from ripieno.allocation.problem import AllocationProblem
from ripieno.errors import AllocationError
from ripieno.types import BatchProfile, Device, Profile
from tests.allocation.instances import random_problem

MIB = 1 << 20


def problem_of(
    sizes: list[int], memories: list[int], pins: dict[str, PlacementConstraint] | None = None, **other: object
) -> AllocationProblem:
    """Build members of `sizes` MiB in batches of 1 and twice that in batches of 8, on GPUs of `memories` MiB."""
    names = [f"m{i}" for i in range(len(sizes))]
    profiles = {
        m: Profile(
            m, "gpu", "onnx", (BatchProfile(1, 0.01, 0.0, s * MIB), BatchProfile(8, 0.02, 0.0, 2 * s * MIB)), base=MIB
        )
        for m, s in zip(names, sizes, strict=True)
    }
    devices = tuple(Device(f"cuda:{i}", "gpu", size * MIB) for i, size in enumerate(memories))
    return AllocationProblem(names, devices, ProfileCosts({"gpu": profiles}), (1, 8), pins or {}, **other)  # type: ignore[arg-type]


def test_twelve_heavy_members_fill_four_devices_that_hold_three_each() -> None:
    heavy = problem_of([100] * 12, [301] * 4)
    begin = time.perf_counter()
    found = plan_with_model(heavy, AllocationOptions(seconds=2.0))
    assert time.perf_counter() - begin < 20
    assert heavy.allows(found.best)
    assert sorted(p.device for p in found.best) == sorted(d.name for d in heavy.devices for _ in range(3))
    assert {p.batch_size for p in found.best} == {1}
    # with a thousand bytes less on one device, one member does not fit
    less = dataclasses.replace(heavy, devices=(*heavy.devices[1:], Device("cuda:0", "gpu", 301 * MIB - 1000)))
    with pytest.raises(AllocationError, match=r"12 members do not fit .*leave out m\d+$"):
        plan_with_model(less, AllocationOptions())


def test_twelve_uneven_members_that_worst_fit_cannot_place_are_placed() -> None:
    # 5 + 4 and 3 + 3 + 3 on each pair of devices: worst-fit (largest first, most free memory) leaves one over
    sizes = [5, 4, 3, 3, 3, 5, 4, 3, 3, 3]
    tight = problem_of(sizes, [10] * 4)
    found = plan_with_model(tight, AllocationOptions())
    assert found.start is None
    assert tight.allows(found.best)


def test_one_member_on_sixteen_devices_is_sixteen_times_as_fast() -> None:
    lone = problem_of([100], [300] * 16)
    found = plan_with_model(lone, AllocationOptions())
    assert sorted(p.device for p in found.best) == sorted(d.name for d in lone.devices)
    assert throughput_model.predict(found.best, lone.devices, lone.costs).throughput == pytest.approx(16 * 8 / 0.02)
    assert found.bound == pytest.approx(16 * 8 / 0.02)
    alone = plan_with_model(dataclasses.replace(lone, replicas=False), AllocationOptions())
    assert len(alone.best) == 1


def test_more_than_there_is_memory_anywhere_is_refused_with_the_smallest_changes() -> None:
    with pytest.raises(AllocationError) as caught:
        plan_with_model(problem_of([60, 50, 40, 30], [101, 61]), AllocationOptions())
    assert str(caught.value) == (
        "4 members do not fit on cuda:0, cuda:1: with the smallest batches they need 180.0 MiB "
        "(m0 60.0 MiB) plus 1.0 MiB of runtime per device, but only 162.0 MiB are available: "
        "give cuda:0 20.0 MiB more memory than its 101.0 MiB, or add 1 more gpu, or leave out m3"
    )


def test_a_member_too_large_for_any_device_is_named() -> None:
    with pytest.raises(AllocationError, match=r"\(m0 500\.0 MiB\).*give cuda:0 400\.0 MiB more .*, or leave out m0$"):
        plan_with_model(problem_of([500, 10], [101, 61]), AllocationOptions())


def test_a_pin_that_makes_it_infeasible_is_named() -> None:
    crowded = problem_of(
        [60, 60], [100, 100], {"m0": PlacementConstraint("cuda:0"), "m1": PlacementConstraint("cuda:0")}
    )
    with pytest.raises(AllocationError, match="remove the pin of m0"):
        plan_with_model(crowded, AllocationOptions())
    large = problem_of([60], [100], {"m0": PlacementConstraint(None, 8)})
    with pytest.raises(AllocationError, match="remove the pin of m0"):
        plan_with_model(large, AllocationOptions())
    both = problem_of([60, 60], [65, 65], {"m0": PlacementConstraint(None, 8), "m1": PlacementConstraint(None, 8)})
    with pytest.raises(AllocationError, match="remove all pins"):
        plan_with_model(both, AllocationOptions())


def test_what_fits_is_not_refused() -> None:
    assert infeasibility.explain_infeasible(problem_of([60, 40], [101])) is None
    for seed in range(6):
        problem = random_problem(seed, 3, 5, 3, tightness=0.6)
        placed = (
            plan_with_model(problem, AllocationOptions()).best
            if infeasibility.explain_infeasible(problem) is None
            else None
        )
        assert placed is None or problem.allows(placed)


@pytest.mark.parametrize("seed", range(8))
def test_each_change_makes_it_fit_and_a_little_less_does_not(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = [int(s) for s in generator.integers(10, 90, 6)]
    problem = problem_of(sizes, [int(r) for r in generator.integers(60, 120, 3)])
    message = infeasibility.explain_infeasible(problem)
    if message is None:
        pytest.skip("these fit")

    def fits(devices: tuple[Device, ...], members: list[str]) -> bool:
        return infeasibility.explain_infeasible(dataclasses.replace(problem, devices=devices, members=members)) is None

    all_members = list(problem.members)
    give = re.search(r"give (\S+) ([\d.]+) (KiB|MiB|GiB) more", message)
    assert give is not None
    extra = float(give[2]) * {"KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB}[give[3]]
    grown = tuple(
        dataclasses.replace(d, memory=d.memory + int(extra)) if d.name == give[1] else d for d in problem.devices
    )
    less = tuple(
        dataclasses.replace(d, memory=d.memory + int(0.95 * extra)) if d.name == give[1] else d for d in problem.devices
    )
    assert fits(grown, all_members)
    assert not fits(less, all_members)
    out = re.search(r"leave out (m\d(?:, m\d)*)$", message)
    assert out is not None
    without = out[1].split(", ")
    assert fits(problem.devices, [m for m in all_members if m not in without])
    assert all(not fits(problem.devices, [m for m in all_members if m not in without[1:]]) for _ in without)


def test_words_that_are_to_be_enough_are_rounded_up() -> None:
    assert (format_bytes(int(3.04 * 2**30)), format_rounded_up(int(3.04 * 2**30))) == ("3.0 GiB", "3.1 GiB")
    assert (format_rounded_up(1), format_rounded_up(1024), format_rounded_up(1500), format_rounded_up(0)) == (
        "1 bytes",
        "1.0 KiB",
        "1.5 KiB",
        "0 bytes",
    )
    assert memory.format_rounded_up(20 * MIB) == "20.0 MiB"


@pytest.mark.parametrize("less", [1, 100, 10_000])
@pytest.mark.parametrize(("sizes", "rooms"), [([8, 8], [16]), ([5, 4, 3, 3, 3], [9, 9]), ([4] * 12, [12] * 4)])
def test_memory_is_counted_to_the_byte(sizes: list[int], rooms: list[int], less: int) -> None:
    exact = problem_of([1000 * s for s in sizes], [1000 * r + 1 for r in rooms])
    assert exact.allows(plan_with_model(exact, AllocationOptions()).best)
    last = exact.devices[-1]
    short = dataclasses.replace(
        exact, devices=(*exact.devices[:-1], dataclasses.replace(last, memory=last.memory - less))
    )
    change = f"give {last.name} {format_rounded_up(less)} more memory than its {format_bytes(last.memory - less)},"
    with pytest.raises(AllocationError, match=re.escape(change)):
        plan_with_model(short, AllocationOptions())


def test_what_would_help_is_said_of_the_device_that_members_are_pinned_to() -> None:
    crowded = problem_of(
        [60, 60, 10], [100, 100], {"m0": PlacementConstraint("cuda:1"), "m1": PlacementConstraint("cuda:1")}
    )
    with pytest.raises(
        AllocationError, match=r": remove the pin of m0, or give cuda:1 21\.0 MiB more .*, or leave out m1$"
    ):
        plan_with_model(crowded, AllocationOptions())
