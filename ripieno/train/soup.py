"""Averages of the weights of networks that were trained from the same weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ripieno.data.blocks import blocks as blocks_of
from ripieno.data.dataset import BATCH, batches, spread_rows
from ripieno.errors import LibraryError
from ripieno.library.prediction_arrays import gather_predictions
from ripieno.models.backbone_weights import read_tensors
from ripieno.models.build import Network
from ripieno.train.evaluate import block_length, losses_of, predict
from ripieno.types import Dataset, loss_key

SAMPLES = 2048
"""Most training samples by which statistics of batch norms are computed."""


class MeanWeights:
    """Mean of the tensors of networks of one architecture, each of the same weight; summed in double precision.

    Tensors of integers, such as counts of batches, are those of the first network.
    """

    def __init__(self) -> None:
        self.count = 0
        """number of networks"""
        self._sums: dict[str, Tensor] = {}
        self._first: Mapping[str, Tensor] = {}

    def add(self, tensors: Mapping[str, Tensor]) -> None:
        """Take a network into the mean."""
        self._first = self._first or tensors
        self._sums = self._sums_with(tensors)
        self.count += 1

    def mean(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the mean of the networks, with `tensors` of one more where they are given."""
        sums, count = self._sums, self.count
        if tensors is not None:
            sums, count = self._sums_with(tensors), count + 1
        first = self._first or tensors or {}
        return {name: (sums[name] / count).to(t.dtype) if name in sums else t for name, t in first.items()}

    def _sums_with(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {name: t.double() for name, t in tensors.items() if t.is_floating_point()}
        return {name: self._sums[name] + t for name, t in values.items()} if self._sums else values


def read_weights(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Read the weights of a network such as `network`. Raises LibraryError when there are none, or of another one."""
    tensors = read_tensors(path)
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in network.state_dict().items()}:
        raise LibraryError(f"{path} holds the weights of another network")
    return tensors


def validate(network: Network, dataset: Dataset, device: str = "cpu") -> tuple[NDArray[np.floating[Any]], float | None]:
    """Return the predictions of the validation split, and the loss by which members are ranked; None: not finite.

    The predictions are as in `gather_predictions`.
    """
    rows, size = dataset.rows("valid"), block_length(dataset)
    blocks = (rows[start : start + size] for start in range(0, len(rows), size))
    parts = (predict(network, dataset.inputs, device=device, rows=block) for block in blocks)
    predictions = gather_predictions(dataset, len(rows), parts)
    if not all(np.isfinite(predictions[block]).all() for block in blocks_of(predictions)):
        return predictions, None
    loss = losses_of(predictions, dataset, rows)[loss_key(dataset.task)]
    return predictions, loss if math.isfinite(loss) else None


def compute_statistics(network: Network, dataset: Dataset, device: str = "cpu") -> bool:
    """Compute the statistics of all batch norms from samples of the training split, as they are, without augmentation.

    They are the means over batches of equal size of at most `SAMPLES` samples; the rest of the network runs as in
    evaluation. Returns whether the network has such norms.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    rows = spread_rows(dataset.rows("train"), SAMPLES)
    if not norms or len(rows) < 2:
        return False
    # an incomplete batch would count as much as a complete one
    rows = rows[: max(1, len(rows) // BATCH) * BATCH]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    with torch.no_grad():
        for batch in batches(dataset.inputs, rows):
            network(torch.from_numpy(batch).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
    return True


def choose_statistics(network: Network, dataset: Dataset, device: str = "cpu") -> NDArray[np.floating[Any]]:
    """Compute the statistics of batch norms again, if that lowers the validation loss; return the predictions.

    These are (samples, *output), of the validation split, by the network as it is left.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predictions, loss = validate(network, dataset, device)
    if compute_statistics(network, dataset, device):
        others, other = validate(network, dataset, device)
        if loss is None or (other is not None and other < loss):
            return others
        network.load_state_dict(before)
    return predictions
