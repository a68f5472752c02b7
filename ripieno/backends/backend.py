"""Interface of a loaded member, or of a part of one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """A loaded member, or a part of one that shares a backbone. Not thread-safe: one worker owns it."""

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return predictions (batch, *member.task.output) of `images` (batch, *member.input.shape), of its dtype.

        A backbone gives features instead, and a head takes them.
        """
        ...

    def close(self) -> None:
        """Free its resources."""
        ...
