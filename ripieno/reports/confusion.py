"""Counts of confusions and disagreement, pure; `labels` and `answers` (samples,) are among `classes`, a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ripieno.types import Floats, Ints


def confusion(labels: Ints, answers: Ints, shown: tuple[int, ...], classes: int) -> tuple[tuple[int, ...], ...]:
    """Return counts, true class by predicted class, over `shown` in its order; a last row has the other classes."""
    index = np.full(classes, len(shown))
    index[list(shown)] = np.arange(len(shown))
    size = len(shown) + (len(shown) < classes)
    counts = np.bincount(index[labels] * size + index[answers], minlength=size * size)
    return tuple(tuple(int(n) for n in row) for row in counts.reshape(size, size))


def top_confusions(labels: Ints, answers: Ints, classes: int, most: int = 6) -> tuple[tuple[int, int, int], ...]:
    """Return the most frequent confusions of all classes: true class, predicted class, count."""
    wrong = labels != answers
    pairs, counts = np.unique(labels[wrong] * classes + answers[wrong], return_counts=True)
    order = np.lexsort((pairs, -counts))[:most]
    return tuple((int(pairs[i] // classes), int(pairs[i] % classes), int(counts[i])) for i in order)


def most_disputed(labels: Ints, doubt: Floats, classes: int, most: int = 6) -> tuple[tuple[int, float], ...]:
    """Return the classes with the highest mean of `doubt` (samples,) over their samples; only means above 0."""
    counts = np.bincount(labels, minlength=classes)
    means = np.bincount(labels, weights=doubt, minlength=classes) / np.maximum(counts, 1)
    return tuple((int(c), float(means[c])) for c in np.argsort(-means, kind="stable")[:most] if means[c] > 0)


def most_confused(labels: Ints, answers: Sequence[Ints], classes: int, most: int) -> tuple[int, ...]:
    """Return the classes to show in all confusions, in their order: one selection, so that they are comparable."""
    wrong = np.zeros(classes)
    for predicted in answers:
        errors = predicted != labels
        wrong += np.bincount(labels[errors], minlength=classes) + np.bincount(predicted[errors], minlength=classes)
    return tuple(sorted(int(c) for c in np.argsort(-wrong, kind="stable")[: min(most, classes)]))


def most_wrong(counts: Ints, most: int) -> tuple[int, ...]:
    """Return the classes most often confused by `counts`, true class by predicted class, in their order."""
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return tuple(sorted(int(c) for c in np.argsort(-wrong, kind="stable")[: min(most, len(counts))]))


def merge_classes(counts: Ints, shown: tuple[int, ...]) -> Ints:
    """Return `counts`, true class by predicted class, of `shown` in its order; a last row and column have the rest."""
    size = len(shown) + (len(shown) < len(counts))
    merge = np.zeros((len(counts), size), np.int64)
    merge[:, size - 1] = 1
    for place, number in enumerate(shown):
        merge[number] = np.arange(size) == place
    return np.asarray(merge.T @ counts @ merge)


def top_votes(votes: Ints) -> tuple[tuple[int, int], ...]:
    """Return the three classes with the most votes, and their votes."""
    classes, counts = np.unique(votes, return_counts=True)
    order = np.lexsort((classes, -counts))[:3]
    return tuple((int(classes[i]), int(counts[i])) for i in order)
