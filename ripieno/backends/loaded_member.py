"""Base class of backends: checks before a batch is predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.network_part import NetworkPart, part_input, part_output
from ripieno.errors import EngineError
from ripieno.types import Member


class LoadedMember(ABC):
    """A loaded member, or a part of one that shares a backbone. Not thread-safe: one worker owns it."""

    _network: Any
    """the network of the library, None once closed"""

    def _describe(self, member: Member, part: NetworkPart, features: int = 0) -> None:
        """Set what it takes and gives; `features` is the number between backbone and head, for parts only."""
        self.member = member
        self.input, self.output = part_input(member, part, features), part_output(member, part, features)
        self._shape, self._dtype = tuple(self.input.shape), np.dtype(self.input.dtype)

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return outputs (batch, *output) of `images` (batch, *input.shape), of the dtype of `input`.

        Raises EngineError for other images, and once it is closed.
        """
        if images.shape[1:] != self._shape or images.dtype != self._dtype:
            wanted = f"(batch, {', '.join(map(str, self._shape))}) {self.input.dtype}"
            got = f"{images.shape} {images.dtype}"
            raise EngineError(f"{self.member.id} got inputs {got}, expected {wanted}; resize or convert them")
        if self._network is None:
            raise EngineError(f"{self.member.id} is closed; load it again")
        if not len(images):
            return np.empty((0, *self.output), np.float32)
        return self._run(np.ascontiguousarray(images))

    def close(self) -> None:
        """Free the network."""
        self._network = None

    @abstractmethod
    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Predict one batch, contiguous and not empty."""
