"""Confidence intervals of the difference between two ensembles: the paired bootstrap over test images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000


def error(answers: NDArray[np.int64], labels: NDArray[np.int64], times: NDArray[Any], metric: str) -> float:
    """Return the error in percent of `metric` (`accuracy`, `macro_f1`); `times` weights each image."""
    classes = int(max(answers.max(), labels.max())) + 1
    hits = np.bincount(labels, times * (answers == labels), classes)
    if metric == "accuracy":
        return float(100 * (1 - hits.sum() / times.sum()))
    both = np.bincount(labels, times, classes) + np.bincount(answers, times, classes)
    return float(100 * (1 - (2 * hits[both > 0] / both[both > 0]).mean()))


def difference(ours: NDArray[Any], other: NDArray[Any], labels: NDArray[np.int64], metric: str) -> tuple[str, str]:
    """Return error (points) and cross-entropy of `ours` minus those of `other`, with 95 % intervals.

    Both are probabilities (samples, classes) of the same test images. An interval covers the draw of the images, not a
    repeated search.
    """
    generator, rows = np.random.default_rng(0), np.arange(len(labels))
    entropies = [-np.log(np.maximum(p[rows, labels], 1e-15)) for p in (ours, other)]
    apart, answers = entropies[0] - entropies[1], [p.argmax(1) for p in (ours, other)]

    def of(times: NDArray[Any]) -> tuple[float, float]:
        first, second = (error(a, labels, times, metric) for a in answers)
        return first - second, float(times @ apart / times.sum())

    observed = of(np.ones(len(labels)))
    even = np.full(len(labels), 1 / len(labels))
    drawn = np.array([of(generator.multinomial(len(labels), even)) for _ in range(DRAWS)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    points, nats = (
        f"{value:+.{digits}f} ({low[i]:+.{digits}f} to {high[i]:+.{digits}f})"
        for i, (value, digits) in enumerate(zip(observed, (2, 4), strict=True))
    )
    return points, nats
