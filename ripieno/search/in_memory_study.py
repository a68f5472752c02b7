"""Optuna study in memory that shows samplers the trials of a search: a fold over the reported results.

Theory of operation. In the journal a trial is RUNNING until the search ends, as it may still be promoted; a sampler
would learn nothing before that. Here a trial with a result is PRUNED, with its losses at the rungs it reached, so that
TPE ranks it by (last rung, loss), even while it trains further. At its last epoch it is COMPLETE, the only state that
Gaussian processes use. A failed trial is PRUNED without a loss, which ranks last. Only trials without any result are
RUNNING: samplers keep new ones away from them. The same results in the same order give the same study, so a resumed
search samples the same configurations.

With several objectives a COMPLETE trial has the values of all, and the losses at rungs are priorities: see
:mod:`ripieno.search.objectives`. Samplers for one objective see `scalarized` results instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy as copy_of
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ripieno.search.constraints import Constraint, total_violation
from ripieno.search.objectives import SINGLE, PriorityTable, SearchObjective, scalarize, vector
from ripieno.search.predictions import TrialPrediction
from ripieno.search.warm_start import PastCurve

_NAME = "view"
_EPOCH = datetime(2000, 1, 1)
"""Placeholder for the times of trials: constant, so that studies are equal."""


@dataclass(frozen=True)
class Result:
    """Result of a job: the `loss` of `trial` at `epoch`, None if it failed, and the `seconds` that the job took."""

    trial: int
    epoch: int
    loss: float | None
    seconds: float
    values: Mapping[str, float] = field(default_factory=dict)
    """its other numbers, by name: see `JobResult`"""
    last: bool = False
    """True at the last epoch of a trial"""


class InMemoryStudy(InMemoryStorage):
    """Storage of one study, read by samplers. Its trials, unlike Optuna's own, may get results after they ended."""

    def __init__(
        self,
        ranges: Mapping[str, BaseDistribution],
        constraints: Sequence[Constraint] = (),
        objectives: tuple[SearchObjective, ...] = SINGLE,
        past: Sequence[PastCurve] = (),
    ) -> None:
        super().__init__()
        self.ranges = dict(ranges)
        self.past = tuple(past)
        """curves of past searches, for samplers that learn from them"""
        self.objectives = objectives
        self._priorities = PriorityTable(objectives)
        self.constraints = tuple(constraints)
        """those that are measured"""
        self.measured: dict[int, dict[str, float]] = {}
        """last value of each number that results had, by trial"""
        self.allow: Callable[[Mapping[str, Any]], bool] | None = None
        """tells whether values of the ranges meet what is known before training; None: all do"""
        self.results: list[Result] = []
        """in the order in which they were reported"""
        self.cache: dict[Any, Any] = {}
        """see `ReportedStudy`"""
        self.predictions: dict[int, TrialPrediction] = {}
        """see `ReportedStudy`"""
        self._trials: list[FrozenTrial] = []
        with quiet():
            self.create_new_study([StudyDirection.MINIMIZE] * len(objectives), _NAME)

    def __len__(self) -> int:
        return len(self._trials)

    def study(self) -> ReportedStudy:
        """Return a new study object: Optuna's cache what they have read."""
        return ReportedStudy(self)

    def new(self) -> FrozenTrial:
        """Return the next trial, which has no values yet."""
        return self._frozen({}, {})

    def start(self, values: Mapping[str, Any]) -> None:
        """Start the next trial with a value for each range."""
        self._trials.append(self._frozen(dict(values), self.ranges))

    def tell(
        self,
        trial: int,
        epoch: int,
        loss: float | None,
        last: bool,
        seconds: float = 0.0,
        values: Mapping[str, float] | None = None,
    ) -> Mapping[int, float]:
        """Record the `loss` of `trial` at `epoch`; None: it failed. `last`: it is the trial's last epoch.

        `seconds` is the duration of the job, or its estimate where the results have a virtual order. `values` are the
        other numbers of the result, by name. Returns by trial the priorities of results at `epoch` that may have
        changed, with that of `trial` unless it failed.
        """
        self.results.append(Result(trial, epoch, loss, seconds, dict(values or {}), last))
        frozen = self._trials[trial]
        known = self.measured.setdefault(trial, {})
        known.update(values or {})
        # not by `set_constraint`, which keeps the first value
        frozen.system_attrs = frozen.system_attrs | constraint_attributes(self.constraints, known)
        priorities = self._priorities.add(trial, epoch, loss, values or {})
        if trial not in priorities:
            frozen.intermediate_values, frozen.values = {}, None
        else:
            frozen.intermediate_values[epoch] = priorities[trial]
            frozen.values = list(vector(self.objectives, loss, values or {}) or ())
            for other, priority in priorities.items():
                if epoch in (reached := self._trials[other].intermediate_values):
                    reached[epoch] = priority
        frozen.state = TrialState.COMPLETE if last and trial in priorities else TrialState.PRUNED
        frozen.datetime_complete = _EPOCH
        return priorities

    def violation(self, trial: int) -> float:
        """Return how far a trial is beyond the measured constraints, 0 where it meets them."""
        return total_violation(self.constraints, self.measured.get(trial, {}))

    def _frozen(self, values: dict[str, Any], ranges: Mapping[str, BaseDistribution]) -> FrozenTrial:
        frozen = create_trial(state=TrialState.RUNNING, params=values, distributions=dict(ranges))
        frozen.number = frozen._trial_id = len(self._trials)
        frozen.datetime_start = _EPOCH
        return frozen

    def scalarized(self, weights: Sequence[float]) -> InMemoryStudy:
        """Return a study of the same trials for one objective, in which `scalarize` makes the losses."""
        scalars = scalarize([vector(self.objectives, r.loss, r.values) for r in self.results], weights)
        study = InMemoryStudy(self.ranges, self.constraints)
        study.allow, study.predictions = self.allow, self.predictions
        for frozen in self._trials:
            study.start(frozen.params)
        for result, scalar in zip(self.results, scalars, strict=True):
            study.tell(result.trial, result.epoch, scalar, result.last, result.seconds, result.values)
        return study

    # the storage interface that samplers call

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See Optuna's `BaseStorage`."""
        selected = [t for t in self._trials if states is None or t.state in states]
        return copy_of(selected) if deepcopy else selected

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Do nothing: samplers store attributes for processes that share the study, and there are none."""


class ReportedStudy(Study):
    """Study that also shows samplers all results in their order, with their durations."""

    def __init__(self, storage: InMemoryStudy) -> None:
        super().__init__(_NAME, storage, sampler=RandomSampler(0))
        self.ranges = storage.ranges
        self.results = storage.results
        self.constraints, self.measured = storage.constraints, storage.measured
        self.allow, self.violation = storage.allow, storage.violation
        self.objectives, self.past = storage.objectives, storage.past
        self.cache = storage.cache
        """what a sampler keeps between trials; empty after a restart: each value must follow from the results alone"""
        self.predictions = storage.predictions
        """what samplers predicted of trials, by number; a sampler may add that of the trial it chooses"""

    @property
    def direction(self) -> StudyDirection:
        """Direction of the losses at rungs: Optuna's study of several objectives has none, as it prunes no trial."""
        return StudyDirection.MINIMIZE


def reported(study: Study) -> ReportedStudy:
    """Return `study`, which samplers that learn from all results need to be of a search of ripieno."""
    assert isinstance(study, ReportedStudy), "the sampler learns from the results of a search of ripieno"
    return study


def epoch_seconds(results: Sequence[Result]) -> dict[int, float]:
    """Return the mean seconds of an epoch by trial, of those with a duration."""
    seconds, epochs, reached = (defaultdict[int, float](float) for _ in range(3))
    for result in results:
        if result.seconds > 0:  # a job whose driver died has no duration
            seconds[result.trial] += result.seconds
            epochs[result.trial] += result.epoch - reached[result.trial]
        reached[result.trial] = result.epoch
    return {trial: seconds[trial] / epochs[trial] for trial in seconds}


def constraint_attributes(constraints: Sequence[Constraint], values: Mapping[str, float]) -> dict[str, float]:
    """Return the attributes of a trial by which Optuna knows how far `values` are beyond constraints."""
    return {f"constraints:{c.name}{c.sign}": c.violation(values[c.name]) for c in constraints if c.name in values}


def ranked(study: Study) -> list[FrozenTrial]:
    """Return the trials of `study` with a result, best first: by the last epoch reached, then by the loss there."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    last = [(t, *max(t.intermediate_values.items())) for t in finished if t.intermediate_values]
    return [t for t, _, _ in sorted(last, key=lambda entry: (-entry[1], entry[2], entry[0].number))]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's INFO messages in the block."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
