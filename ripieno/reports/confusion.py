"""Who is taken for whom, and who is doubted: counts over samples, as pure functions.

`labels` and `answers` are classes (samples,), `classes` the number of classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion(labels: Ints, answers: Ints, shown: tuple[int, ...], classes: int) -> tuple[tuple[int, ...], ...]:
    """Counts, true class by answer, over `shown` in its order and, when classes are left over, one row for them."""
    place = np.full(classes, len(shown))
    place[list(shown)] = np.arange(len(shown))
    size = len(shown) + (len(shown) < classes)
    counts = np.bincount(place[labels] * size + place[answers], minlength=size * size)
    return tuple(tuple(int(n) for n in row) for row in counts.reshape(size, size))


def top_confusions(labels: Ints, answers: Ints, classes: int, most: int = 6) -> tuple[tuple[int, int, int], ...]:
    """The commonest confusions of all classes: true class, answer, how often."""
    wrong = labels != answers
    pairs, counts = np.unique(labels[wrong] * classes + answers[wrong], return_counts=True)
    order = np.lexsort((pairs, -counts))[:most]
    return tuple((int(pairs[i] // classes), int(pairs[i] % classes), int(counts[i])) for i in order)


def most_disputed(labels: Ints, doubt: Floats, classes: int, most: int = 6) -> tuple[tuple[int, float], ...]:
    """Classes whose samples are doubted most: the mean of `doubt` (samples,) over each class, those above 0."""
    counts = np.bincount(labels, minlength=classes)
    means = np.bincount(labels, weights=doubt, minlength=classes) / np.maximum(counts, 1)
    return tuple((int(c), float(means[c])) for c in np.argsort(-means, kind="stable")[:most] if means[c] > 0)


def most_confused(labels: Ints, answers: Sequence[Ints], classes: int, most: int) -> tuple[int, ...]:
    """The classes for all confusions, in their own order: one choice, or nothing could be compared."""
    wrong = np.zeros(classes)
    for own in answers:
        mistaken = own != labels
        wrong += np.bincount(labels[mistaken], minlength=classes) + np.bincount(own[mistaken], minlength=classes)
    return tuple(sorted(int(c) for c in np.argsort(-wrong, kind="stable")[: min(most, classes)]))


def top_votes(votes: Ints) -> tuple[tuple[int, int], ...]:
    """Classes and how many voted for them: the three with most."""
    classes, counts = np.unique(votes, return_counts=True)
    order = np.lexsort((classes, -counts))[:3]
    return tuple((int(classes[i]), int(counts[i])) for i in order)
