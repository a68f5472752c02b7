"""Bundle of a segmentation -> masks of pictures of any size, without a server."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.joined_mask import JoinedMask
from ripieno.data.prediction_inputs import count_inputs, stream_pictures
from ripieno.data.tiles import OVERLAP, check_overlap
from ripieno.errors import EngineError
from ripieno.library import read_bundle
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import UncertaintyOutputs
from ripieno.types import Bundle, ProgressFunction

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

GROUP_BYTES = 64 << 20
"""Approximate bytes of predictions in one request, unless a row of tiles has more."""


@dataclass(frozen=True, eq=False)
class PredictedMask(PredictionBatch):
    """The mask of one picture. `predictions` are the shares of its pixels by class, (1, classes)."""

    mask: NDArray[np.uint8]
    """(height, width) of the picture: the index of a class for each pixel"""
    confidence: float
    """mean over the pixels of the largest probability"""


def _predicted(name: str, joined: JoinedMask) -> PredictedMask:
    """Return the mask of picture `name`, once all of its samples are answered."""
    builder = joined.builder
    spread = None if joined.spread is None else np.array([joined.spread], np.float32)
    uncertainty = {output: np.array([value]) for output, value in joined.uncertainty.items()}
    shares = builder.shares.astype(np.float32)[np.newaxis]
    return PredictedMask([name], shares, spread, builder.mask, builder.confidence, uncertainty=uncertainty)


def predict_masks(
    bundle: str | Path | Bundle,
    images: Any,
    trusted: Sequence[str] = (),
    *,
    skip_bad: bool = False,
    notes: list[str] | None = None,
    resize: bool = False,
    overlap: float = OVERLAP,
    progress: ProgressFunction = lambda *_: None,
) -> Iterator[PredictedMask]:
    """Predict a mask for each picture with a bundle of a segmentation, without a server; yield them in order.

    `images` are those of `predict`, and arrays (samples, height, width, channels) of any height and width. A picture
    that is larger than the network's input is cut into tiles of that size, which overlap by the share `overlap`. The
    probabilities of tiles are blended. With `resize` the picture is shrunk instead. A smaller one is always resized.
    Masks have the size of their pictures. Memory is bounded, whatever the number of pictures: about one picture, and
    the probabilities of the tiles that are in the engine.

    Raises EngineError for a bundle of another task, and as `predict`.
    """
    bundle = read_bundle(bundle, trusted)
    check_overlap(overlap)
    if not kind_of(bundle.task).is_pixelwise:
        raise EngineError(f"The bundle is of a {bundle.task.kind}, which predicts no masks. Call ripieno.predict.")
    return _predict_masks(bundle, images, skip_bad, notes, resize, overlap, progress)


def _predict_masks(
    bundle: Bundle,
    images: Any,
    skip_bad: bool,
    notes: list[str] | None,
    resize: bool,
    overlap: float,
    progress: ProgressFunction,
) -> Iterator[PredictedMask]:
    from ripieno.engine import Engine

    sample_bytes = 4 * math.prod(bundle.task.output)
    most = max(1, GROUP_BYTES // sample_bytes)
    total, done, in_flight = count_inputs(images, bundle.input), 0, 0
    waiting: deque[tuple[str, JoinedMask, Future[Answer]]] = deque()
    pictures = stream_pictures(images, bundle.input, notes, skip_bad=skip_bad, resize=resize, overlap=overlap)
    with Engine(bundle) as engine:
        whole, ahead = engine.cascade is None, engine.stats().capacity  # more would only wait
        outputs = UncertaintyOutputs(bundle.ensemble, bundle.task) if whole else None

        def finished() -> PredictedMask | None:
            """Wait for the oldest request; return the mask of its picture if it is the last of it."""
            nonlocal done, in_flight
            name, joined, future = waiting.popleft()
            answer = future.result()
            in_flight -= len(answer.predictions)
            joined.add(answer.predictions, answer.std, answer.disagreement)
            if joined.left:
                return None
            done += 1
            if total is not None:
                progress("predicting", min(done, total), total)
            return _predicted(name, joined)

        for name, samples in pictures:
            joined = JoinedMask(samples, len(bundle.task.names), outputs)
            for group in samples.groups(most):
                while waiting and in_flight + len(group) > ahead:
                    if (mask := finished()) is not None:
                        yield mask
                future = engine.submit(samples.samples(group), spread=whole, disagreement=whole)
                waiting.append((name, joined, future))
                in_flight += len(group)
        while waiting:
            if (mask := finished()) is not None:
                yield mask
    progress("predicting", done, done)
