"""Input validation common to all backends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Member


def validate_input(images: NDArray[Any], member: Member) -> NDArray[Any]:
    """Return contiguous `images`; raise EngineError unless (batch, *member.input.shape) of the member's dtype."""
    if images.shape[1:] != tuple(member.input.shape) or images.dtype != np.dtype(member.input.dtype):
        wanted = f"(batch, {', '.join(map(str, member.input.shape))}) {member.input.dtype}"
        got = f"{images.shape} {images.dtype}"
        raise EngineError(f"{member.id} got images {got}, expected {wanted}; resize or convert them")
    return np.ascontiguousarray(images)
