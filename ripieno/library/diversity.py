"""Diversity of members: their disagreement with each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ripieno.library.library import Library


def disagreement(library: Library) -> dict[str, float]:
    """Return each member's mean share of validation samples on which its class differs from another member's.

    This is Kuncheva and Whitaker's disagreement measure, averaged over pairs. It is computed from the votes for each
    class on each sample, thus in time linear in the members; one member's predictions are read at a time. 0 for a
    single member. Raises LibraryError when one has no predictions.
    """
    names = library.ids()
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    predicted: list[NDArray[np.int64]] = [library.predictions(name).argmax(axis=1) for name in names]
    samples = np.arange(len(predicted[0]))
    votes = np.zeros((len(samples), 1 + max(int(own.max()) for own in predicted)), dtype=np.int64)
    for own in predicted:
        votes[samples, own] += 1
    others = len(names) - 1
    return {
        name: 1.0 - float((votes[samples, own] - 1).mean()) / others for name, own in zip(names, predicted, strict=True)
    }
