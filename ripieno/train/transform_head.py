"""Training of a network of fixed convolutions: a linear head, fitted in each epoch to more features than before."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno.data.dataset import spread_rows
from ripieno.models.build import Network
from ripieno.models.fixed_transform import FixedTransform

FITTED = 256
"""Series by which the transform is chosen, at most."""
POINTS = 1 << 14
"""Points of the series of a batch, at most: its maps then stay in the processor's cache."""
MOST_BYTES = 1 << 30
"""Memory of the features of one set of samples, at most."""


class GrowingFeatures:
    """Features of some samples by a network's fixed transform; those known are kept when it uses more of them."""

    def __init__(self, network: Network, inputs: NDArray[Any], rows: NDArray[np.int64]) -> None:
        """Prepare for the samples of `inputs` (samples, *shape) at `rows`."""
        self._network, self._inputs, self.rows = network, inputs, rows
        self._known = torch.zeros(len(rows), 0)

    @classmethod
    def fit(cls, body: FixedTransform, samples: int) -> bool:
        """Return whether all features of so many `samples` fit in memory."""
        return 4 * samples * body.blocks * body.width <= MOST_BYTES

    def read(self) -> Tensor:
        """Return the features (rows, used), float32, on the CPU, which the network uses now."""
        network = self._network
        body, device = transform_of(network), network.mean.device
        size = max(1, POINTS // self._inputs.shape[1])
        start = self._known.shape[1]
        if body.used > start:
            parts = []
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for first in range(0, len(self.rows), size):
                    inputs = torch.from_numpy(np.asarray(self._inputs[self.rows[first : first + size]])).to(device)
                    parts.append(body.features(network.normalise(inputs), start).float().cpu())
            self._known = torch.cat([self._known, torch.cat(parts)], 1)
        return self._known[:, : body.used].clone()


def transform_of(network: Network) -> FixedTransform:
    """Return the body of a network of fixed convolutions."""
    assert isinstance(network.body, FixedTransform)
    return network.body


def fit_transform(network: Network, inputs: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Choose what the transform of `network` takes from the training samples of `inputs` at `rows`."""
    chosen = rows[spread_rows(np.arange(len(rows)), FITTED)]
    with torch.no_grad():
        transform_of(network).fit_transform(network.normalise(torch.from_numpy(np.asarray(inputs[chosen]))))


def fitted_rows(body: FixedTransform, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the training samples that the head is fitted to: all of `rows`, or as many as fit in memory."""
    most = max(1, MOST_BYTES // (4 * body.blocks * body.width))
    return rows[spread_rows(np.arange(len(rows)), most)]
