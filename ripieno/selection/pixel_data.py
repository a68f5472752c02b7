"""Pixels as the rows that an ensemble is selected from: all counted ones, or a sample of each image.

The cross-entropy needs one number a pixel and member, which may stay in mapped files. Other losses need the
probabilities of all classes in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import SelectionError
from ripieno.selection import validation
from ripieno.selection.member_data import MemberData
from ripieno.selection.validation import Predictions
from ripieno.tasks.calibration import CalibratedRows, MemberCalibration, calibrated_rows
from ripieno.tasks.pixel_calibration import PixelSample, calibrate_pixels, sample_pixels
from ripieno.tasks.pixels import FLOOR, most_likely, prediction_blocks, sample_rows
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, Combiner, Ints, Task

IN_MEMORY = 1 << 26
"""Most probabilities of pixels in memory, of all members: 128 MiB in half precision."""


def pixel_data(
    arrays: Predictions,
    masks: ArrayLike | None,
    names: Sequence[str],
    kind: TaskKind,
    task: str | Task,
    loss: str,
    combiner: Combiner,
    pixels: int | None,
    calibrated: bool = False,
    calibrations: Sequence[MemberCalibration] | None = None,
) -> MemberData:
    """Return the counted pixels as rows: at most `pixels` of each image, drawn at random, always the same.

    `arrays` are the members' predictions, or their likelihoods of counted pixels, (counted pixels,). With `calibrated`,
    the members are at their temperatures, those of `calibrations` where they were fitted before. Raises SelectionError
    for masks and predictions that do not belong together, and where the rows need too much memory.
    """
    truth = _read_masks(masks, arrays[0], kind, task)
    counted = truth != IGNORED
    images = np.asarray(counted.reshape(len(truth), -1).sum(axis=1), np.int64)
    if not images.sum():
        raise SelectionError("all pixels of the masks are ignored: there is nothing to select by")
    rows, images = sample_rows(images, pixels)
    if arrays[0].ndim == 1 and len(arrays[0]) != counted.sum():
        due = f"the masks have {int(counted.sum())} counted pixels"
        raise SelectionError(f"likelihoods are of {len(arrays[0])} pixels per member, but {due}: pass one for each")
    if calibrations is None:
        validation.check_members(arrays, names)
    sample = sample_pixels(truth) if calibrated else None
    if sample is None:
        calibrations = None
    elif calibrations is None:
        calibrations = [calibrate_pixels(p, truth, sample, kind) for p in arrays]
    if loss == "cross-entropy" or arrays[0].ndim == 1:
        if combiner == "vote":
            narrow: list[Any] = [_hits(p, truth) for p in arrays]
        elif calibrations is not None:
            narrow = [calibration.rows.truth for calibration in calibrations]
        else:
            narrow = list(arrays) if arrays[0].ndim == 1 else [kind.likelihood(p, truth) for p in arrays]
        found = [row if rows is None else row[rows] for row in narrow if row is not None]
        drawn = None if sample is None or calibrations is None else _sample_data(sample, calibrations, kind)
        return MemberData(found, None, kind=kind, images=images, sample=drawn)
    _check_memory(len(arrays), images, arrays[0].shape[-1], loss)
    places = np.flatnonzero(counted)
    places = places if rows is None else places[rows]
    flat = [p.reshape(-1, p.shape[-1])[places] for p in arrays]
    classes = truth.reshape(-1)[places].astype(np.int64)
    at = None if calibrations is None else _at_temperatures(flat, classes, calibrations, kind)
    return MemberData(flat, classes, at, kind=kind, images=images)


def _sample_data(sample: PixelSample, calibrations: Sequence[MemberCalibration], kind: TaskKind) -> MemberData:
    """Return the pixels that the temperatures were fitted to as rows, or fewer of them where they need much memory."""
    drawn = [np.asarray(c.sample) for c in calibrations]
    most = max(1, IN_MEMORY // (len(drawn) * drawn[0].shape[1]) // len(sample.images))
    rows, images = sample_rows(sample.images, most)
    classes = sample.classes
    if rows is not None:
        drawn, classes = [own[rows] for own in drawn], classes[rows]
    return MemberData(drawn, classes, _at_temperatures(drawn, classes, calibrations, kind), kind=kind, images=images)


def _at_temperatures(
    flat: Sequence[NDArray[Any]], classes: Ints, calibrations: Sequence[MemberCalibration], kind: TaskKind
) -> list[MemberCalibration]:
    """Return the `calibrations` with the rows of pixels with predictions `flat` (members, pixels, classes)."""
    return [
        MemberCalibration(c.temperature, calibrated_rows(own, classes, c.temperature, kind))
        for own, c in zip(flat, calibrations, strict=True)
    ]


def thin(data: MemberData, most: int) -> MemberData:
    """Return `data` with a sample of about `most` rows, as many of each image; ordinary samples are all kept.

    Where the members are calibrated, it has all classes.
    """
    data = data.whole
    if data.images is None:
        return data
    rows, images = sample_rows(data.images, max(1, most // len(data.images)))
    if rows is None:
        return data
    targets = None if data.targets is None else data.targets[rows]
    calibrations = data.calibrations and [
        MemberCalibration(c.temperature, CalibratedRows(*(row[rows] for row in c.rows))) for c in data.calibrations
    ]
    flat = [np.asarray(p[rows]) for p in data.predictions]
    return MemberData(flat, targets, calibrations, kind=data.kind, images=images)


def _read_masks(masks: ArrayLike | None, first: NDArray[Any], kind: TaskKind, task: str | Task) -> NDArray[Any]:
    """Return the masks of `first`, one member's predictions; those of a `Task` were checked."""
    if masks is None:
        raise SelectionError(f"task {kind.name} needs targets: pass the masks (samples, height, width)")
    given = np.asarray(validation.unmasked(masks, "targets"))
    if first.ndim == 1 or isinstance(task, Task):
        if given.ndim != 3:
            raise SelectionError(f"masks have shape {given.shape}: expected (samples, height, width)")
    else:
        full = Task(kind.name, first.shape[1:], tuple(map(str, range(first.shape[-1]))))
        kind.check_task(full, "predictions", SelectionError)
        given = kind.read_targets(given, full, "masks", SelectionError)
    if first.ndim > 1 and given.shape != first.shape[:-1]:
        raise SelectionError(f"masks have shape {given.shape}: expected {first.shape[:-1]}, as the predictions")
    return given


def _hits(predictions: NDArray[Any], masks: NDArray[Any]) -> NDArray[np.float16]:
    """Return one for each counted pixel whose most likely class is the true one, else nearly zero."""
    rows = [
        (most_likely(predictions[block]) == masks[block])[masks[block] != IGNORED]
        for block in prediction_blocks(predictions)
    ]
    return np.maximum(np.concatenate(rows).astype(np.float16), np.float16(FLOOR))


def _check_memory(members: int, images: Ints, classes: int, loss: str) -> None:
    """Raise SelectionError where the probabilities of all classes do not fit in memory."""
    if members * int(images.sum()) * classes <= IN_MEMORY:
        return
    fitting = max(1, IN_MEMORY // (members * len(images) * classes))
    raise SelectionError(
        f"loss {loss} of {int(images.sum()):,} pixels, {members} members and {classes} classes does not fit in memory: "
        f"pass pixels {fitting} or less, a sample of each image, or loss cross-entropy"
    )
