"""Interface of losses for greedy search: the loss of an ensemble with one more member."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

from ripieno.types import Floats, Ints

S = TypeVar("S")


class ParentBounds(NamedTuple):
    """Bounds from the ensemble without its last member: its loss, and lower bounds with each further member."""

    loss: float
    lower_bounds: Floats


class Objective(Protocol[S]):
    """Loss of ensembles of `size` candidate members. A state `S` describes an ensemble and is immutable."""

    size: int
    submodular: bool
    """true if a member's gain falls as the ensemble grows, so that old gains bound new ones"""

    def state(self, members: tuple[int, ...]) -> S:
        """Build the state of an ensemble from scratch; members may repeat."""
        ...

    def extend(self, state: S, member: int) -> S:
        """Return the state with one more member, bit-identical to `state` of the same members in the same order."""
        ...

    def losses(self, state: S, candidates: Ints) -> Floats:
        """Return the loss with each of `candidates` added; the bits do not depend on the other candidates."""
        ...

    def lower_bounds(self, state: S, loss: float, above: ParentBounds | None, /) -> Floats:
        """Return a lower bound of `losses` for every member; `loss` is that of the ensemble itself."""
        ...

    def nbytes(self) -> int:
        """Return the bytes of one state."""
        ...
