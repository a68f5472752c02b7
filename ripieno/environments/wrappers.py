"""Wrappers that bring environments into one form, and name what is wrong with them in one line."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TimeLimit, TransformAction
from numpy.typing import NDArray

from ripieno.errors import DataError, error_summary
from ripieno.types import Float32s

STEPS = 1000
"""Largest number of steps of an episode where an environment sets no limit."""
CRASH = 0.0
"""Reward of the step in which a motor leaves its limits, and of all that would follow."""


class MotorReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reward of gym-electric-motor for episodes of any length: 1 + r a step, and `CRASH` for a violated limit.

    Its own reward r is negative, so that over a long episode an early crash costs less than the best control.
    """

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step; see the class."""
        observation, reward, terminated, truncated, details = self.env.step(action)
        return observation, CRASH if terminated else 1.0 + float(reward), terminated, truncated, details


class CheckedEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Environment whose observations are float32 and whose errors are one line, a DataError.

    Raises DataError when the environment cannot be reset or does not step, and for rewards and observations that are
    not finite or have another shape than the space says.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], name: str):
        super().__init__(environment)
        space = environment.observation_space
        assert isinstance(space, spaces.Box)
        self.name = name
        self.steps = 0
        low, high = (np.asarray(bound, np.float32) for bound in (space.low, space.high))
        self.observation_space = spaces.Box(low, high, space.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32s, dict[str, Any]]:
        """Begin an episode; return its first observation (*shape,)."""
        self.steps = 0
        try:
            observation, details = self.env.reset(seed=seed, options=options)
        except Exception as error:  # an environment may raise anything
            raise DataError(
                f"environment {self.name!r} cannot be reset ({error_summary(error, named=True)})"
            ) from error
        return self._observation(observation), details

    def step(self, action: Any) -> tuple[Float32s, float, bool, bool, dict[str, Any]]:
        """Take a step: observation, reward, whether the episode ended, whether it was cut, details."""
        self.steps += 1
        try:
            observation, reward, terminated, truncated, details = self.env.step(action)
        except Exception as error:  # an environment may raise anything
            line = error_summary(error, named=True)
            raise DataError(f"environment {self.name!r} does not step: step {self.steps} failed ({line})") from error
        try:
            value = float(reward)
        except (TypeError, ValueError) as error:
            raise DataError(f"environment {self.name!r}: the reward of step {self.steps} is no number") from error
        if not np.isfinite(value):
            raise DataError(f"environment {self.name!r}: the reward of step {self.steps} is {value}")
        return self._observation(observation), value, bool(terminated), bool(truncated), details

    def _observation(self, observation: Any) -> Float32s:
        array: NDArray[np.float32] = np.asarray(observation, np.float32)
        if array.shape != self.observation_space.shape:
            due = self.observation_space.shape
            raise DataError(f"environment {self.name!r}: an observation has shape {array.shape}, its space {due}")
        if not np.isfinite(array).all():
            raise DataError(f"environment {self.name!r}: the observation after step {self.steps} is not finite")
        return array


def prepared(environment: gymnasium.Env[Any, Any], name: str, *, motor: bool = False) -> CheckedEnvironment:
    """Return the environment in the form of `make_environment`. Raises DataError for spaces that are not supported.

    Observations that are tuples, dicts or discrete are flattened. Episodes without a limit of their own end after
    `STEPS` steps. A `motor` has the reward of `MotorReward`.
    """
    if motor:
        environment = MotorReward(environment)
    if isinstance(environment.observation_space, spaces.Tuple | spaces.Dict | spaces.Discrete | spaces.MultiDiscrete):
        environment = FlattenObservation(environment)
    observations, actions = environment.observation_space, environment.action_space
    if not isinstance(observations, spaces.Box) or not 1 <= len(observations.shape) <= 3:
        raise _unsupported(name, "observations", observations, "a Box of one to three axes")
    if isinstance(actions, spaces.Discrete):
        if start := int(actions.start):
            environment = TransformAction(environment, lambda a: int(a) + start, spaces.Discrete(actions.n))
    elif not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
        raise _unsupported(name, "actions", actions, "Discrete or a Box of one axis")
    elif not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
        raise _unsupported(name, "actions", actions, "finite bounds of a Box")
    if not _has_limit(environment):
        environment = TimeLimit(environment, STEPS)
    return CheckedEnvironment(environment, name)


def _has_limit(environment: gymnasium.Env[Any, Any]) -> bool:
    """Return whether episodes are cut after a number of steps: by the registered limit or a wrapper."""
    inner: Any = environment
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, TimeLimit):
            return True
        inner = inner.env
    return environment.spec is not None and environment.spec.max_episode_steps is not None


def _unsupported(name: str, what: str, space: object, expected: str) -> DataError:
    """Return the error that observations or actions, `what`, are in a space that is not supported."""
    return DataError(f"environment {name!r}: its {what} are in {space}; expected {expected}")
