"""Base class of backends: checks before a batch is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import EngineError
from ripieno.types import Member


class LoadedMember(ABC):
    """A loaded member. Not thread-safe: one worker owns it."""

    member: Member
    _network: Any
    """the network of the library, None once closed"""

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return predictions (batch, *member.task.output) of `images` (batch, *member.input.shape), of its dtype.

        Raises EngineError for other images, and once it is closed.
        """
        member = self.member
        if images.shape[1:] != tuple(member.input.shape) or images.dtype != np.dtype(member.input.dtype):
            wanted = f"(batch, {', '.join(map(str, member.input.shape))}) {member.input.dtype}"
            got = f"{images.shape} {images.dtype}"
            raise EngineError(f"{member.id} got images {got}, expected {wanted}; resize or convert them")
        if self._network is None:
            raise EngineError(f"{member.id} is closed; load it again")
        if not len(images):
            return np.empty((0, *member.task.output), np.float32)
        return self._run(np.ascontiguousarray(images))

    def close(self) -> None:
        """Free the network."""
        self._network = None

    @abstractmethod
    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict one batch, contiguous and not empty."""
