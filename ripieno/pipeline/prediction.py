"""Bundle -> predictions, without a server."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.data.long_table import SeriesColumns
from ripieno.data.prediction_inputs import count_inputs, read_inputs, stream_inputs
from ripieno.data_kinds import is_series
from ripieno.errors import SelectionError
from ripieno.library import read_bundle
from ripieno.tasks.label_shift import PriorCorrection, correct_prior
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import UncertaintyOutputs
from ripieno.types import Bundle, ProgressFunction

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

Prior = Literal["trained", "auto"]
"""Shares of the classes that predictions assume: those of training, or estimated from the predictions themselves."""
SHOWN = 3
"""Classes that a note on shares names."""
AHEAD = 2
"""Batches in the engine while the next one is read."""


@dataclass(frozen=True, eq=False)
class PredictionBatch:
    """Predictions of some samples."""

    names: list[str]
    predictions: NDArray[np.float32]
    """(samples, *task.output)"""
    spread: NDArray[np.float32] | None
    """(samples,) or, for a regression, (samples, targets): disagreement of the members; None with a cascade"""
    uncertainty: Mapping[str, NDArray[Any]] = field(default_factory=dict, kw_only=True)
    """outputs of `ripieno.tasks.uncertainty_outputs` by name, each (samples, ...); empty with a cascade"""


def predict(
    bundle: str | Path | Bundle,
    images: Any,
    trusted: Sequence[str] = (),
    *,
    skip_bad: bool = False,
    notes: list[str] | None = None,
    columns: SeriesColumns | None = None,
    prior: Prior = "trained",
) -> NDArray[np.float32]:
    """Predict `images` with a bundle, without a server: float32 (samples, *task.output), e.g. probabilities.

    `images` is an array (samples, height, width, channels), a picture, the path of a picture, folder or file of arrays,
    a list of these, or a data set as for `tune`. See `ripieno.data.prediction_inputs.read_inputs`. With `skip_bad`
    pictures that cannot be read are skipped, each with a line in `notes`. `columns` are those of a table of series;
    gaps within series are interpolated, with a note. `trusted` names the user's families that may be imported, as for
    `Engine`. With `prior` "auto" the shares of the classes among the images are estimated from all predictions, which
    are corrected (`ripieno.tasks.label_shift`); a note tells what changed. Raises EngineError or DataError for images
    that cannot be used, SelectionError for a `prior` that the task does not have.
    """
    from ripieno.engine import Engine

    bundle = read_bundle(bundle, trusted)
    check_prior(bundle, prior)
    if not isinstance(images, np.ndarray) or is_series(bundle.input):
        images = read_inputs(images, bundle.input, notes, skip_bad=skip_bad, columns=columns)[1]
    with Engine(bundle) as engine:
        predictions = engine.predict(images)
    if prior == "trained" or not len(predictions):
        return predictions
    corrected, correction = correct_prior(predictions, bundle.prior)
    if notes is not None:
        notes.append(describe_correction(correction, bundle.task.names))
    return corrected


def check_prior(bundle: Bundle, prior: str) -> None:
    """Raise SelectionError unless the shares of a bundle's classes can be chosen by `prior`."""
    kind = kind_of(bundle.task)
    if prior not in get_args(Prior):
        raise SelectionError(f"prior {prior!r} is unknown: expected {' or '.join(get_args(Prior))}")
    if prior != "trained" and (kind.activation != "softmax" or kind.is_pixelwise):
        raise SelectionError(f"prior {prior} is for samples of one class each, not for a {kind.name}: leave it out")


def describe_correction(correction: PriorCorrection, names: Sequence[str]) -> str:
    """Return the note what a correction of the shares of the classes `names` did, those that changed most first."""
    change = np.abs(correction.estimated - correction.trained)
    order = np.argsort(-change, kind="stable")[:SHOWN]
    parts = [f"{names[i]} {correction.trained[i]:.1%} to {correction.estimated[i]:.1%}" for i in order]
    more = f" and {len(names) - len(parts)} more" if len(names) > len(parts) else ""
    origin = "" if correction.known else "; those of training are not known, equal ones are assumed"
    return f"shares of classes corrected by {correction.answers:,} predictions: {', '.join(parts)}{more}{origin}"


def stream_predictions(
    bundle: Bundle,
    source: Any,
    *,
    skip_bad: bool = False,
    notes: list[str] | None = None,
    progress: ProgressFunction = lambda *_: None,
    columns: SeriesColumns | None = None,
    coverage: float | None = None,
    prior: Prior = "trained",
) -> Iterator[PredictionBatch]:
    """Predict the samples of `source` in batches; arguments and errors are those of `predict`.

    `coverage` is the level of sets or intervals, by default the first of the bundle; with one, all members predict
    every sample despite a cascade. Memory is bounded: a few batches are read and predicted at a time. Read the bundle
    with the families it may import. With `prior` "auto" the answers of all samples are in memory together. Raises
    SelectionError for a level that the bundle does not have.
    """
    check_prior(bundle, prior)
    if coverage is not None:
        UncertaintyOutputs(bundle.ensemble, bundle.task).coverage(coverage)
    stream = stream_inputs(source, bundle.input, notes, skip_bad=skip_bad, columns=columns)
    batches = predict_batches(bundle, stream, count_inputs(source, bundle.input), progress, coverage)
    if prior == "trained":
        return batches
    return _corrected(list(batches), bundle, notes, coverage)


def _corrected(
    batches: Sequence[PredictionBatch], bundle: Bundle, notes: list[str] | None, coverage: float | None
) -> Iterator[PredictionBatch]:
    batches, correction = correct_batches(batches, bundle, coverage)
    if notes is not None and correction is not None:
        notes.append(describe_correction(correction, bundle.task.names))
    return iter(batches)


def correct_batches(
    batches: Sequence[PredictionBatch], bundle: Bundle, coverage: float | None = None
) -> tuple[list[PredictionBatch], PriorCorrection | None]:
    """Return batches under the shares of classes that all their predictions have, and how these were estimated.

    What is computed from predictions, such as their entropy, follows; what members disagree about does not. Without
    samples there is no correction.
    """
    if not batches:
        return [], None
    _, correction = correct_prior(np.concatenate([batch.predictions for batch in batches]), bundle.prior)
    outputs = UncertaintyOutputs(bundle.ensemble, bundle.task)

    def corrected(batch: PredictionBatch) -> PredictionBatch:
        predictions = correction.apply(batch.predictions)
        disagreement = batch.uncertainty.get("mutual_information")
        parts: dict[str, Any] = {"spread": batch.spread, "disagreement": disagreement, "level": coverage}
        uncertainty = {name: outputs.compute(name, predictions, **parts) for name in batch.uncertainty}
        return dataclasses.replace(batch, predictions=predictions, uncertainty=uncertainty)

    return [corrected(batch) for batch in batches], correction


def predict_batches(
    bundle: Bundle,
    stream: Iterator[tuple[list[str], NDArray[Any]]],
    total: int | None,
    progress: ProgressFunction = lambda *_: None,
    coverage: float | None = None,
) -> Iterator[PredictionBatch]:
    """Predict batches of names and inputs while the next are read; `total` is their number of samples, if known.

    `coverage` is that of `stream_predictions`.
    """
    from ripieno.engine import Engine

    outputs = UncertaintyOutputs(bundle.ensemble, bundle.task)
    needs = outputs.needs(outputs.names, coverage)
    done = 0
    waiting: deque[tuple[list[str], Future[Answer]]] = deque()

    def first() -> PredictionBatch:
        nonlocal done
        names, future = waiting.popleft()
        answer = future.result()
        done += len(names)
        if total is not None:
            progress("predicting", min(done, total), total)
        return PredictionBatch(names, answer.predictions, answer.std, uncertainty=uncertainty_of(answer))

    def uncertainty_of(answer: Answer) -> dict[str, NDArray[Any]]:
        parts: dict[str, Any] = {"spread": answer.std, "disagreement": answer.disagreement, "level": coverage}
        return {name: outputs.compute(name, answer.predictions, **parts) for name in outputs.names if whole}

    with Engine(bundle) as engine:
        whole = engine.cascade is None or coverage is not None  # the spread needs all members
        disagreement = whole and needs is not None and needs.disagreement
        for names, images in stream:
            waiting.append((names, engine.submit(images, spread=whole, disagreement=disagreement)))
            if len(waiting) > AHEAD:
                yield first()
        while waiting:
            yield first()
    progress("predicting", done, done)
