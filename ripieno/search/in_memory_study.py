"""The trials of a search as samplers must see them: an Optuna study in memory, a fold over what was told.

Theory of operation. In the journal a trial runs until the search ends, for it may still be promoted; a sampler would
learn nothing before that. Here a trial that has a result is PRUNED, with its losses at the rungs it reached, so that
TPE ranks it by (last rung, loss), also while it trains on; at its last epoch it is COMPLETE, which is all that Gaussian
processes look at; one that failed is PRUNED without a loss, which is worse than all others. Only trials without any
result are RUNNING: samplers keep new ones away from them. The same results told in the same order give the same view,
so a search that goes on samples what it would have sampled.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy as copy_of
from datetime import datetime
from math import inf
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

_NAME = "view"
_EPOCH = datetime(2000, 1, 1)
"""Of no importance, but the same always."""


class InMemoryStudy(InMemoryStorage):
    """A storage of one study whose trials, unlike Optuna's own, go on after they ended. For reading by samplers."""

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        super().__init__()
        self.ranges = dict(ranges)
        self._seen: list[FrozenTrial] = []
        with quiet():
            self.create_new_study([StudyDirection.MINIMIZE], _NAME)

    def __len__(self) -> int:
        return len(self._seen)

    def study(self) -> Study:
        """The study, made anew: Optuna's keep what they have read."""
        return Study(_NAME, self, sampler=RandomSampler(0))

    def new(self) -> FrozenTrial:
        """The next trial, without values yet."""
        return self._frozen({}, {})

    def start(self, values: Mapping[str, Any]) -> None:
        """The next trial starts, with a value for each range."""
        self._seen.append(self._frozen(dict(values), self.ranges))

    def tell(self, trial: int, epoch: int, loss: float | None, last: bool) -> None:
        """`trial` ended a job at `epoch` with `loss`; None: it failed. `last`: nothing comes after that epoch."""
        known = self._seen[trial]
        if loss is None:
            known.intermediate_values, known.values = {}, None
        else:
            known.intermediate_values[epoch], known.values = loss, [loss]
        known.state = TrialState.COMPLETE if last and loss is not None else TrialState.PRUNED
        known.datetime_complete = _EPOCH

    def _frozen(self, values: dict[str, Any], ranges: Mapping[str, BaseDistribution]) -> FrozenTrial:
        return FrozenTrial(
            number=len(self._seen),
            trial_id=len(self._seen),
            state=TrialState.RUNNING,
            value=None,
            datetime_start=_EPOCH,
            datetime_complete=None,
            params=values,
            distributions=dict(ranges),
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )

    # what samplers call

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See Optuna's `BaseStorage`."""
        found = [t for t in self._seen if states is None or t.state in states]
        return copy_of(found) if deepcopy else found

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Notes of samplers are for the processes they share a study with: there are none."""


def ranked(study: Study) -> list[FrozenTrial]:
    """The trials of `study` with a result, best first: by the last epoch reached, then by the loss there."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sorted((t for t in found if t.intermediate_values), key=_rank)


def _rank(trial: FrozenTrial) -> tuple[float, float, int]:
    epoch = trial.last_step or 0
    loss = trial.intermediate_values.get(epoch, inf)
    return -epoch, loss, trial.number


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's announcements."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
