from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ripieno.allocation import memory
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.worst_fit import worst_fit
from ripieno.errors import AllocationError
from ripieno.types import BatchProfile, Device, Profile

MIB = 1 << 20


def costs_of(sizes: dict[str, int], kinds: tuple[str, ...] = ("gpu", "cpu"), base: int = 0) -> ProfileCosts:
    """Return costs of members that need `sizes` (MiB) at batch size 8, half at 1."""

    def one(member: str, kind: str) -> Profile:
        points = (BatchProfile(1, 0.01, 0.0, sizes[member] * MIB // 2), BatchProfile(8, 0.02, 0.0, sizes[member] * MIB))
        return Profile(member, kind, "onnx", points, base=base * MIB)

    return ProfileCosts({kind: {m: one(m, kind) for m in sizes} for kind in kinds})


def gpu(number: int, mib: int) -> Device:
    return Device(f"cuda:{number}", "gpu", mib * MIB)


def cpu(mib: int) -> Device:
    return Device("cpu:0", "cpu", mib * MIB, (0, 1))


def devices_of(sizes: dict[str, int], *devices: Device, base: int = 0) -> dict[str, str]:
    placed = worst_fit(list(sizes), devices, costs_of(sizes, base=base))
    return {p.member: p.device for p in placed}


def test_the_largest_goes_first_and_each_where_most_is_left() -> None:
    # d=50 to cuda:0 (100 left against 90), c=40 to cuda:1 (90 against 50), then 50 each: b=30 to cuda:0, a=20 to cuda:1
    sizes = {"a": 20, "b": 30, "c": 40, "d": 50}
    assert devices_of(sizes, gpu(0, 100), gpu(1, 90)) == {"a": "cuda:1", "b": "cuda:0", "c": "cuda:1", "d": "cuda:0"}


def test_a_gpu_comes_before_a_cpu_with_more_memory() -> None:
    assert devices_of({"a": 10}, cpu(1000), gpu(0, 20)) == {"a": "cuda:0"}


def test_the_cpu_takes_what_no_gpu_can_hold() -> None:
    assert devices_of({"a": 10, "b": 15}, cpu(1000), gpu(0, 20)) == {"a": "cpu:0", "b": "cuda:0"}


def test_the_first_member_of_a_device_pays_its_base() -> None:
    assert devices_of({"a": 10, "b": 10}, gpu(0, 25), cpu(15), base=5) == {"a": "cuda:0", "b": "cuda:0"}
    assert devices_of({"a": 10, "b": 10}, gpu(0, 24), cpu(15), base=5) == {"a": "cuda:0", "b": "cpu:0"}


def test_placements_come_in_the_order_of_the_members() -> None:
    sizes = {"a": 1, "b": 3, "c": 2}
    assert [p.member for p in worst_fit(["b", "a", "c"], [cpu(99)], costs_of(sizes))] == ["b", "a", "c"]


def test_an_error_names_the_member_and_a_batch_size_that_fits() -> None:
    sizes = {"a": 60, "b": 60}
    with pytest.raises(AllocationError, match=r"b needs 60.0 MiB in batches of 8: use batch size 1, or give"):
        worst_fit(["a", "b"], [cpu(100)], costs_of(sizes), smaller=(1, 8))


def test_no_devices_is_refused() -> None:
    with pytest.raises(AllocationError, match="no devices"):
        worst_fit(["a"], [], costs_of({"a": 1}))


def test_a_missing_profile_says_how_to_measure_it() -> None:
    with pytest.raises(AllocationError, match="b has no profile on cpu: run `ripieno measure"):
        worst_fit(["b"], [cpu(10)], costs_of({"a": 1}))


fleets = st.tuples(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.lists(st.integers(1, 120), min_size=1, max_size=4),
    st.integers(0, 10),
)


@given(fleets)
def test_every_member_is_placed_once_within_memory_or_the_stated_extra_makes_it_so(
    fleet: tuple[list[int], list[int], int],
) -> None:
    sizes = {f"m{i}": size for i, size in enumerate(fleet[0])}
    devices = [*(gpu(i, room) for i, room in enumerate(fleet[1][1:])), cpu(fleet[1][0])]
    costs = costs_of(sizes, base=fleet[2])
    try:
        placed = worst_fit(list(sizes), devices, costs)
    except AllocationError as refusal:
        found = re.search(r"^[^\n]*give (\S+) ([\d.]+) (KiB|MiB|GiB) more[^\n]*$", str(refusal))
        assert found is not None
        extra = float(found[2]) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[found[3]] * 1.01 + 0.2
        devices = [Device(d.name, d.kind, d.memory + int(extra * MIB)) if d.name == found[1] else d for d in devices]
        placed = worst_fit(list(sizes), devices, costs)
    assert [p.member for p in placed] == list(sizes)
    assert memory.fits(placed, devices, costs)
