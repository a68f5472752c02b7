"""Plan by model, confirm by bench: few benches, spent where the model expects most.

The model's best allocation and worst-fit's are measured; from the better one, neighbours are measured in the order of
their predicted throughput, and the first that is better is gone to. After a number of neighbours in a row brought
nothing it ends: those left are predicted to be slower than all that were tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ripieno.allocation import matrix, simulate
from ripieno.allocation.problem import Placements, Problem
from ripieno.allocation.refine import CachedBench, Refined

PATIENCE = 6
"""Neighbours in a row that may bring nothing before it ends."""
SLACK = 0.2
"""Neighbours predicted slower than the present allocation by more than this share are not measured."""


def confirm(
    starts: Sequence[Placements],
    problem: Problem,
    bench: CachedBench,
    patience: int = PATIENCE,
    progress: Callable[[int, int, float], None] | None = None,
) -> Refined:
    """The best measured allocation on a way from the best of `starts`; the first of them is the start reported.

    Never measured worse than any of `starts` that was measured; at most `bench.max_benches` are, but always the first.
    """

    def tell() -> None:
        if progress is not None:
            progress(bench.benches, bench.max_benches, score.throughput)

    current, score = starts[0], bench(starts[0])
    start = score
    tell()
    for other in starts[1:]:
        if other not in bench and bench.spent:
            break
        measured = bench(other)
        if measured.throughput > score.throughput:
            current, score = other, measured
        tell()
    failures = 0
    while failures < patience and not bench.spent:
        failures = 0
        for candidate in promising(current, problem):
            if candidate in bench:
                continue
            measured = bench(candidate)
            tell()
            failures += 1
            if measured.beats(score):
                current, score = candidate, measured
                break
            if failures >= patience or bench.spent:
                break
        else:  # nobody is left
            break
    return Refined(current, score, start, bench.benches)


def promising(placements: Placements, problem: Problem) -> list[Placements]:
    """Neighbours of `placements` by predicted throughput, the best first, without those predicted much slower."""
    now = simulate.predict(placements, problem.devices, problem.costs).throughput * (1 - SLACK)
    ranked = [
        (-simulate.solve(loads).throughput, number, candidate)
        for number, candidate in enumerate(matrix.neighbours(placements, problem))
        if (loads := simulate.load(candidate, problem.devices, problem.costs)).bound(_equal(problem)) >= now
    ]
    return [candidate for speed, _, candidate in sorted(ranked) if -speed >= now]


def _equal(problem: Problem) -> dict[str, float]:
    """Prices that rule out what is far too slow at the cost of a sum."""
    return dict.fromkeys(problem.members, 1 / len(problem.members))
