"""Bundle of a segmentation -> masks of pictures of any size, without a server."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.mask_image import MaskBuilder
from ripieno.data.prediction_inputs import count_inputs, stream_pictures
from ripieno.data.tiles import OVERLAP, PredictionJoiner, check_overlap
from ripieno.errors import EngineError
from ripieno.library import read_bundle
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import TiledUncertainty, UncertaintyOutputs
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


@dataclass(eq=False)
class _Picture:
    """A picture of which some samples are in the engine."""

    name: str
    builder: MaskBuilder
    joiner: PredictionJoiner
    samples: int
    uncertainty: TiledUncertainty
    spread: float = 0.0
    """sum over the samples that are answered"""
    left: int = field(init=False)
    """samples that are not answered"""

    def __post_init__(self) -> None:
        self.left = self.samples

    def add(self, answer: Answer) -> None:
        """Add the predictions of its next samples."""
        self.builder.add(self.joiner.add(answer.predictions))
        self.left -= len(answer.predictions)
        self.spread += 0.0 if answer.std is None else float(answer.std.sum())
        if answer.disagreement is not None:
            self.uncertainty.add(answer.predictions, answer.disagreement)

    def predicted(self, whole: bool) -> PredictedMask:
        """Return the mask, once all samples are answered, by all members if `whole`."""
        builder = self.builder
        spread = np.array([self.spread / self.samples], np.float32) if whole else None
        numbers = self.uncertainty.compute(builder.confidence) if whole else {}
        uncertainty = {name: np.array([value]) for name, value in numbers.items()}
        shares = builder.shares.astype(np.float32)[np.newaxis]
        return PredictedMask([self.name], shares, spread, builder.mask, builder.confidence, uncertainty=uncertainty)


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
    outputs = UncertaintyOutputs(bundle.ensemble, bundle.task)
    total, done, in_flight = count_inputs(images), 0, 0
    waiting: deque[tuple[_Picture, Future[Answer]]] = deque()
    pictures = stream_pictures(images, bundle.input, notes, skip_bad=skip_bad, resize=resize, overlap=overlap)
    with Engine(bundle) as engine:
        whole, ahead = engine.cascade is None, engine.stats().capacity  # more would only wait

        def finished() -> PredictedMask | None:
            """Wait for the oldest request; return the mask of its picture if it is the last of it."""
            nonlocal done, in_flight
            picture, future = waiting.popleft()
            answer = future.result()
            in_flight -= len(answer.predictions)
            picture.add(answer)
            if picture.left:
                return None
            done += 1
            if total is not None:
                progress("predicting", min(done, total), total)
            return picture.predicted(whole)

        for name, samples in pictures:
            builder = MaskBuilder(samples.shape, len(bundle.task.names))
            picture = _Picture(name, builder, samples.joiner(), len(samples), TiledUncertainty(outputs))
            for group in samples.groups(most):
                while waiting and in_flight + len(group) > ahead:
                    if (mask := finished()) is not None:
                        yield mask
                waiting.append((picture, engine.submit(samples.samples(group), spread=whole, disagreement=whole)))
                in_flight += len(group)
        while waiting:
            if (mask := finished()) is not None:
                yield mask
    progress("predicting", done, done)
