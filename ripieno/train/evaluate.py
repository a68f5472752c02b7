"""Predictions of trainers and of networks, with their losses."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno.data.dataset import batches
from ripieno.errors import ModelError
from ripieno.models.build import Network
from ripieno.tasks.registry import kind_of
from ripieno.train.trainer import Trainer
from ripieno.types import Dataset, Float32s

BLOCK_BYTES = 64 << 20
"""Most bytes of the inputs that a trainer gets to predict at a time."""
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
    size = batch_size or max(1, min(256, POSITIONS // positions))
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [network.predict(torch.from_numpy(batch).to(device)) for batch in batches(inputs, rows, size)]
    network.train(was_training)
    predictions: Float32s = torch.cat(parts).cpu().numpy()
    return predictions


def predict_rows(trainer: Trainer, dataset: Dataset, rows: NDArray[np.int64]) -> Float32s:
    """Predict the samples at `rows`, block by block: mapped inputs are never in memory as a whole.

    A trainer that knows the samples by their rows may predict them without their inputs: see `ripieno.train.trainer`.
    Raises ModelError when the predictions have the wrong form, DivergedError when they are not finite.
    """
    size = max(1, BLOCK_BYTES // max(1, dataset.inputs[:1].nbytes))
    known = trainer.predict_rows(rows) if hasattr(trainer, "predict_rows") else None
    blocks = batches(dataset.inputs, rows, size)
    predicted = [(rows, known)] if known is not None else ((block, trainer.predict(block)) for block in blocks)
    parts = []
    for block, found in predicted:
        part = np.asarray(found)
        if part.shape != (expected := (len(block), *dataset.task.output)):
            raise ModelError(f"the trainer predicted shape {part.shape} for {len(block)} samples; expected {expected}")
        if part.dtype.kind != "f":
            raise ModelError(f"the trainer predicted {part.dtype}; expected float32 of shape {expected}")
        parts.append(part.astype(np.float32, copy=False))
    predictions = np.concatenate(parts)
    if not np.isfinite(predictions).all():
        raise DivergedError("the predictions are not finite")
    kind_of(dataset.task).read_predictions("the trainer", predictions, dataset.task, ModelError)
    return predictions


def losses_of(predictions: Float32s, dataset: Dataset, rows: NDArray[np.int64]) -> dict[str, float]:
    """Return the metrics of validation predictions, of the samples at `rows`, by their names in a `Member`."""
    return kind_of(dataset.task).losses(predictions, np.asarray(dataset.targets[rows]), dataset.task)
