"""What the explorer shows at each budget: data only, no drawing.

A *spot* is an ensemble of the front, a *face* a member of one. All that a spot needs is counted here, so that the page
only looks it up. Everything is bounded: spots, faces, classes of a confusion, samples looked at, pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ripieno.library import Library
from ripieno.reports import calibration
from ripieno.reports.calibration import Bin
from ripieno.reports.confusion import confusion, most_confused, most_disputed, top_confusions, top_votes
from ripieno.reports.run_data import RunData, kept_front
from ripieno.selection import front as sweep
from ripieno.selection.combine import combine
from ripieno.tasks.metrics import losses
from ripieno.types import Ensemble, Split

POINTS = 32
"""Ensembles at most."""
FACES = 48
"""Members shown closely at most: those of most ensembles first."""
CLASSES = 14
"""Classes of a confusion at most, those most often confused; the others are one."""
SAMPLES = 20_000
"""Samples looked at at most, evenly among those of the split."""
FITTED = 2_000
"""Samples a temperature is fitted to at most."""
HARDEST = 12
"""Images at a point of either sort: the hardest, the most disputed."""
MATRIX = 16
"""Members at most whose pairs are compared at a point."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """How some answers turned out, on the split shown."""

    confusion: tuple[tuple[int, ...], ...]
    """true class by answer, over the classes shown and, last, all others"""
    bins: tuple[Bin, ...]
    error: float
    """expected calibration error"""
    temperature: float
    """fitted on validation samples"""
    cooled: float
    """expected calibration error with that temperature"""


@dataclass(frozen=True)
class HardSample:
    """An image at a point: its row in the data set, what it is and was taken for, how sure the answer was."""

    row: int
    truth: int
    answer: int
    probability: float
    """of the true class"""
    votes: tuple[tuple[int, int], ...]
    """classes and the number of members that voted for them, most first"""


@dataclass(frozen=True)
class FrontPoint:
    """An ensemble of the front, with all that is shown of it."""

    ensemble: Ensemble
    names: tuple[str, ...]
    """of the run's ensembles that are this one"""
    judged: Evaluation
    confused: tuple[tuple[int, int, int], ...]
    """true class, answer, how often: the worst confusions"""
    doubted: tuple[tuple[int, float], ...]
    """classes and the mean share of members that do not answer as the ensemble: most first"""
    hardest: tuple[HardSample, ...]
    disputed: tuple[HardSample, ...]


@dataclass(frozen=True)
class Explorer:
    """All that can be explored; `disagreement[i][j]`: share of samples that faces i and j answer with another class."""

    split: Split
    samples: int
    shown: tuple[int, ...]
    """classes of the confusions; when there are more, one for the rest follows"""
    rest: bool
    spots: tuple[FrontPoint, ...]
    faces: dict[str, Evaluation]
    disagreement: dict[tuple[str, str], float]


def load_front(reading: RunData) -> tuple[Ensemble, ...]:
    """Best ensembles of all budgets, cheapest first: the run's own front, or one swept over all that have a cost."""
    kept = kept_front(reading)
    if kept is not None:
        return thinned(kept.ensembles)
    ids = sorted(reading.costs)
    if not ids:
        return ()
    choices = sweep(
        reading.library.true_class_mapped(ids),
        reading.library.labels(),
        {reading.kind: [reading.costs[m] for m in ids]},
        points=20,
        prune=1.0,
        names=ids,
    )
    return thinned([
        Ensemble(
            name=f"front-{number:02d}",
            members=tuple(ids[i] for i in choice.members),
            weights=choice.weights,
            method="smobf",
            budget={reading.kind: choice.costs[reading.kind]},
            cost=dict(choice.costs),
            losses={},
            combiner=choice.combiner,
        )
        for number, choice in enumerate(choices)
    ])  # fmt: skip


def thinned(ensembles: Sequence[Ensemble]) -> tuple[Ensemble, ...]:
    """At most `POINTS`, evenly, with the first and the last."""
    keep = np.unique(np.linspace(0, len(ensembles) - 1, min(POINTS, len(ensembles))).round().astype(int))
    return tuple(ensembles[i] for i in keep)


def explore(reading: RunData, front: Sequence[Ensemble], progress: Progress) -> Explorer | None:
    """Everything about the ensembles of `front`; None when there are none."""
    if not front:
        return None
    library = reading.library
    ids = tuple(sorted({m for e in front for m in e.members}))
    split = reading.split(ids)
    desk = _SplitPredictions(library, split, len(reading.classes()))
    names = _names(reading.ensembles)
    together = []
    for done, ensemble in enumerate(front):
        progress("explaining the front", done, len(front) + len(ids))
        together.append(desk.answers(ensemble))
    shown = most_confused(desk.labels, [t.argmax(axis=1) for t in together], desk.classes, CLASSES)
    spots = tuple(
        desk.spot(ensemble, names.get(_key(ensemble), ()), answers, shown)
        for ensemble, answers in zip(front, together, strict=True)
    )
    faces = {}
    for done, member in enumerate(_busiest(front, FACES)):
        progress("explaining the front", len(front) + done, len(front) + len(ids))
        alone = Ensemble(member, (member,), (1.0,), "single", {}, {}, {})
        faces[member] = desk.judged(alone, desk.answers(alone), shown)
    progress("explaining the front", len(front) + len(ids), len(front) + len(ids))
    pairs = {
        (a, b): float((desk.votes(a) != desk.votes(b)).mean())
        for e in front
        for a in e.members[:MATRIX]
        for b in e.members[:MATRIX]
        if a < b
    }
    rest = len(shown) < desk.classes
    return Explorer(split, len(desk.labels), shown, rest, spots, faces, pairs)


class _SplitPredictions:
    """The predictions on the samples looked at."""

    def __init__(self, library: Library, split: Split, classes: int) -> None:
        self.library, self.split, self.classes = library, split, classes
        self.labels, self.rows = self.sampled(split)
        self._voted: dict[str, Ints] = {}

    def sampled(self, split: Split, most: int = SAMPLES) -> tuple[Ints, Ints]:
        """Labels of the samples looked at and their places in the split: evenly, for classes may follow each other."""
        labels = self.library.labels(split)
        rows = np.unique(np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(np.int64))
        return labels[rows], rows

    def answers(self, ensemble: Ensemble, split: Split | None = None, most: int = SAMPLES) -> Floats:
        """Probabilities (samples, classes) of the ensemble on the samples looked at."""
        split = split or self.split
        rows = self.sampled(split, most)[1]
        cubes = [self.library.probabilities(m, split) for m in ensemble.members]
        parts = [
            combine(np.stack([cube[rows[i : i + 1024]] for cube in cubes]), ensemble.weights, ensemble.combiner)
            for i in range(0, len(rows), 1024)
        ]
        return np.concatenate(parts)

    def with_losses(self, ensemble: Ensemble, answers: Floats) -> Ensemble:
        """The ensemble with its figures, counted here when it has none."""
        if ensemble.losses:
            return ensemble
        found = losses(self.answers(ensemble, "valid"), self.sampled("valid")[0], "valid")
        if self.split == "test":
            found |= losses(answers, self.labels, "test")
        return dataclasses.replace(ensemble, losses=found)

    def votes(self, member: str) -> Ints:
        """The class that a member answers each sample with."""
        if member not in self._voted:
            self._voted[member] = self.library.probabilities(member, self.split)[self.rows].argmax(axis=1)
        return self._voted[member]

    def judged(self, ensemble: Ensemble, answers: Floats, shown: tuple[int, ...]) -> Evaluation:
        valid = self.answers(ensemble, "valid", FITTED)
        warmth = calibration.temperature(valid, self.sampled("valid", FITTED)[0])
        bins = calibration.reliability(answers, self.labels)
        cooled = calibration.reliability(calibration.apply_temperature(answers, warmth), self.labels)
        return Evaluation(
            confusion(self.labels, answers.argmax(axis=1), shown, self.classes),
            bins,
            calibration.calibration_error(bins),
            warmth,
            calibration.calibration_error(cooled),
        )

    def spot(self, ensemble: Ensemble, names: tuple[str, ...], answers: Floats, shown: tuple[int, ...]) -> FrontPoint:
        best = answers.argmax(axis=1)
        votes = np.stack([self.votes(m) for m in ensemble.members])
        truth = answers[np.arange(len(best)), self.labels]
        doubt = (votes != best).mean(axis=0)
        # those it was surest about first, among the equally disputed: two sure camps are worth a look
        disputed = np.lexsort((np.arange(len(best)), truth, -doubt))[:HARDEST]

        def shots(indices: Iterable[int]) -> tuple[HardSample, ...]:
            return tuple(
                HardSample(
                    int(self.rows[i]), int(self.labels[i]), int(best[i]), float(truth[i]), top_votes(votes[:, i])
                )
                for i in indices
            )

        return FrontPoint(
            self.with_losses(ensemble, answers),
            names,
            self.judged(ensemble, answers, shown),
            top_confusions(self.labels, best, self.classes),
            most_disputed(self.labels, doubt, self.classes),
            shots(np.argsort(truth, kind="stable")[:HARDEST]),
            shots(i for i in disputed if doubt[i] > 0),
        )


def _busiest(front: Sequence[Ensemble], most: int) -> list[str]:
    """Members by the number of ensembles they are in."""
    times: dict[str, int] = {}
    for ensemble in front:
        for member in ensemble.members:
            times[member] = times.get(member, 0) + 1
    return sorted(times, key=lambda m: (-times[m], m))[:most]


def _key(ensemble: Ensemble) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((m, round(w, 6)) for m, w in zip(ensemble.members, ensemble.weights, strict=True)))


def _names(ensembles: Sequence[Ensemble]) -> dict[tuple[tuple[str, float], ...], tuple[str, ...]]:
    found: dict[tuple[tuple[str, float], ...], tuple[str, ...]] = {}
    for ensemble in ensembles:
        found[_key(ensemble)] = (*found.get(_key(ensemble), ()), ensemble.name)
    return found
