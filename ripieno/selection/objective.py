"""What a search asks of a loss: the loss of an ensemble with one member more."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

S = TypeVar("S")


class ParentBounds(NamedTuple):
    """What is known of the ensemble without its last member: its loss, and floors under it with each other member."""

    loss: float
    lower_bounds: Floats


class Objective(Protocol[S]):
    """The loss of ensembles of `size` candidate members. A state `S` is what is known of an ensemble: never changed."""

    size: int
    submodular: bool
    """whether what a member gains is known to fall as the ensemble grows, so that old gains bound new ones"""

    def state(self, members: tuple[int, ...]) -> S:
        """State of an ensemble (members may repeat), built from nothing."""
        ...

    def extend(self, state: S, member: int) -> S:
        """State with one member more; equal to the bit to `state` of the same members in the same order."""
        ...

    def losses(self, state: S, candidates: Ints) -> Floats:
        """Loss of the ensemble plus each one of `candidates`; the same bits whichever candidates are asked together."""
        ...

    def lower_bounds(self, state: S, loss: float, above: ParentBounds | None, /) -> Floats:
        """A number no larger than what `losses` gives, for every member; `loss` is that of the ensemble itself."""
        ...

    def nbytes(self) -> int:
        """Bytes of one state."""
        ...
