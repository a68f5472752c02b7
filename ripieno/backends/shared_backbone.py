"""Members that share a backbone, loaded together: one forward of the backbone, then one of each head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.backend import Backend


class SharedBackbone:
    """A loaded backbone with the heads of some members. Not thread-safe: one worker owns it."""

    def __init__(self, backbone: Backend, heads: Sequence[Backend]) -> None:
        self._backbone, self._heads = backbone, heads

    def infer_each(self, images: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return the predictions (batch, *task.output) of each member for `images` (batch, *input.shape)."""
        features = self._backbone.infer(images)
        return [head.infer(features) for head in self._heads]

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the predictions of the first member: for a member that is loaded alone."""
        return self._heads[0].infer(self._backbone.infer(images))

    def close(self) -> None:
        """Free all parts."""
        for part in (self._backbone, *self._heads):
            part.close()
