"""Data of the explorer for masks, read in blocks of samples: what `explorer` computes for other tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library
from ripieno.reports.explorer import HARDEST, MATRIX, Explorer, FrontPoint, HardSample, names_of_equals
from ripieno.reports.mask_quality import Masks, mask_quality
from ripieno.reports.run_data import RunData, evenly_spaced
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.pixels import PixelTotals, most_likely
from ripieno.tasks.registry import kind_of
from ripieno.types import IGNORED, Ensemble, Float32s, Ints, ProgressFunction, Split, Task

VALUES = 1 << 27
"""Maximum number of predicted values of a member that are used, of samples spread evenly over the split."""
TOGETHER = 1 << 26
"""Predicted values of all members in memory, unless those of one sample are more."""

MemberPair = tuple[str, str]


def explore_pixels(reading: RunData, front: Sequence[Ensemble], progress: ProgressFunction) -> Explorer | None:
    """Return the explorer of the ensembles of `front`, whose task predicts masks; None if there are none."""
    if not front:
        return None
    split = reading.split(tuple(sorted({m for e in front for m in e.members})))
    predictions = _PixelPredictions(reading.library, split, reading.task)
    pairs = tuple(dict.fromkeys((a, b) for e in front for a in e.members[:MATRIX] for b in e.members[:MATRIX] if a < b))
    totals, differences = predictions.measure(front, pairs, progress)
    front = _with_losses(reading, split, front, totals, progress)
    spots = tuple(
        FrontPoint(
            ensemble, names_of_equals(ensemble, reading.ensembles), None, (), (),
            _hardest(own, predictions.rows, reading.task), (),
        )
        for ensemble, own in zip(front, totals, strict=True)
    )  # fmt: skip

    def read(place: int) -> tuple[Masks, Masks]:
        return next(predictions.masks(front[-1], slice(place, place + 1)))

    masks = mask_quality(totals[-1], predictions.masks(front[-1]), read, predictions.rows, reading.task)
    targets, rows = predictions.targets, predictions.rows
    return Explorer(split, len(rows), (), False, spots, {}, differences, None, targets, rows, masks)


class _PixelPredictions:
    """Predictions of masks on the samples used of a split."""

    def __init__(self, library: Library, split: Split, task: Task) -> None:
        self.library, self.split, self.numbers = library, split, int(np.prod(task.output))
        self.kind = kind_of(task)
        targets = library.targets(split)
        self.rows = evenly_spaced(len(targets), max(1, VALUES // self.numbers))
        self.targets = targets[self.rows]

    def blocks(self, members: int, places: slice = slice(None)) -> Iterator[Ints]:
        """Yield places among the samples used, as many as fit in memory for this number of members."""
        step = max(1, TOGETHER // (members * self.numbers))
        chosen = np.arange(len(self.rows))[places]
        yield from (chosen[start : start + step] for start in range(0, len(chosen), step))

    def read(self, member: str, places: Ints) -> Float32s:
        """Return the predictions of a member on some of the samples used."""
        return np.asarray(self.library.predictions(member, self.split)[self.rows[places]], np.float32)

    def combine(self, ensemble: Ensemble, places: Ints) -> Float32s:
        """Return the predictions of an ensemble on some of the samples used."""
        return combine_calibrated([self.read(m, places) for m in ensemble.members], ensemble, self.kind)

    def masks(self, ensemble: Ensemble, places: slice = slice(None)) -> Iterator[tuple[Masks, Masks]]:
        """Yield true and predicted masks of the samples used."""
        for block in self.blocks(len(ensemble.members), places):
            yield from zip(self.targets[block], most_likely(self.combine(ensemble, block)), strict=True)

    def measure(
        self, front: Sequence[Ensemble], pairs: Sequence[MemberPair], progress: ProgressFunction
    ) -> tuple[list[PixelTotals], dict[MemberPair, float]]:
        """Return the totals of each ensemble, and the share of counted pixels that members of a pair class apart."""
        ids = sorted({m for e in front for m in e.members})
        parts: list[list[PixelTotals]] = [[] for _ in front]
        differing, pixels = dict.fromkeys(pairs, 0), 0
        for block in self.blocks(len(ids)):
            progress("explaining the front", int(block[0]), len(self.rows))
            masks = self.targets[block]
            counted = masks != IGNORED
            tables = {m: self.read(m, block) for m in ids}
            answers = {m: most_likely(tables[m])[counted] for m in {m for pair in pairs for m in pair}}
            for one, other in pairs:
                differing[one, other] += int((answers[one] != answers[other]).sum())
            pixels += int(counted.sum())
            for own, ensemble in zip(parts, front, strict=True):
                combined = combine_calibrated([tables[m] for m in ensemble.members], ensemble, self.kind)
                own.append(PixelTotals.of(combined, masks))
        progress("explaining the front", len(self.rows), len(self.rows))
        classes = parts[0][0].counts.hits.shape[1]
        shares = {pair: count / max(1, pixels) for pair, count in differing.items()}
        return [PixelTotals.joined(own, classes) for own in parts], shares


def _with_losses(
    reading: RunData, split: Split, front: Sequence[Ensemble], totals: Sequence[PixelTotals], progress: ProgressFunction
) -> list[Ensemble]:
    """Return the ensembles with their losses, computed here if they have none."""
    if all(ensemble.losses for ensemble in front):
        return list(front)
    known: dict[Split, Sequence[PixelTotals]] = {split: totals}
    if split != "valid":
        known["valid"] = _PixelPredictions(reading.library, "valid", reading.task).measure(front, (), progress)[0]
    return [
        ensemble
        if ensemble.losses
        else dataclasses.replace(
            ensemble, losses={f"{s}_{name}": v for s, own in known.items() for name, v in own[i].scores().items()}
        )
        for i, ensemble in enumerate(front)
    ]


def _hardest(totals: PixelTotals, rows: Ints, task: Task) -> tuple[HardSample, ...]:
    """Return the samples of highest loss, each with the share of its pixels that are right and the class it lacks."""
    losses, right = totals.losses / np.maximum(1, totals.pixels), totals.counts.accuracy()
    missed: NDArray[Any] = totals.counts.truth - totals.counts.hits
    return tuple(
        HardSample(
            int(rows[i]), f"{right[i]:.1%} of pixels right",
            f"misses {task.names[int(missed[i].argmax())]}" if missed[i].any() else "misses none", float(losses[i]), (),
        )
        for i in np.argsort(-losses, kind="stable")[:HARDEST]
    )  # fmt: skip
