"""Soups: the averages of weights that were tried, kept in the run so that none is evaluated twice.

RUN/soups/BACKBONE.json   a `SoupRecord`, rewritten after each average
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.library.broken import read_or_none, write_over
from ripieno.library.library import Library
from ripieno.types import Member


@dataclass(frozen=True)
class SoupStep:
    """One member that was tried in the average of those before it."""

    member: str
    own_loss: float
    """validation loss of the member alone"""
    loss: float | None
    """validation loss of the average with it; None where that is not finite"""
    kept: bool
    """whether it stayed in the average"""


@dataclass(frozen=True)
class SoupRecord:
    """Members that were tried, in their order."""

    steps: tuple[SoupStep, ...]


def read_steps(library: Library, backbone: str, members: Sequence[Member]) -> list[SoupStep]:
    """Return the kept steps that hold for `members`, the best first: as many as agree with them in id and loss."""
    path = library.soup_path(backbone)
    record = read_or_none(f"the soups of {library.path}", path, SoupRecord)
    steps: list[SoupStep] = []
    for step, member in zip(record.steps if record else (), members, strict=False):
        if (step.member, step.own_loss) != (member.id, member.loss):
            break
        steps.append(step)
    return steps


def write_steps(library: Library, backbone: str, steps: Sequence[SoupStep]) -> None:
    """Keep the steps of a backbone, by its id."""
    write_over(library.soup_path(backbone), SoupRecord(tuple(steps)), SoupRecord)
