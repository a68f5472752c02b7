"""Predictions of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ripieno.data.dataset import batches

PIXELS = 1 << 21
"""Most pixels of a batch without a given batch size: 41 images of 224x224."""


def predict(
    network: nn.Module,
    images: NDArray[Any],
    batch_size: int | None = None,
    device: str | torch.device = "cpu",
    rows: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Predict probabilities (samples, classes), float32, of `images` (samples, height, width, channels).

    The network runs in evaluation mode. With `rows`, only the images at these rows are predicted, in their order.
    Memory-mapped images are read one batch at a time.
    """
    rows = np.arange(len(images)) if rows is None else rows
    size = batch_size or max(1, min(256, PIXELS // (images.shape[1] * images.shape[2])))
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        logits = (network(torch.from_numpy(batch).to(device)).float() for batch in batches(images, rows, size))
        parts = [torch.softmax(part, 1) for part in logits]
    network.train(was_training)
    probabilities: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return probabilities
