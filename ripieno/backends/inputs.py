"""What every backend asks of the images it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Member


def validate_input(images: NDArray[Any], member: Member) -> NDArray[Any]:
    """`images` in one piece; EngineError when they are not (batch, *member.input.shape) of the member's dtype."""
    if images.shape[1:] != tuple(member.input.shape) or images.dtype != np.dtype(member.input.dtype):
        wanted = f"(batch, {', '.join(map(str, member.input.shape))}) {member.input.dtype}"
        got = f"{images.shape} {images.dtype}"
        raise EngineError(f"{member.id} got images {got}, they must be {wanted}: resize or convert them")
    return np.ascontiguousarray(images)
