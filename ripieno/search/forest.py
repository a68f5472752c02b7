"""Sampler that learns from curves: a forest on the losses of all rungs chooses the trial that promises the most.

Theory of operation. Every result is a row of the training set, (configuration, logarithm of the epoch) -> logarithm of
the loss, so that a trial teaches from its first rung on, whether it is paused, stopped or trains further. A failed
trial is as bad as the worst. The forest predicts the loss of some hundred candidates at the last epoch known: random
ones, and neighbours of the trials that it rates best. The mean and the spread of its trees give the improvement to
expect over the best trial that meets the measured constraints, times the probability that the candidate meets them
too, by a forest of each. A second forest predicts the seconds of an epoch, and the improvement is divided by their
square root: a trial that takes four times as long must promise twice as much. A share of the trials is random, so that
the forest does not only see what it once preferred.

With the curves of past searches (:mod:`ripieno.search.warm_start`) a forest of them lends some of its trees: all but
one before there are results, half of them at `FADING` results, fewer and fewer after. Their losses, which are
standardised, are put into the scale of this search by a line through its own results; where past searches say nothing
about them, the line is flat.

Forests are fitted on the first 12, 13, ... results, 5 % more each time, in the order in which they were reported, and
are kept until the next: the cost of a trial hardly grows with their number, and a restart fits the same ones again.

Pure: the results and the seed decide, no clock, no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from ripieno.errors import SearchError, require
from ripieno.search.constraints import Constraint, total_violation
from ripieno.search.encoding import Array, Encoding
from ripieno.search.in_memory_study import ReportedStudy, Result, epoch_seconds, reported
from ripieno.search.objectives import LOSS, SINGLE, SearchObjective, scaled, tchebycheff, unit_scaled, vector
from ripieno.search.warm_start import PastCurve

STARTUP = 12
"""Number of random trials with a result before the forest is used."""
WARM_STARTUP = 3
"""The same of a search that learns from past ones."""
FADING = 24
"""Number of results at which half of the trees are those of past searches."""
SHRINKAGE = 6
"""Results for which the prior counts, that losses vary as much as standardised ones say."""
GROWTH = 1.05
"""Ratio of the numbers of results of two successive forests."""
NEIGHBOURS = 0.5
"""Share of the candidates that are neighbours of good trials."""
PARENTS = 10
"""Number of best trials, as predicted, that have neighbours."""
SPREAD, CHANGES = 0.15, 0.3
"""Step of a neighbour, as a share of the range, and probability that a range changes."""
TREES = 30
"""Trees of the forest of losses."""
FEW_TREES = 10
"""Trees of the forest of seconds."""
_PAST = 0
"""Key of the forest of past searches among those of numbers of results."""
LEARNERS = {"extra-trees": "ExtraTreesRegressor", "random-forest": "RandomForestRegressor"}
"""Classes of scikit-learn by the names of the learners of losses."""


class Forest:
    """Forest on `features` (rows, columns) and `targets` (rows,), of extremely randomised trees (Geurts et al. 2006).

    `leaf` is the least number of rows of a leaf, `learner` one of `LEARNERS`. Raises MissingExtraError without
    scikit-learn.
    """

    def __init__(
        self, features: Array, targets: Array, trees: int, seed: int, leaf: int = 1, learner: str = "extra-trees"
    ) -> None:
        make = getattr(require("sklearn.ensemble"), LEARNERS[learner])
        model = make(trees, min_samples_leaf=leaf, random_state=seed)
        self._trees = [tree.tree_ for tree in model.fit(features.astype(np.float32), targets).estimators_]

    def predict(self, features: Array) -> Array:
        """Return the prediction of every tree, (trees, rows)."""
        rows = features.astype(np.float32)  # trees without the ensemble's checks, which take longer than they do
        return np.stack([tree.predict(rows)[:, 0] for tree in self._trees])


class PastForest:
    """Forest of the curves of past searches, whose losses are standardised."""

    def __init__(self, encoding: Encoding, curves: Sequence[PastCurve]) -> None:
        features = encoding.features(encoding.rows(curve.values for curve in curves))
        points = [(n, epoch, loss) for n, curve in enumerate(curves) for epoch, loss in curve.points]
        rows = np.column_stack([features[[n for n, _, _ in points]], np.log([epoch for _, epoch, _ in points])])
        self._forest = Forest(rows, np.array([loss for _, _, loss in points]), TREES, seed=len(points))

    def lend(self, own: Forest, inputs: Array, targets: Array) -> MixedForest:
        """Return `own`, fitted to `inputs` and `targets`, with the share of trees that their number leaves to these."""
        found = self._forest.predict(inputs).mean(axis=0)
        count, spread = len(targets), float(targets.std())
        variance = float(found.var())
        fitted = float(np.mean((found - found.mean()) * (targets - targets.mean()))) / variance if variance > 0 else 0.0
        slope = max(0.0, (count * fitted + SHRINKAGE * spread) / (count + SHRINKAGE))
        offset = float(targets.mean()) - slope * float(found.mean())
        lent = min(TREES - 1, round(TREES * FADING / (FADING + count)))
        return MixedForest(own, self._forest, lent, slope, offset)


@dataclass(frozen=True)
class MixedForest:
    """Forest of a search of which the first `lent` trees are those of `past`, in the scale of the search."""

    own: Forest
    past: Forest
    lent: int
    slope: float
    offset: float

    def predict(self, features: Array) -> Array:
        """Return the prediction of every tree, (trees, rows)."""
        past = self.past.predict(features)[: self.lent]
        return np.concatenate([self.offset + self.slope * past, self.own.predict(features)[self.lent :]])


@dataclass(frozen=True)
class Knowledge:
    """The forests of the first results of a search."""

    objectives: tuple[Forest | MixedForest, ...]
    """one for each objective; of a search by the loss alone, that of the losses"""
    seconds: Forest | None
    """logarithm of the seconds of an epoch; None: all take the same"""
    epochs: tuple[float, ...]
    """logarithms of the epochs at which a candidate is rated: the last one known; with several objectives all"""
    known: Array
    """(epochs, trials, objectives) predicted for trials, in the forests' scale"""
    rows: Array
    """of these trials"""
    broken: Array
    """of these trials: how far each is beyond the constraints, 0 where it meets all"""
    bounded: tuple[tuple[Forest, float], ...] = ()
    """forests of measured violations, and the largest that meets the constraint in the forest's scale"""

    def scalars(self, values: Array, weights: Array) -> Array:
        """Return one number for `values` (..., epochs, rows, objectives), (..., rows); smaller is better.

        A single objective is that number. Of several epochs the best one counts, as each rung makes a member.
        """
        if values.shape[-1] == 1:
            return np.asarray(values[..., 0].min(axis=-2))
        low, high = self.known.min(axis=(0, 1)), self.known.max(axis=(0, 1))
        return np.asarray(tchebycheff(unit_scaled(values, low, high), weights).min(axis=-2))

    def parents(self, weights: Array) -> Array:
        """Return the rows of the best trials, best first."""
        return self.rows[np.lexsort((self.scalars(self.known, weights), self.broken))[:PARENTS]]

    def improvement(self, features: Array, weights: Array) -> Array:
        """Return the improvement that each candidate promises, by the root of its seconds."""
        found = self.scalars(_predict(self.objectives, features, self.epochs), weights)
        mean, spread = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-12)
        before = self.scalars(self.known, weights)
        best = before[self.broken <= 0].min(initial=np.inf)  # infinite: no trial meets the constraints
        gain = (best if np.isfinite(best) else before.max()) - mean
        z = gain / spread
        expected: Array = gain * ndtr(z) + spread * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
        if self.seconds is not None:
            expected = expected / np.exp(self.seconds.predict(features).mean(axis=0) / 2)
        for forest, most in self.bounded:
            violations = forest.predict(features)
            mean, spread = violations.mean(axis=0), np.maximum(violations.std(axis=0), 1e-12)
            expected = expected * ndtr((most - mean) / spread)
        return expected


def learn(
    encoding: Encoding,
    configurations: Sequence[Mapping[str, Any]],
    results: Sequence[Result],
    learner: str = "extra-trees",
    constraints: Sequence[Constraint] = (),
    objectives: Sequence[SearchObjective] = SINGLE,
    past: PastForest | None = None,
) -> Knowledge:
    """Fit the forests on `results`, of which at least one has a loss; `configurations` are those of all trials.

    `learner` is that of the forests of `objectives`. Improvements are over the best trial that meets the `constraints`.
    The forest of losses has trees of `past` searches.
    """
    trials = sorted({result.trial for result in results})
    index = {trial: n for n, trial in enumerate(trials)}
    rows = encoding.rows(configurations[trial] for trial in trials)
    features = encoding.features(rows)
    points = [vector(objectives, result.loss, result.values) for result in results]
    told = [result for result, point in zip(results, points, strict=True) if point is not None]
    last = float(np.log(max(result.epoch for result in told)))
    failed = [index[result.trial] for result, point in zip(results, points, strict=True) if point is None]
    where = [index[result.trial] for result in told] + failed
    epochs = np.concatenate([np.log([result.epoch for result in told]), np.full(len(failed), last)])
    inputs = np.column_stack([features[where], epochs])
    forests: list[Forest | MixedForest] = []
    columns = zip(*(point for point in points if point is not None), strict=True)
    for objective, column in zip(objectives, columns, strict=True):
        values = scaled(column)
        targets = np.concatenate([values, np.full(len(failed), values.max())])
        own = Forest(inputs, targets, TREES, seed=len(results), learner=learner)
        forests.append(past.lend(own, inputs, targets) if past and objective.name == LOSS else own)
    measured: dict[int, dict[str, float]] = {trial: {} for trial in trials}
    for result in told:
        measured[result.trial].update(result.values)
    broken = np.array([total_violation(constraints, measured[trial]) for trial in trials])
    bounded = tuple(filter(None, (_violations(c, features, index, measured, len(results)) for c in constraints)))
    rungs = (last,) if len(objectives) == 1 else tuple(np.log(sorted({result.epoch for result in told})).tolist())
    known = _predict(forests, features, rungs).mean(axis=0)
    return Knowledge(tuple(forests), _seconds(features, index, told), rungs, known, rows, broken, bounded)


def sizes(results: int, first: int = STARTUP) -> int:
    """Return the number of results of the latest forest when there are `results`, at least `first`."""
    size = first
    while (larger := max(size + 1, int(size * GROWTH))) <= results:
        size = larger
    return size


def _predict(forests: Sequence[Forest | MixedForest], features: Array, epochs: Sequence[float]) -> Array:
    """Return the predictions of all trees of `forests`, (trees, epochs, rows, forests)."""
    rows = np.concatenate([_with_epoch(features, epoch) for epoch in epochs])
    found = np.stack([forest.predict(rows) for forest in forests], axis=-1)
    return found.reshape(len(found), len(epochs), len(features), len(forests))


def _with_epoch(features: Array, epoch: float) -> Array:
    return np.column_stack([features, np.full(len(features), epoch)])


def _seconds(features: Array, index: Mapping[int, int], results: Sequence[Result]) -> Forest | None:
    """Fit the logarithm of the mean seconds of an epoch of each trial; None if all are equal or none is known."""
    known = epoch_seconds(results)
    timed = [trial for trial in index if trial in known]
    rates = np.log([known[trial] for trial in timed])
    if len(timed) < 2 or np.ptp(rates) < 1e-9:
        return None
    return Forest(features[[index[trial] for trial in timed]], rates, FEW_TREES, seed=len(results))


def _violations(
    constraint: Constraint,
    features: Array,
    index: Mapping[int, int],
    measured: Mapping[int, Mapping[str, float]],
    seed: int,
) -> tuple[Forest, float] | None:
    """Fit what the trials were measured to have; return the forest and the largest number that meets the constraint.

    None where all have the same. Numbers are in logarithm where all are above 0, as those of costs.
    """
    known = [trial for trial in index if constraint.name in measured[trial]]
    values = np.array([measured[trial][constraint.name] for trial in known])
    if len(known) < 2 or np.ptp(values) == 0:
        return None
    is_positive = values.min() > 0 and constraint.bound > 0
    scale = np.log if is_positive else np.asarray
    sign = 1.0 if constraint.sign == "<=" else -1.0
    forest = Forest(features[[index[trial] for trial in known]], sign * scale(values), FEW_TREES, seed)
    return forest, sign * float(scale(constraint.bound))


class ForestSampler(RandomSampler):
    """Sampler of the best of `candidates` configurations; `random_share` of the trials, and the first, are random.

    Raises SearchError for an unknown `learner`.
    """

    def __init__(self, seed: int, random_share: float, candidates: int, learner: str) -> None:
        super().__init__(seed)
        if learner not in LEARNERS:
            raise SearchError(f"no learner {learner!r}; there are: {', '.join(LEARNERS)}")
        self._learner = learner
        self._random = np.random.default_rng(seed)
        self._random_share, self._candidates = random_share, candidates

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return all ranges if the forest chooses this trial, none if it is random."""
        results, least = reported(study).results, _startup(reported(study))
        if self._random.random() < self._random_share or len({result.trial for result in results}) < least:
            return {}
        objectives = reported(study).objectives
        first = results[: sizes(len(results), least)]
        if all(vector(objectives, result.loss, result.values) is None for result in first):
            return {}
        return {name: c for name, c in reported(study).ranges.items() if not c.single()}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of the best candidate that was not a trial before; of the best if all were."""
        if not search_space:
            return {}
        encoding, trials = Encoding(search_space), study.get_trials(deepcopy=False)
        known = self._knowledge(reported(study), encoding, trials)
        near = int(self._candidates * NEIGHBOURS)
        weights = self._random.dirichlet(np.ones(len(known.objectives))) if len(known.objectives) > 1 else np.ones(1)
        good = known.parents(weights)
        parents = good[self._random.integers(len(good), size=near)]
        drawn = encoding.draw(self._candidates - near, self._random)
        candidates = np.concatenate([drawn, encoding.neighbours(parents, SPREAD, CHANGES, self._random)])
        order = np.argsort(-known.improvement(encoding.features(candidates), weights), kind="stable")
        before = {tuple(t.params[name] for name in search_space) for t in trials}
        ranked = (encoding.values(candidates[n]) for n in order)
        new = (values for values in ranked if tuple(values.values()) not in before)
        allow = reported(study).allow
        allowed = new if allow is None else filter(allow, new)
        return next(allowed, encoding.values(candidates[order[0]]))

    def _knowledge(self, study: ReportedStudy, encoding: Encoding, trials: Sequence[FrozenTrial]) -> Knowledge:
        size = sizes(len(study.results), _startup(study))
        if size not in study.cache:
            past = study.cache.get(_PAST) or (PastForest(encoding, study.past) if study.past else None)
            study.cache.clear()
            study.cache[_PAST] = past
            results, configurations = study.results[:size], [t.params for t in trials]
            bounds, objectives = study.constraints, study.objectives
            study.cache[size] = learn(encoding, configurations, results, self._learner, bounds, objectives, past)
        known: Knowledge = study.cache[size]
        return known


def _startup(study: ReportedStudy) -> int:
    """Return the number of random trials with a result before the forest is used."""
    return WARM_STARTUP if study.past else STARTUP
