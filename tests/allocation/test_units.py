from __future__ import annotations

import dataclasses

import pytest

from ripieno.allocation import AllocationOptions, ProfileCosts, parse_pins, plan
from ripieno.allocation.explain import explain
from ripieno.allocation.memory import worker_usage
from ripieno.allocation.units import PlacementUnits
from ripieno.errors import AllocationError
from ripieno.profiles.profile_sum import sum_profiles
from ripieno.types import BatchProfile, Device, Ensemble, Placement, Profile

GPUS = tuple(Device(f"cuda:{i}", "gpu", 1000) for i in range(2))
SHARED = "tiny-0123abcd-8"
MEMBERS = ("a", "x", "b", "c")
BACKBONES = {"a": SHARED, "x": "", "b": SHARED, "c": SHARED}


def profile(name: str, seconds: float, size: int, base: int = 0) -> Profile:
    points = tuple(BatchProfile(n, seconds * n, 0.0, size + n) for n in (1, 8))
    return Profile(name, "gpu", "onnx", points, base=base, load=size, tried=(1, 8))


PROFILES = {
    "gpu": {
        SHARED: profile(SHARED, 0.010, 400, base=50),
        **{name: profile(name, 0.001, 10, base=60) for name in ("a", "b", "c")},
        "x": profile("x", 0.013, 300),
        "stranger": profile("stranger", 1.0, 1, base=10_000),
    }
}
ENSEMBLE = Ensemble("e", MEMBERS, (0.25,) * 4, "hand", {}, {}, {})


def test_a_unit_costs_its_backbone_once_and_every_head() -> None:
    units = PlacementUnits(MEMBERS, BACKBONES)
    assert units.members == {SHARED: ("a", "b", "c"), "x": ("x",)}
    profiles = units.profiles(PROFILES["gpu"])
    assert profiles.keys() == {SHARED, "x"}
    assert profiles["x"] is PROFILES["gpu"]["x"]
    unit = profiles[SHARED]
    assert (unit.member, unit.base, unit.load) == (SHARED, 60, 430)
    assert unit.at(8).seconds == pytest.approx(8 * 0.013)
    assert unit.at(8).bytes == 400 + 30 + 4 * 8
    one = PlacementUnits(("a",), BACKBONES).profiles(PROFILES["gpu"])[SHARED]
    assert one.at(1).seconds == pytest.approx(0.011)


def test_a_sum_has_the_batch_sizes_that_all_parts_have() -> None:
    short = dataclasses.replace(PROFILES["gpu"]["a"], points=PROFILES["gpu"]["a"].points[:1], idle=False)
    both = sum_profiles("both", [PROFILES["gpu"][SHARED], short])
    assert [p.batch_size for p in both.points] == [1]
    assert not both.idle


def test_placements_of_units_and_of_members_follow_from_each_other() -> None:
    units = PlacementUnits(MEMBERS, BACKBONES)
    of_units = (Placement(SHARED, "cuda:0", 8), Placement(SHARED, "cuda:1", 1), Placement("x", "cuda:1", 8))
    of_members = units.expand(of_units)
    assert {p.member for p in of_members if p.device == "cuda:0"} == {"a", "b", "c"}
    assert len(of_members) == 7
    assert units.collapse(of_members) == of_units


def test_a_plan_places_the_members_of_a_unit_together_and_counts_its_backbone_once_a_worker() -> None:
    benched: list[tuple[Placement, ...]] = []

    def bench(placements: tuple[Placement, ...]) -> float:
        benched.append(placements)
        return 1.0

    made = plan(ENSEMBLE, GPUS, PROFILES, bench=bench, max_benches=3, backbones=BACKBONES)
    for placements in (made.placements, *benched):
        places: dict[str, set[tuple[str, int, int]]] = {name: set() for name in MEMBERS}
        for p in placements:
            places[p.member].add((p.device, p.lane, p.batch_size))
        assert places["a"] == places["b"] == places["c"] != set()
    fewest = plan(ENSEMBLE, GPUS, PROFILES, backbones=BACKBONES, options=AllocationOptions(replicas=False))
    assert fewest.predicted == pytest.approx(1 / 0.013, rel=1e-3)
    assert sorted(fewest.planned.values()) == [60 + 300 + 8, 60 + 430 + 32]


def test_a_unit_fits_where_its_members_with_a_backbone_each_would_not() -> None:
    small = (dataclasses.replace(GPUS[0], memory=900),)
    made = plan(ENSEMBLE, small, PROFILES, backbones=BACKBONES)
    assert {p.device for p in made.placements} == {"cuda:0"}
    with pytest.raises(AllocationError, match=f"{SHARED} needs|do not fit"):
        plan(ENSEMBLE, (dataclasses.replace(GPUS[0], memory=700),), PROFILES, backbones=BACKBONES)


def test_a_missing_profile_of_the_backbone_or_of_a_head_is_named_by_its_unit() -> None:
    for part in (SHARED, "b"):
        known = {"gpu": {name: p for name, p in PROFILES["gpu"].items() if name != part}}
        with pytest.raises(AllocationError, match=f"{SHARED} has no profile on gpu"):
            plan(ENSEMBLE, GPUS, known, backbones=BACKBONES)


def test_a_pin_of_a_member_pins_its_unit() -> None:
    options = AllocationOptions(pins=parse_pins(["a=cuda:1", "b=@8"]))
    made = plan(ENSEMBLE, GPUS, PROFILES, options=options, backbones=BACKBONES)
    assert {(p.device, p.batch_size) for p in made.placements if p.member != "x"} == {("cuda:1", 8)}


def test_members_of_a_unit_cannot_be_pinned_apart() -> None:
    options = AllocationOptions(pins=parse_pins(["a=cuda:1", "c=cuda:0"]))
    with pytest.raises(AllocationError, match="c is pinned to cuda:0, but a, b, c share a backbone"):
        plan(ENSEMBLE, GPUS, PROFILES, options=options, backbones=BACKBONES)


def test_an_explanation_divides_a_unit_among_its_members() -> None:
    options = AllocationOptions(replicas=False)
    made = plan(ENSEMBLE, GPUS, PROFILES, options=options, backbones=BACKBONES)
    made = dataclasses.replace(made, shares=(0.2, 0.9, 0.2, 0.2))
    units = PlacementUnits(MEMBERS, BACKBONES)
    costs = ProfileCosts({"gpu": units.profiles(PROFILES["gpu"])})
    found = explain(made, costs, units)
    assert [r.member for r in found.placements] == list(MEMBERS)
    assert [r.measured for r in found.placements] == list(made.shares)
    heads = [r for r in found.placements if r.member != "x"]
    assert sum(r.share for r in heads) == pytest.approx(1.0)
    assert sum(r.seconds for r in heads) == pytest.approx(heads[0].batch_size * 0.013)
    (device,) = [d for d in found.devices if d.device == heads[0].device]
    assert device.used == 60 + 430 + 3 * heads[0].batch_size + heads[0].batch_size
    assert sum(r.bytes for r in heads) == pytest.approx(device.used - 60, abs=len(heads))
    assert worker_usage(units.collapse(made.placements), GPUS, costs) == made.planned
    assert SHARED in found.limits
