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
from typing import Any, Literal, get_args

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from ripieno.errors import SearchError
from ripieno.search.encoding import Array, Encoding
from ripieno.search.forest import CHANGES, SPREAD, sizes
from ripieno.search.growth import Candidate, Growth, draw_evenly, find_growth
from ripieno.search.growth_predictors import LEARNERS, TIME_LEARNERS, Drawn, Predictors
from ripieno.search.in_memory_study import ReportedStudy, Result, epoch_seconds, reported
from ripieno.search.predictions import TrialPrediction

Macro = Literal["along", "after"]
"""When macro-hyperparameters are searched: while candidates grow, or on the front of the last step."""
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
BIAS = 3
"""Power of a uniform number that draws from the front: the lower the predicted loss, the likelier the candidate."""


def front(losses: Array, seconds: Array) -> list[int]:
    """Return the indices of points that no other one beats in both, by rising loss; of equal points one."""
    found: list[int] = []
    least = np.inf
    for n in np.lexsort((seconds, losses)).tolist():
        if seconds[n] < least:
            found.append(n)
            least = seconds[n]
    return found


def exploring_places(parts: Sequence[Sequence[str]], front: Sequence[int]) -> list[int]:
    """Return the places in `parts` of the candidates with most parts that those at the places `front` neglect.

    A part is neglected that they use less than `NEGLECTED` times as often as evenly: operators among operators, inputs
    among inputs. None where they neglect none.
    """
    used = Counter(part for n in front for part in parts[n])
    every = {part for own in parts for part in own}
    inputs = {part for part in every if part.startswith("input ")}
    neglected: set[str] = set()
    for group in (every - inputs, inputs):
        even = sum(used[part] for part in group) / max(1, len(group))
        neglected |= {part for part in group if used[part] < NEGLECTED * even}
    scores = [sum(part in neglected for part in own) for own in parts]
    most = max(scores)
    return [n for n, score in enumerate(scores) if score == most] if most else []


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
        time_learner: str = "ridge",
        growth: Growth | None = None,
    ) -> None:
        super().__init__(seed)
        words = (
            ("learner", learner, tuple(LEARNERS)),
            ("time_learner", time_learner, tuple(TIME_LEARNERS)),
            ("macro", macro, get_args(Macro)),
        )
        for what, word, known in words:
            if word not in known:
                raise SearchError(f"no {what} {word!r}; there are: {', '.join(known)}")
        self._random = np.random.default_rng(seed)
        self._random_share, self._candidates, self._learners = random_share, candidates, (learner, time_learner)
        self._first, self._beam, self._macro_when, self._growth = first, beam, macro, growth

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Return all ranges, none if the trial is random."""
        if self._random.random() < self._random_share:
            return {}
        return dict(reported(study).ranges)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return the values of the next candidate, which is new with its macro-hyperparameters as long as there are."""
        if not search_space:
            return {}
        known = reported(study)
        growth = self._growth or find_growth(search_space)
        if growth is None:
            raise SearchError("the configurations of this space do not grow: popnas needs a space of family cell")
        return _Draw(self, known, growth, search_space).values()


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
            self._study.cache[key] = Predictors(self._growth, self._macro, self._drawn, first, *self._sampler._learners)
        found: Predictors = self._study.cache[key]
        return found

    def _pool(self, step: int, ended: bool, predictors: Predictors | None) -> list[Drawn]:
        """Return candidates to choose from, new with their macro-hyperparameters: of `step`, as long as it has any.

        Where the parents of a step have no new children, all of the step before are parents, then the next step's; at
        last candidates are random.
        """
        measured, random = self._measured(predictors), self._random
        if ended and measured and self._macro and random.random() < REFINED:
            best = [measured[n][0].candidate for n in front(*_columns(measured))]
            count = self._sampler._candidates
            refined = [best[n] for n in random.integers(len(best), size=count)]
            if pool := self._new(refined, ended):
                return pool
        for later in range(max(2, step), self._growth.steps + 1):
            every = [one.candidate for one in self._drawn if self._growth.step(one.candidate) == later - 1]
            for parents in (self._parents(later, measured), list(dict.fromkeys(every))):
                if pool := self._new(self._children(parents), ended):
                    return pool
        return self._random_pool()

    def _children(self, parents: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates that grow from `parents` at random."""
        if not parents:
            return []
        chosen = self._random.integers(len(parents), size=self._sampler._candidates)
        return [child for n in chosen for child in self._growth.grow(parents[n], 1, self._random)]

    def _new(self, candidates: Sequence[Candidate], ended: bool) -> list[Drawn]:
        """Return `candidates` with macro-hyperparameters that are new and meet the bounds."""
        macros = self._many_macros(len(candidates), ended)
        pool = [Drawn(candidate, macro) for candidate, macro in zip(candidates, macros, strict=True)]
        if not self._macro:
            pool = list({one.candidate: one for one in pool}.values())
        return [one for one in pool if self._key(one) not in self._before and self._allows(one)]

    def _random_pool(self) -> list[Drawn]:
        """Return random configurations, where no new candidate is left that grows and meets the bounds."""
        encoding = Encoding(dict(self._ranges))
        drawn = encoding.draw(self._sampler._candidates, self._random)
        rows = [self._complete(encoding.values(row)) for row in drawn]
        pool = [Drawn(self._growth.candidate(values), self._macro.rows([values])) for values in rows]
        new = [one for one in pool if self._key(one) not in self._before]
        return list(filter(self._allows, new)) or new or pool

    def _measured(self, predictors: Predictors | None) -> list[tuple[Drawn, float, float]]:
        """Return the trials with a result: loss at the last epoch that they reached, and seconds of an epoch.

        A loss of an earlier epoch is not comparable: it is replaced by the one that is predicted for the last.
        """
        if predictors is None:
            return []
        last: dict[int, Result] = {r.trial: r for r in self._study.results if r.loss is not None}
        rates = epoch_seconds(self._study.results)
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
            exploring = exploring_places([self._growth.parts(one.candidate) for one in pool], best)
            best = [exploring[n] for n in front(losses[exploring], seconds[exploring])] or best
        return pool[best[int(len(best) * self._random.random() ** BIAS)]]

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


def _columns(measured: Sequence[tuple[Drawn, float, float]]) -> tuple[Array, Array]:
    return np.array([loss for _, loss, _ in measured]), np.array([seconds for _, _, seconds in measured])


def _only(choice: BaseDistribution) -> Any:
    from ripieno.search.constraints import only_value

    return choice.to_external_repr(only_value(choice))
