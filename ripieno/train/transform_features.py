"""Features of a data set's samples by a network of fixed convolutions, of which training uses more in each epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ripieno.data.dataset import spread_rows
from ripieno.models.build import Network
from ripieno.models.fixed_transform import FixedTransform
from ripieno.types import Dataset

FITTED = 256
"""Series by which the transform is chosen, at most."""
POINTS = 1 << 14
"""Points of the series of a batch, at most: its maps then stay in the processor's cache."""
MOST_BYTES = 1 << 30
"""Memory of the features of one set of samples, at most."""


class TransformFeatures:
    """Features of samples by the fixed transform of `network`; those that are known are not computed again."""

    def __init__(self, network: Network, body: FixedTransform, dataset: Dataset, epochs: int) -> None:
        """Choose what the transform takes from the training split; all its features are used after `epochs`."""
        self._network, self._body, self._inputs, self._epochs = network, body, dataset.inputs, epochs
        self._known: dict[bytes, Tensor] = {}
        rows = dataset.rows("train")
        most = max(1, MOST_BYTES // (4 * body.blocks * body.width))
        self.rows = spread_rows(rows, most)
        """training samples that the head is fitted to: all, or as many as fit in memory"""
        with torch.no_grad():
            body.fit_transform(network.normalise(self._read(spread_rows(rows, FITTED))))

    @property
    def head(self) -> nn.Linear:
        """Head on the features that are used now."""
        return self._body.head

    def use_epoch(self, epoch: int) -> None:
        """Use the share of the features that belongs to epoch `epoch`, from 1, with a new head."""
        self._body.use_share(min(1.0, epoch / self._epochs))

    def fit(self, rows: NDArray[np.int64]) -> bool:
        """Return whether the features of the samples at `rows` fit in memory."""
        return 4 * len(rows) * self._body.blocks * self._body.width <= MOST_BYTES

    def at(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the features (rows, used), float32, on the CPU, of the samples at `rows`."""
        key, body = rows.tobytes(), self._body
        known = self._known.get(key, torch.zeros(len(rows), 0))
        start, size = known.shape[1], max(1, POINTS // self._inputs.shape[1])
        if start < body.used:
            parts = []
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for first in range(0, len(rows), size):
                    inputs = self._read(rows[first : first + size]).to(self._network.mean.device)
                    parts.append(body.features(self._network.normalise(inputs), start).float().cpu())
            known = self._known[key] = torch.cat([known, torch.cat(parts)], 1)
        return known[:, : body.used]

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        inputs: NDArray[Any] = np.asarray(self._inputs[rows])
        return torch.from_numpy(inputs)
