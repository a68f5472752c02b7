"""Predictors of the loss and of the training seconds of candidates that grow: trees, and a ridge on log seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ripieno.errors import require
from ripieno.search.encoding import Array, Encoding
from ripieno.search.growth import Candidate, Growth
from ripieno.search.in_memory_study import Result, epoch_seconds
from ripieno.search.objectives import scaled

LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "extra-trees": ("ExtraTreesRegressor", {"n_estimators": 50, "min_samples_leaf": 2}),
    "random-forest": ("RandomForestRegressor", {"n_estimators": 50, "min_samples_leaf": 2}),
    "gradient-boosting": ("GradientBoostingRegressor", {"n_estimators": 80, "max_depth": 3, "learning_rate": 0.1}),
}
"""Classes of scikit-learn and their options by the names of the predictors of scores."""
RIDGE = 0.1
"""Penalty of the model of seconds, on standardised features."""


@dataclass(frozen=True)
class Drawn:
    """A trial's candidate and the rest of its values."""

    candidate: Candidate
    macro: Array
    """(1, ranges), the row of the other ranges"""


class Predictors:
    """Models of the loss and of the seconds of an epoch, fitted on the first results of a search."""

    def __init__(
        self,
        growth: Growth,
        macro: Encoding,
        drawn: Sequence[Drawn],
        results: Sequence[Result],
        learner: str = "extra-trees",
        time_learner: str = "ridge",
    ) -> None:
        """Fit `results`, of which at least one has a loss; `drawn` are the candidates of all trials."""
        self._growth, self._macro = growth, macro
        self._parts = sorted({part for one in drawn for part in growth.parts(one.candidate)})
        self._weights: dict[str, float] = {}
        told = [result for result in results if result.loss is not None]
        self.epochs = tuple(sorted({result.epoch for result in told}))
        counts = self._counts(drawn)
        rates = epoch_seconds(results)
        self._seconds: _Ridge | _Trees | None = None
        if len(rates) > 1 and np.ptp(list(rates.values())) > 0:
            trials = sorted(rates)
            logs = np.log([rates[trial] for trial in trials])
            others = self._others(drawn)[trials]
            # what a part adds to the logarithm of the seconds orders the parts by their own
            effects = _Ridge(np.column_stack([counts[trials], others]), logs).slopes[: len(self._parts)]
            self._weights = dict(zip(self._parts, np.exp(effects - effects.max()).tolist(), strict=True))
            self._seconds = TIME_LEARNERS[time_learner](self._time_features(drawn)[trials], logs)
        rows = [result.trial for result in told]
        failed = sorted({result.trial for result in results} - {*rows})
        epochs = np.log([result.epoch for result in told] + [max(self.epochs)] * len(failed))
        plain = [result.loss for result in told if result.loss is not None]
        losses = scaled(plain)
        self._is_log = min(plain) >= 0 and max(plain) > 0  # as in `scaled`
        targets = np.concatenate([losses, np.full(len(failed), losses.max())])
        name, options = LEARNERS[learner]
        model = getattr(require("sklearn.ensemble"), name)(random_state=len(results), **options)
        features = self._score_features(drawn)[rows + failed]
        self._score = model.fit(np.column_stack([features, epochs]), targets)

    def losses(self, drawn: Sequence[Drawn], epoch: int) -> Array:
        """Return predicted losses after `epoch`, (drawn,), in the scale in which they are compared."""
        features = self._score_features(drawn)
        found: Array = self._score.predict(np.column_stack([features, np.full(len(drawn), np.log(epoch))]))
        return found

    def plain_losses(self, drawn: Sequence[Drawn], epoch: int) -> Array:
        """Return predicted losses after `epoch` as they are measured, (drawn,)."""
        found = self.losses(drawn, epoch)
        plain: Array = np.exp(found) if self._is_log else found
        return plain

    def seconds(self, drawn: Sequence[Drawn]) -> Array:
        """Return the predicted seconds of an epoch, (drawn,); all equal where they are not known."""
        if self._seconds is None:
            return np.ones(len(drawn))
        found: Array = np.exp(self._seconds.predict(self._time_features(drawn)))
        return found

    def plain_seconds(self, one: Drawn, epoch: int) -> float | None:
        """Return the predicted seconds of training to `epoch`; None where durations are not known."""
        return None if self._seconds is None else epoch * float(self.seconds([one])[0])

    def _counts(self, drawn: Sequence[Drawn]) -> Array:
        """Return how often each candidate has each part, (drawn, parts)."""
        counts = [Counter(self._growth.parts(one.candidate)) for one in drawn]
        return np.array([[count[part] for part in self._parts] for count in counts], float)

    def _others(self, drawn: Sequence[Drawn]) -> Array:
        """Return the features of the macro-hyperparameters, (drawn, features)."""
        return self._macro.features(np.concatenate([one.macro for one in drawn]))

    def _graph(self, drawn: Sequence[Drawn]) -> Array:
        """Return the features of the graphs, (drawn, features)."""
        found = [self._growth.features(one.candidate, self._weights) for one in drawn]
        return np.array([list(features.values()) for features in found], float)

    def _score_features(self, drawn: Sequence[Drawn]) -> Array:
        return np.column_stack([self._graph(drawn), self._counts(drawn), self._others(drawn)])

    def _time_features(self, drawn: Sequence[Drawn]) -> Array:
        graph = self._graph(drawn)
        return np.column_stack([graph, np.log1p(graph), self._counts(drawn), self._others(drawn)])


class _Ridge:
    """Ridge regression on standardised features."""

    def __init__(self, features: Array, targets: Array) -> None:
        self._mean, self._scale = features.mean(axis=0), features.std(axis=0)
        self._scale[self._scale == 0] = 1.0
        self._model = require("sklearn.linear_model").Ridge(alpha=RIDGE)
        self._model.fit((features - self._mean) / self._scale, targets)
        self._low, self._high = targets.min(), targets.max()

    @property
    def slopes(self) -> Array:
        """Increase of the prediction with a unit of each feature."""
        slopes: Array = self._model.coef_ / self._scale
        return slopes

    def predict(self, features: Array) -> Array:
        """Return predictions, at most as far beyond the known targets as these are apart."""
        found = self._model.predict((features - self._mean) / self._scale)
        span = self._high - self._low
        clipped: Array = np.clip(found, self._low - span, self._high + span)
        return clipped


class _Trees:
    """Extremely randomised trees."""

    def __init__(self, features: Array, targets: Array) -> None:
        name, options = LEARNERS["extra-trees"]
        model = getattr(require("sklearn.ensemble"), name)(random_state=len(targets), **options)
        self._model = model.fit(features, targets)

    def predict(self, features: Array) -> Array:
        """Return predictions."""
        found: Array = self._model.predict(features)
        return found


TIME_LEARNERS: dict[str, Callable[[Array, Array], _Ridge | _Trees]] = {"ridge": _Ridge, "extra-trees": _Trees}
"""Predictors of the logarithm of seconds by name."""
