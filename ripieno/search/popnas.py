"""Sampler that grows cells block by block along the predicted front of score and training time (POPNASv3).

Falanti et al. 2022. The first trials are candidates of one block, drawn evenly. Then, step by step, candidates of one
block more are predicted by their loss and their training seconds. Those that no other one beats in both are the front,
and the next trial is one of them. The authors train a whole front, then wait. Here each trial is drawn from the front
as the results so far predict it, so no worker idles between steps; a step is over when `beam` trials of it were drawn.
At the last step the search stays, until its trials or its time are over: half of its trials then take a candidate on
the measured front with other macro-hyperparameters.

A candidate grows from one of the last step that is among the better half by its measured loss, or on the measured
front. A share of the trials goes to candidates with operators or inputs that the front neglects (section 3.5 there:
used less than a fifth as often as evenly).

Pure: the results and the seed decide, no clock, no state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from ripieno.errors import SearchError, require
from ripieno.search.encoding import Array, Encoding
from ripieno.search.forest import sizes
from ripieno.search.growth import Candidate, Growth, draw_evenly, find_growth
from ripieno.search.in_memory_study import ReportedStudy, Result
from ripieno.search.objectives import scaled
from ripieno.search.predictions import TrialPrediction

Macro = Literal["along", "after"]
"""When macro-hyperparameters are searched: while candidates grow, or on the front of the last step."""
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "extra-trees": ("ExtraTreesRegressor", {"n_estimators": 50, "min_samples_leaf": 2}),
    "random-forest": ("RandomForestRegressor", {"n_estimators": 50, "min_samples_leaf": 2}),
    "gradient-boosting": ("GradientBoostingRegressor", {"n_estimators": 80, "max_depth": 3, "learning_rate": 0.1}),
}
"""Classes of scikit-learn and their options by the names of the predictors of scores."""
EXPLORATION = 1 / 9
"""Share of the trials of a step between the first and the last that explore (16 of 144 there)."""
NEGLECTED = 0.2
"""Parts used less than this share of evenly are neglected."""
REFINED = 0.5
"""Share of the trials after the last step that take a candidate of the front with other macro-hyperparameters."""
FITTING = 16
"""Macro-hyperparameters with which a first candidate may meet the bounds."""
RANDOM_MACRO = 0.3
"""Share of the candidates whose macro-hyperparameters are random; the others have neighbours of those of trials."""
SPREAD, CHANGES = 0.15, 0.3
"""Step of such a neighbour, as a share of the range, and probability that a range changes."""
BIAS = 3
"""Power of a uniform number that draws from the front: the lower the predicted loss, the likelier the candidate."""
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
        self, growth: Growth, macro: Encoding, drawn: Sequence[Drawn], results: Sequence[Result], learner: str
    ) -> None:
        """Fit `results`, of which at least one has a loss; `drawn` are the candidates of all trials."""
        self._growth, self._macro = growth, macro
        self._parts = sorted({part for one in drawn for part in growth.parts(one.candidate)})
        self._weights: dict[str, float] = {}
        told = [result for result in results if result.loss is not None]
        self.epochs = tuple(sorted({result.epoch for result in told}))
        counts = self._counts(drawn)
        rates = _epoch_seconds(results)
        self._seconds: _Ridge | None = None
        if len(rates) > 1 and np.ptp(list(rates.values())) > 0:
            trials = sorted(rates)
            logs = np.log([rates[trial] for trial in trials])
            others = self._others(drawn)[trials]
            # what a part adds to the logarithm of the seconds orders the parts by their own
            effects = _Ridge(np.column_stack([counts[trials], others]), logs).slopes[: len(self._parts)]
            self._weights = dict(zip(self._parts, np.exp(effects - effects.max()).tolist(), strict=True))
            self._seconds = _Ridge(self._time_features(drawn)[trials], logs)
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


def _epoch_seconds(results: Sequence[Result]) -> dict[int, float]:
    """Return the mean seconds of an epoch by trial, of those with a duration."""
    seconds: Counter[int] = Counter()
    epochs: Counter[int] = Counter()
    reached: Counter[int] = Counter()
    for result in results:
        if result.seconds > 0:  # a job whose driver died has no duration
            seconds[result.trial] += result.seconds  # type: ignore[assignment]
            epochs[result.trial] += result.epoch - reached[result.trial]
        reached[result.trial] = result.epoch
    return {trial: seconds[trial] / epochs[trial] for trial in seconds}


def front(losses: Array, seconds: Array) -> list[int]:
    """Return the indices of points that no other one beats in both, by rising loss; of equal points one."""
    found: list[int] = []
    least = np.inf
    for n in np.lexsort((seconds, losses)).tolist():
        if seconds[n] < least:
            found.append(n)
            least = seconds[n]
    return found


class PopnasSampler(RandomSampler):
    """Sampler of candidates that grow; `random_share` of the trials are random. For the options see `Algorithm`.

    Raises SearchError for a space whose configurations do not grow, and for unknown words.
    """

    def __init__(
        self,
        seed: int,
        random_share: float,
        candidates: int,
        learner: str,
        first: int,
        beam: int,
        macro: str,
        growth: Growth | None = None,
    ) -> None:
        super().__init__(seed)
        for what, word, known in (("learner", learner, tuple(LEARNERS)), ("macro", macro, get_args(Macro))):
            if word not in known:
                raise SearchError(f"no {what} {word!r}; there are: {', '.join(known)}")
        self._random = np.random.default_rng(seed)
        self._random_share, self._candidates, self._learner = random_share, candidates, learner
        self._first, self._beam, self._macro_when, self._growth = first, beam, macro, growth

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return all ranges, none if the trial is random."""
        if self._random.random() < self._random_share:
            return {}
        return dict(_reported(study).ranges)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of the next candidate, which is new with its macro-hyperparameters as long as there are."""
        if not search_space:
            return {}
        known = _reported(study)
        growth = self._growth or find_growth(search_space)
        if growth is None:
            raise SearchError("the configurations of this space do not grow: popnas needs a space of family cell")
        return _Draw(self, known, growth, search_space).values()


def _reported(study: Study) -> ReportedStudy:
    assert isinstance(study, ReportedStudy), "popnas learns from the results of a search of ripieno"
    return study


class _Draw:
    """One draw of `PopnasSampler`."""

    def __init__(
        self, sampler: PopnasSampler, study: ReportedStudy, growth: Growth, ranges: Mapping[str, BaseDistribution]
    ) -> None:
        self._sampler, self._study, self._growth, self._ranges = sampler, study, growth, ranges
        self._random = sampler._random
        self._macro = Encoding({n: c for n, c in ranges.items() if n not in growth.names and not c.single()})
        self._drawn = self._read_trials()
        self._before = {self._key(one) for one in self._drawn}

    def values(self) -> dict[str, Any]:
        if (first := self._next_first()) is not None:
            return self._take(first, None)
        step, ended = self._find_step()
        predictors = self._predictors()
        pool = self._pool(step, ended, predictors)
        if predictors is None:
            return self._take(pool[0], None)
        return self._take(self._choose(pool, step, predictors), predictors)

    def _read_trials(self) -> list[Drawn]:
        trials = self._study.get_trials(deepcopy=False)
        known: list[Drawn] = self._study.cache.setdefault("popnas trials", [])
        for trial in trials[len(known) :]:
            rows = self._macro.rows([trial.params])
            known.append(Drawn(self._growth.candidate(trial.params), rows))
        return known[: len(trials)]

    def _key(self, one: Drawn) -> tuple[Any, ...]:
        return one.candidate, tuple(one.macro[0].tolist())

    def _first(self) -> list[Candidate]:
        cache = self._study.cache
        if "popnas first" not in cache:
            every = self._growth.first()
            if self._study.allow is not None:
                every = [candidate for candidate in every if self._fits(candidate)]
            cache["popnas first"] = draw_evenly(self._growth, every, min(self._sampler._first, len(every)))
        found: list[Candidate] = cache["popnas first"]
        return found

    def _fits(self, candidate: Candidate) -> bool:
        """Return whether `candidate` meets the bounds with some of the macro-hyperparameters."""
        if not self._macro:
            return self._allows(Drawn(candidate, np.empty((1, 0))))
        rows = np.concatenate([self._macro.middle(), self._macro.draw(FITTING, np.random.default_rng(0))])
        return any(self._allows(Drawn(candidate, rows[n : n + 1])) for n in range(len(rows)))

    def _allows(self, one: Drawn) -> bool:
        return self._study.allow is None or self._study.allow(self._values(one))

    def _next_first(self) -> Drawn | None:
        """Return the next of the first candidates that meets the bounds; None where all were drawn."""
        drawn = {one.candidate for one in self._drawn}
        for candidate in self._first():
            if candidate not in drawn:
                macros = self._many_macros(1 if self._study.allow is None else FITTING, False)
                tried = [Drawn(candidate, macro) for macro in macros]
                if (one := next(filter(self._allows, tried), None)) is not None:
                    return one
        return None

    def _find_step(self) -> tuple[int, bool]:
        """Return the step of the next trial, from 2 on, and whether the last step is over."""
        counts = Counter(self._growth.step(one.candidate) for one in self._drawn)
        drawn = {one.candidate for one in self._drawn}
        for step in range(2, self._growth.steps + 1):
            if counts[step] < self._sampler._beam and any(self._growth.step(c) == step - 1 for c in drawn):
                return step, False
        return max(counts, default=1), True

    def _predictors(self) -> Predictors | None:
        results = self._study.results
        size = sizes(len(results)) if len(results) >= 12 else len(results)
        first = results[:size]
        if not any(result.loss is not None for result in first):
            return None
        key = ("popnas predictors", size)
        if key not in self._study.cache:
            for old in [k for k in self._study.cache if isinstance(k, tuple) and k[0] == key[0]]:
                del self._study.cache[old]
            self._study.cache[key] = Predictors(self._growth, self._macro, self._drawn, first, self._sampler._learner)
        found: Predictors = self._study.cache[key]
        return found

    def _pool(self, step: int, ended: bool, predictors: Predictors | None) -> list[Drawn]:
        """Return new candidates of `step` to choose from, each with macro-hyperparameters; never empty."""
        growth, random = self._growth, self._random
        count = self._sampler._candidates
        measured = self._measured(predictors)
        if ended and measured and self._macro and random.random() < REFINED:
            best = [measured[n][0] for n in front(*_columns(measured))]
            parents = [best[n].candidate for n in random.integers(len(best), size=count)]
            pool = [
                Drawn(candidate, macro)
                for candidate, macro in zip(parents, self._many_macros(count, True), strict=True)
            ]
        else:
            parents = self._parents(step, measured)
            chosen = random.integers(len(parents), size=count) if parents else ()
            grown = [c for n in chosen for c in growth.grow(parents[n], 1, random)]
            pool = [Drawn(c, macro) for c, macro in zip(grown, self._many_macros(len(grown), ended), strict=True)]
        if not self._macro:
            pool = list({one.candidate: one for one in pool}.values())
        new = [one for one in pool if self._key(one) not in self._before]
        allowed = list(filter(self._allows, new))
        return allowed or new or pool or self._random_pool()

    def _random_pool(self) -> list[Drawn]:
        """Return random configurations, where no candidate grows any more."""
        encoding = Encoding(dict(self._ranges))
        drawn = encoding.draw(self._sampler._candidates, self._random)
        rows = [self._complete(encoding.values(row)) for row in drawn]
        pool = [Drawn(self._growth.candidate(values), self._macro.rows([values])) for values in rows]
        return [one for one in pool if self._key(one) not in self._before] or pool

    def _measured(self, predictors: Predictors | None) -> list[tuple[Drawn, float, float]]:
        """Return the trials with a result: loss at the last epoch that they reached, and seconds of an epoch.

        A loss of an earlier epoch is not comparable: it is replaced by the one that is predicted for the last.
        """
        if predictors is None:
            return []
        last: dict[int, Result] = {r.trial: r for r in self._study.results if r.loss is not None}
        rates = _epoch_seconds(self._study.results)
        trials = [trial for trial in last if self._study.violation(trial) <= 0] or list(last)
        final = predictors.epochs[-1]
        behind = [trial for trial in trials if last[trial].epoch < final]
        losses = {trial: float(last[trial].loss or 0.0) for trial in trials}
        if behind:
            predicted = predictors.plain_losses([self._drawn[trial] for trial in behind], final)
            losses |= dict(zip(behind, predicted.tolist(), strict=True))
        return [(self._drawn[trial], losses[trial], rates.get(trial, 1.0)) for trial in trials]

    def _parents(self, step: int, measured: Sequence[tuple[Drawn, float, float]]) -> list[Candidate]:
        """Return the candidates of the last step that grow: the better half of those with a result, and the front."""
        known = [one for one in measured if self._growth.step(one[0].candidate) == step - 1]
        if not known:  # all trials of the last step are still training
            return [one.candidate for one in self._drawn if self._growth.step(one.candidate) == step - 1]
        losses, seconds = _columns(known)
        best = np.argsort(losses, kind="stable")[: max(1, (len(known) + 1) // 2)].tolist()
        return list(dict.fromkeys(known[n][0].candidate for n in [*best, *front(losses, seconds)]))

    def _choose(self, pool: Sequence[Drawn], step: int, predictors: Predictors) -> Drawn:
        """Return one of the predicted front of `pool`, or of the front of those with neglected parts."""
        losses, seconds = predictors.losses(pool, predictors.epochs[-1]), predictors.seconds(pool)
        best = front(losses, seconds)
        if 1 < step < self._growth.steps and self._random.random() < EXPLORATION:
            exploring = self._exploring(pool, [pool[n] for n in best])
            best = [exploring[n] for n in front(losses[exploring], seconds[exploring])] or best
        return pool[best[int(len(best) * self._random.random() ** BIAS)]]

    def _exploring(self, pool: Sequence[Drawn], best: Sequence[Drawn]) -> list[int]:
        """Return the indices of those of `pool` with most of the parts that the front `best` neglects, if any."""
        used = Counter(part for one in best for part in self._growth.parts(one.candidate))
        every = {part for one in pool for part in self._growth.parts(one.candidate)}
        neglected: set[str] = set()
        for group in (_operators(every), every - _operators(every)):
            even = sum(used[part] for part in group) / max(1, len(group))
            neglected |= {part for part in group if used[part] < NEGLECTED * even}
        scores = [sum(part in neglected for part in self._growth.parts(one.candidate)) for one in pool]
        most = max(scores)
        return [n for n, score in enumerate(scores) if score == most] if most else []

    def _many_macros(self, count: int, ended: bool) -> list[Array]:
        """Return `count` rows of macro-hyperparameters: random, or near those of good trials."""
        macro, random = self._macro, self._random
        if not macro:
            return [np.empty((1, 0))] * count
        if self._sampler._macro_when == "after" and not ended:
            return [macro.middle()] * count
        drawn = macro.draw(count, random)
        losses = {r.trial: r.loss for r in self._study.results if r.loss is not None}
        good = sorted(losses, key=lambda trial: losses[trial])[: max(4, len(losses) // 4)]
        if len(losses) >= 12:
            parents = np.concatenate([self._drawn[good[n]].macro for n in random.integers(len(good), size=count)])
            near = macro.neighbours(parents, SPREAD, CHANGES, random)
            drawn = np.where(random.random((count, 1)) < RANDOM_MACRO, drawn, near)
        return [drawn[n : n + 1] for n in range(count)]

    def _values(self, one: Drawn) -> dict[str, Any]:
        """Return the values of all ranges."""
        return self._complete({**self._growth.values(one.candidate), **self._macro.values(one.macro[0])})

    def _complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `values` with those of the ranges that have a single one."""
        return {name: values[name] if name in values else _only(choice) for name, choice in self._ranges.items()}

    def _take(self, one: Drawn, predictors: Predictors | None) -> dict[str, Any]:
        """Return the values of `one`, and keep what is predicted of it."""
        step, trial = self._growth.step(one.candidate), len(self._drawn)
        epoch, loss, seconds = 1, None, None
        if predictors is not None:
            epoch = predictors.epochs[0]  # all trials of most schedulers have a result there
            loss = float(predictors.plain_losses([one], epoch)[0])
            seconds = predictors.plain_seconds(one, epoch)
        self._study.predictions[trial] = TrialPrediction(step, epoch, loss, seconds)
        return self._values(one)


def _operators(parts: set[str]) -> set[str]:
    return {part for part in parts if not part.startswith("input ")}


def _columns(measured: Sequence[tuple[Drawn, float, float]]) -> tuple[Array, Array]:
    return np.array([loss for _, loss, _ in measured]), np.array([seconds for _, _, seconds in measured])


def _only(choice: BaseDistribution) -> Any:
    from ripieno.search.constraints import only_value

    return choice.to_external_repr(only_value(choice))
