from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.allocation import neighbourhood, throughput_model
from ripieno.allocation.confirm import PATIENCE, SLACK, confirm, ranked_neighbours
from ripieno.allocation.hill_climbing import hill_climb
from ripieno.allocation.problem import Placements, canonical
from ripieno.allocation.refine import CachedBench, Measurement, refine
from ripieno.allocation.worst_fit import worst_fit
from tests.allocation.instances import random_problem

PROBLEM = random_problem(1, 3, 4, 3, True, tightness=4)
START = canonical(worst_fit(PROBLEM.members, PROBLEM.devices, PROBLEM.costs, 8))
BEST = hill_climb(START, PROBLEM)


def model(placements: Placements) -> float:
    return throughput_model.predict(placements, PROBLEM.devices, PROBLEM.costs).throughput


def test_where_the_model_is_right_few_benches_reach_what_algorithm_1_reaches_with_many() -> None:
    slow = refine(START, PROBLEM.devices, PROBLEM.batch_sizes, model, 10_000, fits=PROBLEM.fits)
    quick = confirm([START, BEST], PROBLEM, CachedBench(model, 100))
    assert quick.measurement.throughput >= slow.measurement.throughput
    assert quick.benches == 2 + PATIENCE
    assert quick.benches * 5 < slow.benches


def test_the_first_start_is_reported_and_nothing_measured_is_worse() -> None:
    found = confirm([START, BEST], PROBLEM, CachedBench(lambda p: 2.0 if p == START else 1.0, 100))
    assert (found.placements, found.start.throughput, found.measurement.throughput) == (START, 2.0, 2.0)


def test_neighbours_are_tried_in_the_order_of_the_model() -> None:
    order = [model(p) for p in ranked_neighbours(BEST, PROBLEM)]
    assert order == sorted(order, reverse=True)
    assert set(ranked_neighbours(BEST, PROBLEM)) <= set(neighbourhood.neighbours(BEST, PROBLEM))


def test_what_is_expected_to_be_much_slower_is_not_measured() -> None:
    promised = set(ranked_neighbours(BEST, PROBLEM))
    left = [p for p in neighbourhood.neighbours(BEST, PROBLEM) if p not in promised]
    assert left
    assert max(map(model, left)) < (1 - SLACK) * model(BEST) <= min(map(model, promised))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 12), st.floats(0, 0.2))
def test_it_keeps_its_bound_and_never_ends_below_its_start(salt: int, bound: int, spread: float) -> None:
    runs: list[Placements] = []

    def bench(placements: Placements) -> Measurement:
        runs.append(placements)
        return Measurement(model(placements) * (1 + sum(map(ord, f"{salt}{placements}")) % 100 / 100), spread)

    found = confirm([START, BEST], PROBLEM, CachedBench(bench, bound))
    assert found.benches == len(runs) == len(set(runs)) <= max(1, bound)
    assert found.measurement.throughput >= found.start.throughput
    assert all(PROBLEM.allows(p) for p in runs)


def test_an_improvement_at_the_last_try_continues_the_search() -> None:
    order = [START, *ranked_neighbours(START, PROBLEM)]
    speeds = dict.fromkeys(order, 1.0) | {order[PATIENCE]: 2.0}
    found = confirm([START], PROBLEM, CachedBench(lambda p: speeds.get(p, 3.0), 100))
    assert found.measurement.throughput == 3.0
