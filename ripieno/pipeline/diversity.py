"""How much members differ from one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library


def diversity(library: Library, members: Sequence[str]) -> dict[str, float]:
    """Mean share of validation samples on which a member's class differs from another member's, over all others.

    Counted through the votes each class gets on each sample, in time linear in the members.
    """
    if len(members) < 2:
        return dict.fromkeys(members, 0.0)
    answers: NDArray[np.int64] = np.stack([library.probabilities(m).argmax(axis=1) for m in members])
    samples = np.arange(answers.shape[1])
    votes = np.zeros((answers.shape[1], int(answers.max()) + 1), dtype=np.int64)
    for row in answers:
        votes[samples, row] += 1
    return {
        m: 1.0 - float((votes[samples, row] - 1).mean()) / (len(members) - 1)
        for m, row in zip(members, answers, strict=True)
    }
