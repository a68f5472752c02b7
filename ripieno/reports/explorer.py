"""Data that the explorer shows at each budget, without drawing.

A *spot* is an ensemble of the front, a *face* a member of one. All values of a spot are computed here, so that the page
only displays them. Everything is limited: spots, faces, classes of a confusion, samples, images.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ripieno.library import Library
from ripieno.library.calibrate import calibrate
from ripieno.reports import calibration
from ripieno.reports.calibration import Bin
from ripieno.reports.confusion import confusion, most_confused, most_disputed, top_confusions, top_votes
from ripieno.reports.run_data import RunData, evenly_spaced, kept_front
from ripieno.selection import front as sweep
from ripieno.selection.validation import default_calibration, default_method
from ripieno.tasks.calibration import apply_temperature, combine_calibrated, fit_temperature
from ripieno.tasks.metrics import losses
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, Floats, Ints, ProgressFunction, Split

POINTS = 32
"""Maximum number of ensembles."""
FACES = 48
"""Maximum number of members shown in detail: those in the most ensembles."""
CLASSES = 14
"""Maximum number of classes of a confusion, those most often confused; the rest are merged into one."""
SAMPLES = 20_000
"""Maximum number of samples used, spread evenly over the split."""
FITTED = 2_000
"""Maximum number of samples that a temperature is fitted to."""
HARDEST = 12
"""Number of images per point of each kind: the hardest and the most disputed."""
MATRIX = 16
"""Maximum number of members compared in pairs at a point."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of predictions on the split shown."""

    confusion: tuple[tuple[int, ...], ...]
    """true class by predicted class, over the classes shown and, last, the rest"""
    bins: tuple[Bin, ...]
    error: float
    """expected calibration error"""
    temperature: float
    """fitted on validation samples"""
    cooled: float
    """expected calibration error with that temperature"""


@dataclass(frozen=True)
class HardSample:
    """An image at a point: its row in the split, true class, predicted class and probability."""

    row: int
    truth: int
    answer: int
    probability: float
    """probability of the true class"""
    votes: tuple[tuple[int, int], ...]
    """classes and their numbers of votes by members, most first"""


@dataclass(frozen=True)
class FrontPoint:
    """An ensemble of the front, with all values shown."""

    ensemble: Ensemble
    names: tuple[str, ...]
    """names of equal ensembles of the run"""
    judged: Evaluation
    confused: tuple[tuple[int, int, int], ...]
    """the most frequent confusions: true class, predicted class, count"""
    doubted: tuple[tuple[int, float], ...]
    """classes and the mean share of members that disagree with the ensemble, highest first"""
    hardest: tuple[HardSample, ...]
    disputed: tuple[HardSample, ...]


@dataclass(frozen=True)
class Explorer:
    """All data of the explorer; `disagreement[i, j]`: share of samples that members i and j classify differently."""

    split: Split
    samples: int
    shown: tuple[int, ...]
    """classes of the confusions"""
    rest: bool
    """True if there are more classes, merged into one last row and column"""
    spots: tuple[FrontPoint, ...]
    faces: dict[str, Evaluation]
    disagreement: dict[tuple[str, str], float]


def load_front(reading: RunData, progress: ProgressFunction) -> tuple[Ensemble, ...]:
    """Return the best ensembles of all budgets, cheapest first: the run's front, or a new one of measured members."""
    kept = kept_front(reading)
    if kept is not None:
        return tuple(kept.ensembles[i] for i in evenly_spaced(len(kept.ensembles), POINTS))
    ids = sorted(reading.costs)
    if not ids:
        return ()
    library, kind = reading.library, reading.kind
    choices = sweep(
        [library.predictions(m) for m in ids],
        library.targets(),
        {kind: [reading.costs[m] for m in ids]},
        prune=min(1.0, 0.2 * len(reading.members) / len(ids)),  # of the whole library, as `ripieno.front` does
        names=ids,
        calibrations=calibrate(library, ids, progress),
    )
    return tuple(
        choice.ensemble(
            f"front-{number:02d}", ids, {kind: choice.costs[kind]}, default_method("mean"),
            calibration=default_calibration(None, "mean"),
        )
        for number, choice in enumerate(choices)
    )  # fmt: skip


def explore(reading: RunData, front: Sequence[Ensemble], progress: ProgressFunction) -> Explorer | None:
    """Return the explorer of the ensembles of `front`; None if there are none."""
    if not front:
        return None
    library = reading.library
    ids = tuple(sorted({m for e in front for m in e.members}))
    split = reading.split(ids)
    predictions = _SplitPredictions(library, split, len(reading.classes()))
    combined = []
    for done, ensemble in enumerate(front):
        progress("explaining the front", done, len(front) + len(ids))
        combined.append(predictions.combined(ensemble))
    classes = predictions.classes
    shown = most_confused(predictions.labels, [c.argmax(axis=1) for c in combined], classes, CLASSES)
    spots = tuple(
        predictions.point(ensemble, reading.ensembles, probabilities, shown)
        for ensemble, probabilities in zip(front, combined, strict=True)
    )
    faces = {}
    uses = Counter(m for e in front for m in e.members)
    for done, member in enumerate(sorted(uses, key=lambda m: (-uses[m], m))[:FACES]):
        progress("explaining the front", len(front) + done, len(front) + len(ids))
        single = Ensemble(member, (member,), (1.0,), "single", {}, {}, {})
        faces[member] = predictions.evaluate(single, predictions.combined(single), shown)
    progress("explaining the front", len(front) + len(ids), len(front) + len(ids))
    pairs = {
        (a, b): float((predictions.votes(a) != predictions.votes(b)).mean())
        for e in front
        for a in e.members[:MATRIX]
        for b in e.members[:MATRIX]
        if a < b
    }
    return Explorer(split, len(predictions.labels), shown, len(shown) < classes, spots, faces, pairs)


class _SplitPredictions:
    """Predictions on the samples used of a split."""

    def __init__(self, library: Library, split: Split, classes: int) -> None:
        self.library, self.split, self.classes = library, split, classes
        self.labels, self.rows = self.sampled(split)
        self._votes: dict[str, Ints] = {}

    def sampled(self, split: Split, most: int = SAMPLES) -> tuple[Ints, Ints]:
        """Return labels and rows of the samples used, evenly spaced, as the split may be sorted by class."""
        labels = self.library.targets(split)
        rows = evenly_spaced(len(labels), most)
        return labels[rows], rows

    def combined(self, ensemble: Ensemble, split: Split | None = None, most: int = SAMPLES) -> Floats:
        """Return the ensemble's probabilities (samples, classes) on the samples used."""
        split = split or self.split
        rows = self.sampled(split, most)[1]
        tables = [self.library.predictions(m, split) for m in ensemble.members]
        activation = kind_of(self.library.member(ensemble.members[0]).task).activation
        parts = [
            combine_calibrated([table[rows[i : i + 1024]] for table in tables], ensemble, activation)
            for i in range(0, len(rows), 1024)
        ]
        return np.concatenate(parts)

    def with_losses(self, ensemble: Ensemble, probabilities: Floats) -> Ensemble:
        """Return the ensemble with its losses, computed here if it has none."""
        if ensemble.losses:
            return ensemble
        computed = losses(self.combined(ensemble, "valid"), self.sampled("valid")[0], "valid")
        if self.split == "test":
            computed |= losses(probabilities, self.labels, "test")
        return dataclasses.replace(ensemble, losses=computed)

    def votes(self, member: str) -> Ints:
        """Return the class that a member predicts for each sample."""
        if member not in self._votes:
            self._votes[member] = self.library.predictions(member, self.split)[self.rows].argmax(axis=1)
        return self._votes[member]

    def evaluate(self, ensemble: Ensemble, probabilities: Floats, shown: tuple[int, ...]) -> Evaluation:
        valid = self.combined(ensemble, "valid", FITTED)
        fitted = fit_temperature(valid, self.sampled("valid", FITTED)[0])
        bins = calibration.reliability(probabilities, self.labels)
        calibrated = calibration.reliability(apply_temperature(probabilities, fitted), self.labels)
        return Evaluation(
            confusion(self.labels, probabilities.argmax(axis=1), shown, self.classes),
            bins,
            calibration.calibration_error(bins),
            fitted,
            calibration.calibration_error(calibrated),
        )

    def point(
        self, ensemble: Ensemble, named: Sequence[Ensemble], probabilities: Floats, shown: tuple[int, ...]
    ) -> FrontPoint:
        best = probabilities.argmax(axis=1)
        votes = np.stack([self.votes(m) for m in ensemble.members])
        truth = probabilities[np.arange(len(best)), self.labels]
        doubt = (votes != best).mean(axis=0)
        # on a tie of doubt, the lowest probability of the true class first: confident errors are the most interesting
        disputed = np.lexsort((np.arange(len(best)), truth, -doubt))[:HARDEST]

        def samples(indices: Iterable[int]) -> tuple[HardSample, ...]:
            return tuple(
                HardSample(
                    int(self.rows[i]), int(self.labels[i]), int(best[i]), float(truth[i]), top_votes(votes[:, i])
                )
                for i in indices
            )

        return FrontPoint(
            self.with_losses(ensemble, probabilities),
            tuple(e.name for e in named if _key(e) == _key(ensemble)),
            self.evaluate(ensemble, probabilities, shown),
            top_confusions(self.labels, best, self.classes),
            most_disputed(self.labels, doubt, self.classes),
            samples(np.argsort(truth, kind="stable")[:HARDEST]),
            samples(i for i in disputed if doubt[i] > 0),
        )


def _key(ensemble: Ensemble) -> tuple[tuple[tuple[str, float, float], ...], float]:
    temperatures = ensemble.temperatures or (1.0,) * len(ensemble.members)
    members = zip(ensemble.members, ensemble.weights, temperatures, strict=True)
    return tuple(sorted((m, round(w, 6), round(t, 6)) for m, w, t in members)), round(ensemble.temperature, 6)
