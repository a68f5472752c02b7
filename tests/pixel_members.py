"""Masks, and members that predict them, for tests of segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, Input, Member, Task

TASK = Task("segmentation", (6, 8, 3), ("sky", "road", "tree"))


def make_masks(samples: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return masks (samples, 6, 8): bands of the classes at random heights, and a tenth of ignored pixels."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(1, 7, (samples, 2)), axis=1)
    rows = np.arange(6)[None, :]
    bands = (rows >= edges[:, :1]).astype(np.uint8) + (rows >= edges[:, 1:])
    masks = np.repeat(bands[:, :, None], 8, axis=2).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.1] = IGNORED
    return masks


def predict_masks(masks: NDArray[Any], members: int, seed: int = 1) -> NDArray[np.float32]:
    """Return probabilities (members, samples, 6, 8, 3), the first members the best."""
    rng = np.random.default_rng(seed)
    truth = np.eye(3)[np.where(masks == IGNORED, 0, masks)]
    sharp = np.linspace(2.5, 0.8, members).reshape(-1, 1, 1, 1, 1)
    logits = sharp * truth + rng.normal(size=(members, *truth.shape))
    raised = np.exp(logits)
    return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)


def make_member(name: str, predictions: NDArray[Any], masks: NDArray[Any], cost: float = 1.0) -> Member:
    """Return a member known by its predictions, which cost `cost`."""
    losses = kind_of(TASK).losses(predictions.astype(np.float16), masks, TASK)
    given = Input((6, 8, 3))
    return Member(
        name, -1, 0, "predictions", {}, given, TASK, losses, 0, 0.0, format="predictions", costs={"price": cost}
    )


def fill_library(path: Path, members: int = 5, samples: int = 12, test: int = 8) -> Library:
    """Return a library of members with predictions of `samples` validation and `test` test samples."""
    library = Library(path)
    masks, others = make_masks(samples), make_masks(test, 7)
    predictions, on_test = predict_masks(masks, members), predict_masks(others, members, 8)
    for number in range(members):
        member = make_member(f"m{number}", predictions[number], masks, 1.0 + number % 2)
        library.add(member, predictions[number], masks)
        if test:
            library.write_predictions(member.id, "test", on_test[number], others)
    return library
