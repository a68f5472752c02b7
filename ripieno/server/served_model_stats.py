"""Statistics of served models: counts and histograms, cheap enough to update at every request."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of durations."""
SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histogram of samples per request."""


class Histogram:
    """Counts of values up to each of `bounds`, a last count beyond all bounds, and the sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def quantile(self, q: float) -> float:
        """Return an upper bound of the quantile `q`: 0 without values, at most the last of `bounds`."""
        target, cumulative = q * sum(self.counts), 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            cumulative += count
            if cumulative >= target:
                return bound if cumulative else 0.0
        return self.bounds[-1]


@dataclass
class ServedModelStats:
    """Statistics of one model's requests; times in seconds."""

    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    """of answered requests, from the read body to the answer"""
    samples: Histogram = field(default_factory=lambda: Histogram(SAMPLES))
    """per answered request"""
    requests: int = 0
    """answered"""
    partial: int = 0
    """answered without all members"""
    failures: Counter[int] = field(default_factory=Counter)
    """failed requests, by status"""
    unseen: Counter[str] = field(default_factory=Counter)
    """categories in rows of answered requests that training did not have, by column"""
    abstained: Counter[bool] = field(default_factory=Counter)
    """samples of answered requests for `abstain`, by its value"""
    failed_seconds: float = 0.0
    last: float = 0.0
    """Unix seconds of the last request"""

    def answered(self, samples: int, seconds: float, partial: bool) -> None:
        """Count an answered request."""
        self.last = time.time()
        self.requests += 1
        self.partial += partial
        self.seconds.add(seconds)
        self.samples.add(samples)

    def failed(self, status: int, seconds: float) -> None:
        """Count a request that failed with `status`."""
        self.last = time.time()
        self.failures[status] += 1
        self.failed_seconds += seconds

    def statistics(self, name: str, version: str) -> dict[str, object]:
        """Return Triton's statistics document of the model `name`.

        All of a request's time is in `compute_infer`. The other steps have zero time but count every request:
        perf_analyzer identifies the requested model by these counts.
        """
        success = {"count": self.requests, "ns": round(self.seconds.total * 1e9)}
        passed, none = {"count": self.requests, "ns": 0}, {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version,
            "last_inference": round(self.last * 1000),
            "inference_count": round(self.samples.total),
            "execution_count": self.requests,
            "inference_stats": {
                "success": success,
                "fail": {"count": self.failures.total(), "ns": round(self.failed_seconds * 1e9)},
                "compute_infer": success,
                **dict.fromkeys(("queue", "compute_input", "compute_output"), passed),
                **dict.fromkeys(("cache_hit", "cache_miss"), none),
            },
            "batch_stats": [],
        }
