"""Plan by model, confirm by bench: few benches, spent where the model expects most.

The model's best allocation and worst-fit's are measured; from the better one, neighbours are measured in the order of
their predicted throughput, and the first that is better is gone to. After a number of neighbours in a row brought
nothing it ends: those left are predicted to be slower than all that were tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ripieno.allocation import neighbourhood, throughput_model
from ripieno.allocation.problem import AllocationProblem, Placements
from ripieno.allocation.refine import CachedBench, Refined

Score = Callable[[Placements], float]
PATIENCE = 6
"""Neighbours in a row that may bring nothing before it ends."""
SLACK = 0.2
"""Neighbours predicted worse than the present allocation by more than this share are not measured."""


def confirm(
    starts: Sequence[Placements],
    problem: AllocationProblem,
    bench: CachedBench,
    patience: int = PATIENCE,
    progress: Callable[[int, int, float], None] | None = None,
    score: Score | None = None,
) -> Refined:
    """The best measured allocation on a way from the best of `starts`; the first of them is the start reported.

    `score` is what the model expects a bench to report, throughput when None. Never measured worse than any of `starts`
    that was measured; at most `bench.max_benches` are, but always the first.
    """

    def tell() -> None:
        if progress is not None:
            progress(bench.benches, bench.max_benches, now.throughput)

    current, now = starts[0], bench(starts[0])
    start = now
    tell()
    for other in starts[1:]:
        if other not in bench and bench.spent:
            break
        measured = bench(other)
        if measured.throughput > now.throughput:
            current, now = other, measured
        tell()
    failures = 0
    while failures < patience and not bench.spent:
        failures = 0
        for candidate in ranked_neighbours(current, problem, score):
            if candidate in bench:
                continue
            measured = bench(candidate)
            tell()
            failures += 1
            if measured.beats(now):
                current, now, failures = candidate, measured, 0
                break
            if failures >= patience or bench.spent:
                break
        else:  # nobody is left
            break
    return Refined(current, now, start, bench.benches)


def ranked_neighbours(
    placements: Placements, problem: AllocationProblem, score: Score | None = None
) -> list[Placements]:
    """Neighbours of `placements` by what the model expects, the best first, without those expected much worse."""
    if score is None:
        now = throughput_model.predict(placements, problem.devices, problem.costs).throughput * (1 - SLACK)
        # equal prices rule out what is far too slow at the cost of a sum
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
