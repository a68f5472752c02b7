"""Front of a growing set of members, on arrays alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ripieno.selection.growing_front import FIRST, GrowingFront, beaten_by, hypervolume_share, merge_points
from ripieno.types import Floats, FrontEnsemble


def rows(members: int, samples: int = 64, seed: int = 0) -> Floats:
    """Return likelihoods (members, samples) of members that each know other samples."""
    return np.random.default_rng(seed).uniform(0.01, 1.0, (members, samples))


def grown(members: int, **options: int) -> GrowingFront:
    made = GrowingFront(**options)
    for number, row in enumerate(rows(members)):
        made.add(f"m{number}", row, float(-np.log(row).mean()), 1.0)
    made.grow()
    return made


def loss_of(front: GrowingFront, point: FrontEnsemble, values: Floats) -> float:
    chosen = [int(name.removeprefix("m")) for name in point.members]
    return float(-np.log(values[chosen].astype(np.float32).mean(axis=0)).mean())


def test_points_are_the_means_of_their_members_cheapest_first_with_falling_losses() -> None:
    front, values = grown(30), rows(30)
    costs, losses = [p.cost for p in front.points], [p.loss for p in front.points]
    assert len(costs) > 3
    assert costs == sorted(set(costs))
    assert losses == sorted(set(losses), reverse=True)
    for point in front.points:
        assert point.cost == len(point.members)
        assert point.loss == pytest.approx(loss_of(front, point, values), rel=1e-6)


def test_the_best_single_member_is_the_cheapest_ensemble() -> None:
    front, values = grown(30), rows(30)
    best = int(np.argmin(-np.log(values).mean(axis=1)))
    assert front.points[0].members == (f"m{best}",)


def test_the_hypervolume_never_falls_and_the_reference_stays() -> None:
    front, values = grown(FIRST), rows(60)
    values[FIRST:] **= 0.5  # later members are better
    volumes, reference = [front.hypervolume], front.reference
    for start in range(FIRST, 60, 10):
        for number in range(start, start + 10):
            front.add(f"m{number}", values[number], float(-np.log(values[number]).mean()), 1.0)
        front.grow()
        volumes.append(front.hypervolume)
    assert volumes == sorted(volumes)
    assert 0 < volumes[0] < volumes[-1] < 1
    assert front.reference == reference


def test_a_bad_member_changes_nothing() -> None:
    front = grown(20)
    before = front.points
    front.add("bad", np.full(64, 1e-3), 6.9, 1.0)
    assert not front.grow()
    assert front.points == before
    front.add("broken", np.full(64, np.nan), np.nan, 1.0)
    assert len(front) == 21
    assert not front.grow()


def test_an_ensemble_that_is_found_again_is_not_new() -> None:
    before, values = grown(20), rows(20)
    again = [replace(p, loss=p.loss * (1 + 1e-12), members=p.members[::-1]) for p in before.points]
    after = GrowingFront(points=again, reference=before.reference)
    for number, row in enumerate(values):
        after.add(f"m{number}", row, float(-np.log(row).mean()), 1.0)
    assert not after.grow()


def test_a_front_continues_an_earlier_one_whose_ensembles_stay() -> None:
    before = grown(20)
    after = GrowingFront(points=before.points, reference=before.reference)
    bad = 0.2 * rows(10, seed=5)
    for number, row in enumerate(bad):
        after.add(f"n{number}", row, float(-np.log(row).mean()), 1.0)
    assert not after.grow()
    assert after.points == before.points
    assert after.hypervolume == before.hypervolume


def test_costs_decide_which_ensembles_fit() -> None:
    values, front = rows(12), GrowingFront()
    costs = {f"m{n}": 10.0 if n % 2 else 1.0 for n in range(12)}
    for number, row in enumerate(values):
        front.add(f"m{number}", row, float(-np.log(row).mean()), costs[f"m{number}"])
    front.grow(lambda names: {"costs": {"flops": [costs[name] for name in names]}})
    for point in front.points:
        assert point.cost == sum(costs[name] for name in point.members)
    cheap = [p for p in front.points if p.cost < 10]
    assert cheap
    assert all(int(name[1:]) % 2 == 0 for point in cheap for name in point.members)


def test_values_are_judged_by_their_squared_error() -> None:
    random = np.random.default_rng(1)
    targets = random.normal(size=(50, 1))
    front = GrowingFront(targets)
    values = [targets + random.normal(size=targets.shape) for _ in range(12)]
    for number, own in enumerate(values):
        front.add(f"m{number}", own, float(((own - targets) ** 2).mean()), 1.0)
    front.grow()
    best = front.points[-1]
    mean = np.mean([values[int(name[1:])] for name in best.members], axis=0)
    assert best.loss == pytest.approx(float(((mean - targets) ** 2).mean()), rel=1e-5)
    assert len(best.members) > 4


def test_memory_is_bounded_by_leaving_out_members_that_others_beat() -> None:
    front, values = grown(40, entries=64 * 25), rows(40)
    losses = -np.log(values).mean(axis=1)
    assert len(front) == 25
    kept = {int(name[1:]) for point in front.points for name in point.members}
    assert kept <= set(np.argsort(losses)[:25].tolist())


def test_members_are_beaten_by_better_ones_that_cost_no_more() -> None:
    costs, losses = np.array([1.0, 2.0, 2.0, 0.5]), np.array([0.5, 0.4, 0.6, 0.9])
    assert beaten_by(costs, losses).tolist() == [0, 0, 2, 0]


def test_merged_points_are_those_that_none_dominates() -> None:
    one, two = FrontEnsemble(1.0, 0.5, ("a",)), FrontEnsemble(2.0, 0.3, ("a", "b"))
    worse, same = FrontEnsemble(2.0, 0.6, ("c", "d")), FrontEnsemble(1.0, 0.5, ("e",))
    assert merge_points((two, one), (worse, same)) == (one, two)
    better = FrontEnsemble(1.0, 0.2, ("f",))
    assert merge_points((one, two), (better,)) == (better,)


def test_the_hypervolume_is_a_share_of_the_area_up_to_the_reference() -> None:
    assert hypervolume_share([FrontEnsemble(1.0, 0.5, ("a",))], (2.0, 1.0)) == pytest.approx(0.25)
    assert hypervolume_share([FrontEnsemble(0.0, 0.0, ("a",))], (2.0, 1.0)) == pytest.approx(1.0)
    assert hypervolume_share([FrontEnsemble(3.0, 0.5, ("a",))], (2.0, 1.0)) == 0.0
