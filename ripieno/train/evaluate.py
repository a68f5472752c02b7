"""Predictions of trainers and of networks, with their losses."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno.data.dataset import batches
from ripieno.errors import ModelError
from ripieno.library.prediction_arrays import gather_predictions
from ripieno.models.build import Network
from ripieno.tasks.registry import kind_of
from ripieno.train.trainer import Trainer
from ripieno.types import Dataset, Float32s

BLOCK_BYTES = 64 << 20
"""Most bytes of the inputs that a trainer gets to predict at a time, and of its predictions of pixels."""
POSITIONS = 1 << 21
"""Most pixels, or steps of a series, of a batch without a given batch size: 41 images of 224x224."""


class DivergedError(Exception):
    """The loss is no finite number."""


def predict(
    network: Network,
    inputs: NDArray[Any],
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    rows: NDArray[np.int64] | None = None,
) -> Float32s:
    """Return the predictions (samples, *output), float32, of `inputs` (samples, *shape).

    The network runs in evaluation mode. With `rows`, only the inputs at these rows are predicted, in their order.
    Memory-mapped inputs are read one batch at a time.
    """
    rows = np.arange(len(inputs)) if rows is None else rows
    # networks of timm enlarge small images
    positions = max(1, prod(inputs.shape[1:-1]), getattr(network.body, "side", 0) ** 2)
    size = min(256, POSITIONS // positions)
    if network.is_pixelwise:
        size = min(size, BLOCK_BYTES // (4 * prod(network.output)))
    size = batch_size or max(1, size)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [network.predict(torch.from_numpy(batch).to(device)) for batch in batches(inputs, rows, size)]
    network.train(was_training)
    predictions: Float32s = torch.cat(parts).cpu().numpy()
    return predictions


def predict_rows(trainer: Trainer, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Predict the samples at `rows`, block by block: mapped inputs are never in memory as a whole.

    A trainer that knows the samples by their rows may predict them without their inputs: see `ripieno.train.trainer`.
    The predictions are as in `gather_predictions`. Raises ModelError when they have the wrong form, DivergedError when
    they are not finite.
    """
    known = trainer.predict_rows(rows) if hasattr(trainer, "predict_rows") else None
    blocks = batches(dataset.inputs, rows, block_length(dataset))
    predicted = [(rows, known)] if known is not None else ((block, trainer.predict(block)) for block in blocks)
    return gather_predictions(dataset, len(rows), (_checked(found, len(block), dataset) for block, found in predicted))


def _checked(found: Any, samples: int, dataset: Dataset) -> Float32s:
    """Return a trainer's predictions of some samples. Errors as `predict_rows`."""
    part = np.asarray(found)
    if part.shape != (expected := (samples, *kind_of(dataset.task).kept_shape(dataset.task))):
        raise ModelError(f"the trainer predicted shape {part.shape} for {samples} samples; expected {expected}")
    if part.dtype.kind != "f":
        raise ModelError(f"the trainer predicted {part.dtype}; expected float32 of shape {expected}")
    part = part.astype(np.float32, copy=False)
    if not np.isfinite(part).all():
        raise DivergedError("the predictions are not finite")
    kind_of(dataset.task).read_predictions("the trainer", part, dataset.task, ModelError)
    return part


def block_length(dataset: Dataset) -> int:
    """Return how many samples are predicted at a time."""
    outputs = 4 * prod(dataset.task.output) if kind_of(dataset.task).is_pixelwise else 0
    return max(1, BLOCK_BYTES // max(1, dataset.inputs[:1].nbytes, outputs))


def losses_of(predictions: NDArray[Any], dataset: Dataset, rows: NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics of validation predictions, of the samples at `rows`, by their names in a `Member`."""
    return kind_of(dataset.task).losses(predictions, np.asarray(dataset.targets[rows]), dataset.task)
