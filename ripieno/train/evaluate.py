"""Predictions of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            block = torch.from_numpy(images[rows[start : start + size]]).to(device)
            parts.append(torch.softmax(network(block).float(), 1))
    network.train(was_training)
    probabilities: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return probabilities
