"""Confirmation of a planned allocation by few benchmarks, chosen by the model's predictions.

The best allocations of the model and of worst-fit are measured. From the better one, neighbours are measured in the
order of their predicted throughput; the first better one becomes the current allocation. The search ends after a number
of neighbours in a row without improvement: the remaining ones are predicted to be slower than all measured ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ripieno.allocation import neighbourhood, throughput_model
from ripieno.allocation.problem import AllocationProblem, Placements
from ripieno.allocation.refine import CachedBench, Refined

Score = Callable[[Placements], float]
PATIENCE = 6
"""Maximum number of neighbours in a row without improvement."""
SLACK = 0.2
"""Neighbours predicted worse than the current allocation by more than this fraction are not measured."""


def confirm(
    starts: Sequence[Placements], problem: AllocationProblem, bench: CachedBench, score: Score | None = None
) -> Refined:
    """Search from the best of `starts` and return the best measured allocation; report the first of `starts` as start.

    `score` predicts the value that `bench` reports; None: the throughput. The result is at least as good as every
    measured start. At most `bench.max_benches` allocations are measured, but always the first start.
    """
    now = start = bench(starts[0])
    current = starts[0]
    for other in starts[1:]:
        if other not in bench and bench.spent:
            break
        measured = bench(other)
        if measured.throughput > now.throughput:
            current, now = other, measured
    failures = 0
    while failures < PATIENCE and not bench.spent:
        failures = 0
        for candidate in ranked_neighbours(current, problem, score):
            if candidate in bench:
                continue
            measured = bench(candidate)
            failures += 1
            if measured.beats(now):
                current, now, failures = candidate, measured, 0
                break
            if failures >= PATIENCE or bench.spent:
                break
        else:  # all neighbours were measured
            break
    return Refined(current, now, start, bench.benches)


def ranked_neighbours(
    placements: Placements, problem: AllocationProblem, score: Score | None = None
) -> list[Placements]:
    """Return neighbours of `placements` by predicted value, the best first, without those predicted much worse."""
    if score is None:
        now = throughput_model.predict(placements, problem.devices, problem.costs).throughput * (1 - SLACK)
        # with equal prices, one sum rules out neighbours that are far too slow
        prices = dict.fromkeys(problem.members, 1 / len(problem.members))
        ranked = [
            (-throughput_model.solve(loads).throughput, number, candidate)
            for number, candidate in enumerate(neighbourhood.neighbours(placements, problem))
            if (loads := throughput_model.workload(candidate, problem.devices, problem.costs)).bound(prices) >= now
        ]
    else:
        now = score(placements) * (1 - SLACK)
        ranked = [(-score(p), number, p) for number, p in enumerate(neighbourhood.neighbours(placements, problem))]
    return [candidate for worse, _, candidate in sorted(ranked) if -worse >= now]
