"""Confidence intervals of the difference between two ensembles: the paired bootstrap over test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
Pair = tuple[NDArray[Any], NDArray[Any]]


def error(answers: NDArray[np.int64], labels: NDArray[np.int64], times: NDArray[Any], metric: str) -> float:
    """Return the error in percent of `metric` (`accuracy`, `macro_f1`); `times` weights each image."""
    classes = int(max(answers.max(), labels.max())) + 1
    hits = np.bincount(labels, times * (answers == labels), classes)
    if metric == "accuracy":
        return float(100 * (1 - hits.sum() / times.sum()))
    both = np.bincount(labels, times, classes) + np.bincount(answers, times, classes)
    return float(100 * (1 - (2 * hits[both > 0] / both[both > 0]).mean()))


def difference(pairs: Sequence[Pair], labels: NDArray[Any], metric: str) -> tuple[str, str]:
    """Return error (points) and cross-entropy of the first of each pair minus those of the other, with 95 % intervals.

    A pair are probabilities (samples, classes) of the same test images, of one seed; the differences are means over the
    pairs. An interval covers the draw of the images, not a repeated search.
    """
    generator, rows = np.random.default_rng(0), np.arange(len(labels))
    entropies = [[-np.log(np.maximum(p[rows, labels], 1e-15)) for p in pair] for pair in pairs]
    apart = np.mean([ours - other for ours, other in entropies], axis=0)
    answers = [[p.argmax(1) for p in pair] for pair in pairs]

    def of(times: NDArray[Any]) -> tuple[float, float]:
        errors = np.array([[error(a, labels, times, metric) for a in pair] for pair in answers])
        return float((errors[:, 0] - errors[:, 1]).mean()), float(times @ apart / times.sum())

    observed = of(np.ones(len(labels)))
    even = np.full(len(labels), 1 / len(labels))
    drawn = np.array([of(generator.multinomial(len(labels), even)) for _ in range(DRAWS)])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    points, nats = (
        f"{value:+.{digits}f} ({low[i]:+.{digits}f} to {high[i]:+.{digits}f})"
        for i, (value, digits) in enumerate(zip(observed, (2, 4), strict=True))
    )
    return points, nats
