"""Rollouts of the policies of a run, in its environment, from the seeds of its data set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ripieno.backends import Backend
from ripieno.data.dataset import find_dataset
from ripieno.environments import make_environment, task_of
from ripieno.environments.rollout import PolicyEnsemble, RolloutRunner, Rollouts, StepFunction
from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.evaluate import open_member
from ripieno.tasks.action_rules import check_rule, single_rule
from ripieno.types import Ensemble, Float32s, Floats, ProgressFunction, Split, Task


class LibraryRollouts:
    """Rollouts of policies of a library; its models stay loaded until `close`."""

    def __init__(self, library: Library, trusted: Collection[str] = ()):
        dataset = find_dataset(library.dataset_path)
        if dataset is None or not dataset.environment:
            raise SelectionError(f"{library.path} names no environment: its policies cannot be run")
        self.library, self.dataset = library, dataset
        make = partial(make_environment, dataset.environment, (*trusted, *library.trusted))
        made = make()
        self.task = task_of(made)
        made.close()
        self._runner = RolloutRunner(make, self.task)
        self._loaded: dict[str, Backend] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close models and environments."""
        self._runner.close()
        while self._loaded:
            self._loaded.popitem()[1].close()

    def seeds(self, split: Split) -> NDArray[np.int64]:
        """Return the seeds of a split, (episodes,)."""
        return np.asarray(self.dataset.targets[self.dataset.rows(split)], np.int64).reshape(-1)

    def run(
        self,
        ensembles: Sequence[PolicyEnsemble],
        split: Split,
        progress: ProgressFunction | None = None,
        on_step: StepFunction | None = None,
        episodes: int | None = None,
    ) -> Rollouts:
        """Run an episode of each ensemble of members from each seed of `split`, or from the first `episodes` of them.

        Raises SelectionError where a member has other actions than the environment, or returns the wrong shape,
        DataError where the environment does not step.
        """
        members = dict.fromkeys(member for ensemble in ensembles for member in ensemble.policies)
        for member in members:
            check_actions(member, self.library.member(member).task, self.task)
        policies = {member: partial(self._infer, member) for member in members}
        return self._runner.run(ensembles, policies, self.seeds(split)[:episodes].tolist(), progress, on_step)

    def _infer(self, member: str, observations: Float32s) -> Float32s:
        if member not in self._loaded:
            self._loaded[member] = open_member(self.library, member)
        return self._loaded[member].infer(observations)


def check_actions(member: str, task: Task, environment: Task) -> None:
    """Raise SelectionError where a policy has other actions than the environment that it is run in."""
    if (task.output, task.low, task.high) != (environment.output, environment.low, environment.high):
        theirs = f"{_actions(task)}, those of the environment are {_actions(environment)}"
        raise SelectionError(f"the actions of {member} are {theirs}: policies of one environment only are combined")


def _actions(task: Task) -> str:
    """Return the actions of a task as text."""
    if not task.low:
        return f"{len(task.names)} discrete ones"
    bounds = ", ".join(f"{low:g} to {high:g}" for low, high in zip(task.low, task.high, strict=True))
    return f"a box of {bounds}"


def policies_of(library: Library, ensemble: Ensemble) -> PolicyEnsemble:
    """Return an ensemble of a library as its rollouts take it. Raises SelectionError for a rule that does not fit."""
    members = [library.member(member) for member in ensemble.members]
    check_rule(ensemble.combiner, members[0].task, [member.policy for member in members])
    return PolicyEnsemble(ensemble.members, ensemble.combiner, ensemble.weights)


def write_test_returns(
    library: Library, rollouts: LibraryRollouts, members: Collection[str], progress: ProgressFunction
) -> None:
    """Keep the returns of the test seeds of `members` that have none: each alone."""
    missing = [member for member in members if not library.has_predictions(member, "test")]
    seeds = rollouts.seeds("test")
    if not missing or not len(seeds):
        return
    alone = [PolicyEnsemble((member,), single_rule(rollouts.task)) for member in missing]
    found = rollouts.run(alone, "test", progress)
    targets = np.asarray(seeds, np.float32)[:, None]
    for member, returns in zip(missing, found.returns, strict=True):
        library.write_predictions(member, "test", as_column(returns), targets)


def as_column(returns: Floats) -> Float32s:
    """Return returns (episodes,) as a library keeps them, (episodes, 1)."""
    return np.asarray(returns, np.float32)[:, None]
