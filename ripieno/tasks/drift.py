"""Drift: how the samples of requests differ from the validation samples of a data set.

A few numbers are taken of each sample: of the combined predictions, of the members' disagreement, and of the inputs.
Their distributions among the validation samples are kept as histograms. Samples of requests come in windows of
`WINDOW`, each compared by a two-sample test: Kolmogorov and Smirnov's of ordered values, Pearson's chi-squared of
categories. A drift begins after `BEGIN` windows in a row with p below `LEVEL`, and ends after `END` in a row without.

Windows of a fixed size keep a test from finding differences that are too small to matter. Several windows in a row keep
chance from raising an alarm: of 100,000 windows of clean traffic, less than one in a hundred begins a drift by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.metrics import predicted_labels
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Floats, Input, Ints, Task, column_places

WINDOW = 100
"""Samples of requests that are compared at a time."""
LEVEL = 1e-3
"""p below which a window differs, divided among the distributions of one subject (Bonferroni)."""
BEGIN, END = 3, 5
"""Windows in a row that begin a drift, and that end it."""
BINS = 64
"""Bins of a histogram at most, without that of missing values."""
GRID = 128
"""Steps of bounds between 0 and 1: predictions that are kept in half precision are not finer everywhere."""
EXPECTED = 5.0
"""Least expected count of a category in a window; rarer ones are joined."""

Subject: TypeAlias = Literal["confidence", "disagreement", "predictions", "inputs"]
"""Subject of a distribution."""


class Measured(NamedTuple):
    """One number of each sample."""

    name: str
    subject: Subject
    values: Floats
    """(samples,), NaN where missing; of categories their indices"""
    categories: tuple[str, ...] = ()
    """their names; none: the values are ordered"""


@dataclass(frozen=True)
class Distribution:
    """Histogram of one number over the validation samples."""

    name: str
    subject: Subject
    counts: tuple[int, ...]
    """up to each bound, beyond the last one, and missing; or of each category"""
    bounds: tuple[float, ...] = ()
    """rising"""
    categories: tuple[str, ...] = ()

    def count(self, values: Floats) -> Ints:
        """Return the counts of other `values` (samples,) in the same bins."""
        if self.categories:
            places = np.asarray(values, np.int64)
        else:
            places = np.searchsorted(self.bounds, values, "left")
            places[np.isnan(values)] = len(self.counts) - 1
        return np.bincount(places, minlength=len(self.counts))


@dataclass(frozen=True)
class ValidationStatistics:
    """Distributions over the validation samples, as the ensemble predicts them when it is served."""

    samples: int
    distributions: tuple[Distribution, ...]


class WindowComparison(NamedTuple):
    """Difference of a window from the validation samples in one distribution."""

    distance: float
    """largest difference of the cumulative shares; of categories, half the sum of the differences; 0..1"""
    p: float
    change: str
    """in words: `lower`, or `more cat, less dog`"""


class DriftState(NamedTuple):
    """State of one distribution."""

    distribution: Distribution
    level: float
    """p below which a window differs"""
    comparison: WindowComparison = WindowComparison(0.0, 1.0, "")
    """of the last window"""
    streak: int = 0
    """windows in a row that differed"""
    moved: bool = False
    """whether it is part of a drift"""
    change: str = ""
    """that of the last window that differed"""

    @property
    def p(self) -> float:
        """p of the last window, corrected for the number of distributions of its subject."""
        return min(1.0, self.comparison.p * LEVEL / self.level)

    @property
    def moved_text(self) -> str:
        """Name, with the change in words."""
        return f"{self.distribution.name} ({self.change})" if self.change else self.distribution.name


class DriftEvent(NamedTuple):
    """Begin or end of a drift."""

    began: bool
    moved: tuple[str, ...]
    """the distributions, each with its change, the most different ones first"""


def measure(
    kind: TaskKind,
    task: Task,
    taken: Input,
    inputs: NDArray[Any] | None,
    predictions: NDArray[Any],
    disagreement: NDArray[Any] | None = None,
    thresholds: Sequence[float] = (),
) -> list[Measured]:
    """Return the numbers of samples: `inputs` (samples, *taken.shape) and combined `predictions` of them.

    `disagreement` (samples,) is that of the members. `thresholds` are those of `Ensemble`.
    """
    found: list[Measured] = []
    confidence = kind.confidence(predictions)
    if confidence is not None:
        found.append(Measured("confidence", "confidence", np.asarray(confidence, np.float64)))
    if disagreement is not None:
        found.append(Measured("disagreement", "disagreement", np.asarray(disagreement, np.float64)))
    found += _of_predictions(kind, task, predictions, thresholds)
    return found if inputs is None else [*found, *_of_inputs(taken, inputs)]


def _of_predictions(
    kind: TaskKind, task: Task, predictions: NDArray[Any], thresholds: Sequence[float]
) -> Iterable[Measured]:
    if kind.activation == "identity":
        for i, name in enumerate(task.names):
            yield Measured(f"value {name}", "predictions", predictions[:, i].astype(np.float64))
    elif kind.activation == "sigmoid":
        positive = predicted_labels(predictions, thresholds)
        for i, name in enumerate(task.names):
            yield Measured(f"label {name}", "predictions", positive[:, i].astype(np.float64), ("absent", "present"))
    elif kind.is_pixelwise:
        chosen = predictions.argmax(axis=-1).reshape(len(predictions), -1)
        for i, name in enumerate(task.names):
            yield Measured(f"pixels of {name}", "predictions", (chosen == i).mean(axis=1))
    else:
        chosen = predictions.argmax(axis=-1).astype(np.float64)
        yield Measured("predicted classes", "predictions", chosen, task.names)


def _of_inputs(taken: Input, inputs: NDArray[Any]) -> Iterable[Measured]:
    if len(taken.shape) > 1:
        flat = inputs.reshape(len(inputs), -1, taken.shape[-1])
        means, deviations = flat.mean(axis=1, dtype=np.float64), flat.std(axis=1, dtype=np.float64)
        for i in range(taken.shape[-1]):
            channel = f" of channel {i + 1}" if taken.shape[-1] > 1 else " of the input"
            yield Measured(f"mean{channel}", "inputs", means[:, i])
            yield Measured(f"standard deviation{channel}", "inputs", deviations[:, i])
        return
    values = inputs.astype(np.float64)
    if not taken.columns:
        for i in range(taken.shape[0]):
            yield Measured(f"column {i + 1}", "inputs", values[:, i])
    for column, place in column_places(taken.columns):
        if column.kind == "category":
            known = (*column.categories, "other")
            own = values[:, place.start]
            own = np.where((own >= 0) & (own < len(column.categories)), own, len(column.categories))
            yield Measured(f"column {column.name}", "inputs", own, known)
            continue
        parts = column.parts if column.kind == "date" else ("",)
        for i, part in enumerate(parts):
            yield Measured(f"column {column.name} {part}".rstrip(), "inputs", values[:, place.start + i])


def distribution_of(measured: Measured) -> Distribution:
    """Return the histogram of validation samples."""
    name, subject, values, categories = measured
    empty = Distribution(name, subject, (0,) * len(categories), (), categories)
    if not categories:
        bounds = _bounds(values[~np.isnan(values)], subject in ("confidence", "disagreement"))
        empty = Distribution(name, subject, (0,) * (len(bounds) + 2), bounds)
    return Distribution(name, subject, tuple(empty.count(values).tolist()), empty.bounds, categories)


def _bounds(values: Floats, on_grid: bool) -> tuple[float, ...]:
    """Return at most `BINS` - 1 rising bounds of bins with about as many values each.

    No bound is a value: a served value may differ from the kept one in the last digits. For the same reason, bounds of
    values between 0 and 1 are `on_grid`, as far as the values span more than a step of it.
    """
    distinct = np.unique(values)
    if len(distinct) < 2:
        return ()
    levels = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf")
    if on_grid and distinct[-1] <= 1:
        grid = (np.floor(levels * GRID) + 0.5) / GRID
        return tuple(np.unique(grid[(grid > 0) & (grid < 1)]).tolist())
    after = np.searchsorted(distinct, np.unique(levels), "right")
    after = after[after < len(distinct)]
    return tuple(np.unique((distinct[after - 1] + distinct[after]) / 2).tolist())


def compare(reference: Distribution, counts: Ints) -> WindowComparison:
    """Compare the `counts` of a window with the validation samples."""
    known = np.asarray(reference.counts, np.float64)
    n, m = float(counts.sum()), float(known.sum())
    if not n or not m:
        return WindowComparison(0.0, 1.0, "")
    difference = counts / n - known / m
    if reference.categories:
        distance = float(np.abs(difference).sum() / 2)
        more, less = (reference.categories[int(i)] for i in (difference.argmax(), difference.argmin()))
        return WindowComparison(distance, _categories_p(known, counts), f"more {more}, less {less}" if distance else "")
    from scipy.special import kolmogorov

    cumulative = np.cumsum(difference)[:-1]
    distance = float(np.abs(cumulative).max())
    p = float(kolmogorov(np.sqrt(n * m / (n + m)) * distance))
    if not distance:
        return WindowComparison(distance, p, "")
    if difference[-1] > 0 and distance - difference[-1] < 0.25 * distance:
        return WindowComparison(distance, p, "more missing")
    # fewer low values than before: the cumulative share fell
    lowest, highest = float(cumulative.min()), float(cumulative.max())
    if min(highest, -lowest) < distance / 2:
        return WindowComparison(distance, p, "lower" if highest > -lowest else "higher")
    return WindowComparison(distance, p, "wider" if cumulative.argmax() < cumulative.argmin() else "narrower")


def _categories_p(known: Floats, counts: Ints) -> float:
    """Return p of a test that two samples of categories are of one population.

    It is Pearson's, after rare categories are joined; of two groups of which one is rare, that of two Poisson counts.
    """
    from scipy.special import bdtr, bdtrc, chdtrc

    n, m = float(counts.sum()), float(known.sum())
    groups = _groups((known + counts) * n / (n + m))
    known, seen = (np.asarray(np.bincount(groups, of), np.float64) for of in (known, counts))
    total = known + seen
    used = total > 0
    if used.sum() < 2:
        return 1.0
    rare = int(total.argmin())
    if len(total) == 2 and total[rare] * n / (n + m) < EXPECTED:
        k, of, share = int(seen[rare]), int(total[rare]), n / (n + m)
        above = bdtrc(k - 1, of, share) if k else 1.0
        return float(min(1.0, 2 * min(above, bdtr(k, of, share))))
    found = (seen[used] * np.sqrt(m / n) - known[used] * np.sqrt(n / m)) ** 2 / total[used]
    return float(chdtrc(used.sum() - 1, found.sum()))


def _groups(expected: Floats) -> Ints:
    """Return the group of each category, so that at least `EXPECTED` counts are expected of a group.

    The rarest ones are joined. There are two groups at least: if need be, the most common category and the others.
    """
    order = np.argsort(expected, kind="stable")
    found, group, total = [], 0, 0.0
    for own in expected[order].tolist():
        if total >= EXPECTED:
            group, total = group + 1, 0.0
        found.append(group)
        total += own
    groups = np.empty(len(order), np.int64)
    groups[order] = found
    if not group:
        groups[order[-1]] = 1
    return groups


class DriftDetector:
    """Detector of drifts against `reference`. Decides by the samples alone, without clocks and files."""

    def __init__(self, reference: ValidationStatistics) -> None:
        import scipy.special  # noqa: F401  now, and not while requests wait

        self.reference = reference
        sizes: dict[str, int] = {}
        for distribution in reference.distributions:
            sizes[distribution.subject] = sizes.get(distribution.subject, 0) + 1
        self.states = {d.name: DriftState(d, LEVEL / sizes[d.subject]) for d in reference.distributions}
        """by the name of the distribution"""
        self.drifting = False
        self.drifts = 0
        """drifts that began"""
        self._quiet = 0

    def add(self, window: Mapping[str, Floats]) -> DriftEvent | None:
        """Compare a window, the values of its samples by the name of the distribution; return what it changes.

        A distribution with less than half the samples of a window is not compared.
        """
        states = dict(self.states)  # replaced as a whole: another thread may read them
        for name, before in self.states.items():
            values = window.get(name)
            if values is None or 2 * len(values) < WINDOW:
                continue
            found = compare(before.distribution, before.distribution.count(values))
            streak = before.streak + 1 if found.p < before.level else 0
            change = found.change if streak else before.change
            states[name] = before._replace(
                comparison=found, streak=streak, moved=before.moved or streak >= BEGIN, change=change
            )
        self.states = states
        self._quiet = 0 if any(state.streak for state in self.states.values()) else self._quiet + 1
        if self.drifting and self._quiet >= END:
            ended = self.moved
            self.drifting = False
            self.states = {name: state._replace(moved=False) for name, state in self.states.items()}
            return DriftEvent(False, ended)
        if not self.drifting and (moved := self.moved):
            self.drifting = True
            self.drifts += 1
            return DriftEvent(True, moved)
        return None

    def by_subject(self) -> dict[Subject, DriftState]:
        """Return for each subject the state of the distribution that differs most, relative to its level."""
        found: dict[Subject, DriftState] = {}
        for state in self.states.values():
            subject = state.distribution.subject
            if subject not in found or state.comparison.p < found[subject].comparison.p:
                found[subject] = state
        return found

    @property
    def moved(self) -> tuple[str, ...]:
        """Distributions that are part of a drift, each with its change, the most different ones first."""
        found = [state for state in self.states.values() if state.moved]
        return tuple(s.moved_text for s in sorted(found, key=lambda state: -state.comparison.distance))
