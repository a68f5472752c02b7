"""Algorithm 1: refinement of an allocation by benchmarks of its neighbours; line numbers are the paper's.

Errors in print are corrected: neighbours of every member (line 9), the limit counts benchmarks run (line 17), the new
allocation is one of the better ones (line 25), and a neighbourhood without improvement ends the search.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ripieno.errors import RipienoError
from ripieno.types import Device, Placement, Placements

Neighbours = Callable[[Placements], Iterable[Placements]]


@dataclass(frozen=True)
class Measurement:
    """Result of a benchmark: a `throughput` (any value, larger is better) and its relative `spread`."""

    throughput: float
    spread: float = 0.0

    def beats(self, other: Measurement) -> bool:
        """Return whether it is larger beyond noise: the ranges of +- half a spread do not overlap."""
        return self.throughput * (1 - self.spread / 2) > other.throughput * (1 + other.spread / 2)


Bench = Callable[[Placements], Measurement | float]
BenchCallback = Callable[[int, int, float], None]
"""Function called after each benchmark with the number of runs, the limit and the best value so far."""


@dataclass(frozen=True)
class Refined:
    """Result of a refinement: `start` is the first measurement, `benches` the number of benchmarks run."""

    placements: Placements
    measurement: Measurement
    start: Measurement
    benches: int


class CachedBench:
    """Cached benchmark with a limit: measures the same placements once, counts its runs and reports `progress`.

    An allocation that the engine rejects (`RipienoError`) measures 0, unless it is the first: then there is nothing to
    refine and the error is raised.
    """

    def __init__(self, bench: Bench, max_benches: int, progress: BenchCallback | None = None) -> None:
        self.bench, self.max_benches, self.progress = bench, max_benches, progress
        self.results: dict[frozenset[Placement], Measurement] = {}

    @property
    def benches(self) -> int:
        """Number of benchmarks run."""
        return len(self.results)

    def __contains__(self, placements: Placements) -> bool:
        return frozenset(placements) in self.results

    def __call__(self, placements: Placements) -> Measurement:
        """Return the measurement of `placements`, in any order."""
        key = frozenset(placements)
        if key not in self.results:
            try:
                result = self.bench(placements)
            except RipienoError:
                if not self.results:
                    raise
                result = Measurement(0.0)
            self.results[key] = result if isinstance(result, Measurement) else Measurement(float(result))
            if self.progress is not None:
                best = max(measured.throughput for measured in self.results.values())
                self.progress(self.benches, self.max_benches, best)
        return self.results[key]

    @property
    def spent(self) -> bool:
        """True once the limit is reached."""
        return self.benches >= self.max_benches


def refine(
    placements: Placements,
    devices: Sequence[Device],
    batch_sizes: Sequence[int],
    bench: Bench,
    max_benches: int,
    *,
    fits: Callable[[Placements], bool] = lambda _: True,
    neighbours: Neighbours | None = None,
    progress: BenchCallback | None = None,
) -> Refined:
    """Move from `placements` to the best neighbour until none is better or `max_benches` benchmarks were run.

    `bench` measures placements (samples per second); an improvement must exceed the reported noise, so the result never
    measured worse than the start. Neighbours for which `fits` is false are skipped. `neighbours` defaults to those of
    algorithm 1. The start is always measured, even if `max_benches` is 0.
    """
    cached = bench if isinstance(bench, CachedBench) else CachedBench(bench, max_benches, progress)
    around = neighbours or (lambda current: algorithm_1_neighbours(current, devices, batch_sizes))
    current, score = placements, cached(placements)  # line 5
    start = score
    improved = True
    while improved and not cached.spent:  # line 6
        better: list[tuple[Measurement, Placements]] = []  # lines 7 and 8
        for candidate in around(current):  # lines 9 to 11
            if not fits(candidate):
                continue
            if cached.spent:  # line 17
                break
            measured = cached(candidate)  # line 12
            if measured.beats(score):  # line 13
                better.append((measured, candidate))  # lines 14 and 15
        improved = bool(better)
        if improved:  # lines 23 to 26
            score, current = max(better, key=lambda pair: pair[0].throughput)
    return Refined(current, score, start, cached.benches)  # line 29


def algorithm_1_neighbours(
    placements: Placements, devices: Sequence[Device], batch_sizes: Sequence[int]
) -> Iterator[Placements]:
    """Yield each other batch size and each other device of every member: n(B-1) + n(M-1) neighbours."""
    for i, placement in enumerate(placements):
        others = [dataclasses.replace(placement, batch_size=b) for b in batch_sizes if b != placement.batch_size]
        others += [dataclasses.replace(placement, device=d.name, lane=0) for d in devices if d.name != placement.device]
        for other in others:
            yield (*placements[:i], other, *placements[i + 1 :])
