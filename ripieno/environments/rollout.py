"""Lockstep rollouts: episodes of many ensembles of policies at once, in which each policy is asked once a step.

An episode is that of one ensemble from one seed, in an environment of its own. In a step, each policy gets the
observations of all episodes that still run and whose ensemble it belongs to, as one batch. Its cost is therefore that
of a batch, for any number of ensembles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ripieno.tasks.action_rules import actions_of, check_outputs, combine_actions
from ripieno.types import Combiner, Float32s, Floats, Ints, ProgressFunction, Task

if TYPE_CHECKING:  # it loads gymnasium, which is an extra
    from ripieno.environments.wrappers import CheckedEnvironment

PolicyFunction = Callable[[Float32s], Float32s]
"""From observations (batch, *shape) to what the policy returns, (batch, *task.output)."""


@dataclass(frozen=True)
class PolicyEnsemble:
    """Policies by name, each with its weight, and the rule that combines them."""

    policies: tuple[str, ...]
    rule: Combiner
    weights: tuple[float, ...] = ()
    """of the policies; empty: equal"""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Episodes of ensembles, by ensemble and seed."""

    returns: Floats
    """(ensembles, seeds), sums of rewards"""
    steps: Ints
    """(ensembles, seeds), lengths of the episodes"""


StepFunction = Callable[[int, "CheckedEnvironment", Float32s, object, float], None]
"""Callback after each step of an episode: its number, environment, observation before, action and reward."""


class RolloutRunner:
    """Runner of rollouts, which keeps its environments for the next ones. `close` it at the end."""

    def __init__(self, make: Callable[[], CheckedEnvironment], task: Task):
        self.make, self.task = make, task
        self._environments: list[CheckedEnvironment] = []

    def run(
        self,
        ensembles: Sequence[PolicyEnsemble],
        policies: Mapping[str, PolicyFunction],
        seeds: Sequence[int],
        progress: ProgressFunction | None = None,
        on_step: StepFunction | None = None,
    ) -> Rollouts:
        """Run an episode of each ensemble from each seed.

        Raises DataError as `CheckedEnvironment`, SelectionError for a policy that returns another shape than the
        task's, or numbers that are not finite.
        """
        count, total = len(seeds), len(ensembles) * len(seeds)
        while len(self._environments) < total:
            self._environments.append(self.make())
        episodes = self._environments[:total]
        observations = np.stack([env.reset(seed=seeds[row % count])[0] for row, env in enumerate(episodes)])
        names = list(dict.fromkeys(name for ensemble in ensembles for name in ensemble.policies))
        belongs = {name: np.repeat([name in e.policies for e in ensembles], count) for name in names}
        outputs = {name: np.zeros((total, *self.task.output), np.float32) for name in names}
        running = np.ones(total, bool)
        returns, steps = np.zeros(total), np.zeros(total, np.int64)
        while running.any():
            for name in names:
                if len(asked := np.flatnonzero(belongs[name] & running)):
                    answers = policies[name](observations[asked])
                    outputs[name][asked] = check_outputs(name, answers, len(asked), self.task)
            for index, ensemble in enumerate(ensembles):
                rows = index * count + np.flatnonzero(running[index * count : (index + 1) * count])
                if not len(rows):
                    continue
                actions = self._actions(ensemble, [outputs[name][rows] for name in ensemble.policies])
                for row, action in zip(rows.tolist(), actions, strict=True):
                    before = observations[row].copy() if on_step is not None else observations[row]
                    observation, reward, terminated, truncated, _ = episodes[row].step(action)
                    returns[row] += reward
                    steps[row] += 1
                    if on_step is not None:
                        on_step(row, episodes[row], before, action, reward)
                    observations[row] = observation
                    running[row] = not (terminated or truncated)
            if progress is not None:
                progress("episodes", total - int(running.sum()), total)
        shape = len(ensembles), len(seeds)
        return Rollouts(returns.reshape(shape), steps.reshape(shape))

    def _actions(self, ensemble: PolicyEnsemble, outputs: Sequence[Float32s]) -> Sequence[object]:
        """Return an action for each observation, of what the policies return for these: (observations, actions)."""
        actions = actions_of(combine_actions(ensemble.rule, np.stack(outputs), ensemble.weights or None), self.task)
        return list(actions) if self.task.low else actions.tolist()

    def close(self) -> None:
        """Close the environments."""
        while self._environments:
            self._environments.pop().close()
