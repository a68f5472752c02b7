"""Diversity of members: their disagreement with each other."""

from __future__ import annotations

from ripieno.library.library import Library
from ripieno.tasks.registry import kind_of


def disagreement(library: Library) -> dict[str, float]:
    """Return the mean difference of each member's validation predictions from those of another member.

    Of classes and labels it is the share that differs, of values the mean absolute difference in standard deviations of
    the target; see `TaskKind.disagreement`. 0 for a single member. Raises LibraryError when one has no predictions.
    """
    names = library.ids()
    if len(names) < 2:
        return dict.fromkeys(names, 0.0)
    kind = kind_of(library.member(names[0]).task)
    differences = kind.disagreement([library.predictions(name) for name in names], library.targets())
    return dict(zip(names, differences, strict=True))
