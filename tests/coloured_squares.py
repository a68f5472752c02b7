"""A tiny data set of images with masks: squares of two colours on a dark ground, in noise."""

from __future__ import annotations

import numpy as np

from ripieno.types import IGNORED, SPLITS, Dataset, Task

CLASSES = ("ground", "red", "blue")
COLOURS = np.array([[40, 40, 40], [200, 60, 60], [60, 60, 200]])


def coloured_squares(
    samples: int = 40, height: int = 24, width: int = 33, *, side: int = 10, noise: float = 25.0, seed: int = 0
) -> Dataset:
    """Make images of `height` x `width` pixels with masks; a half trains, a fifth are tests.

    The first row of pixels of each mask is ignored.
    """
    generator = np.random.default_rng(seed)
    masks = np.zeros((samples, height, width), np.uint8)
    for mask in masks:
        for index in range(1, len(CLASSES)):
            top, left = generator.integers(0, height - side), generator.integers(0, width - side)
            mask[top : top + side, left : left + side] = index
    inputs = np.clip(COLOURS[masks] + generator.normal(0, noise, (*masks.shape, 3)), 0, 255).astype(np.uint8)
    masks[:, 0] = IGNORED
    split = np.full(samples, SPLITS.index("train"), np.uint8)
    split[samples // 2 :] = SPLITS.index("valid")
    split[-samples // 5 :] = SPLITS.index("test")
    trained = inputs[split == SPLITS.index("train")]
    mean, std = (tuple(m.tolist()) for m in (trained.mean((0, 1, 2)), trained.std((0, 1, 2))))
    task = Task("segmentation", (height, width, len(CLASSES)), CLASSES)
    return Dataset("squares", inputs, masks, split, task, mean, std)
