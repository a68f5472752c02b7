"""How unlike the others a member answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ripieno.library.library import Library
from ripieno.types import Split


def disagreement(library: Library, members: Sequence[str] | None = None, split: Split = "valid") -> dict[str, float]:
    """Share of samples that each of `members` (default: all) answers with another class than the mean of them all does.

    Reads one member's predictions at a time. Raises LibraryError when one has none.
    """
    names = list(members) if members is not None else library.ids()
    if not names:
        return {}
    total = np.zeros(library.probabilities(names[0], split).shape)
    answers = []
    for name in names:
        values = library.probabilities(name, split)
        total += values
        answers.append(values.argmax(axis=1))
    common = total.argmax(axis=1)
    return {name: float((own != common).mean()) for name, own in zip(names, answers, strict=True)}
