"""Configuration of a policy: its algorithm, its network, and the hyperparameters of both."""

from __future__ import annotations

import dataclasses
from typing import Any

from ripieno.errors import ModelError
from ripieno.types import Configuration, Task

FAMILY = "policy"
"""Name of the family, of its trainer and of its space."""


@dataclasses.dataclass(frozen=True)
class PolicyAlgorithm:
    """An algorithm of stable-baselines3: the actions that it takes, and the hyperparameters that only some have."""

    discrete: bool
    box: bool
    own: tuple[str, ...]


OFF_POLICY = ("buffer_size", "learning_starts", "train_freq")
ALGORITHMS = {
    "dqn": PolicyAlgorithm(
        True, False, (*OFF_POLICY, "exploration_steps", "exploration_final_eps", "target_update_interval")
    ),
    "ddpg": PolicyAlgorithm(False, True, (*OFF_POLICY, "tau", "action_noise")),
    "ppo": PolicyAlgorithm(True, True, ("n_steps", "n_epochs", "gae_lambda", "clip_range", "ent_coef")),
    "sac": PolicyAlgorithm(False, True, (*OFF_POLICY, "tau")),
}
"""By name in a configuration."""


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Hyperparameters of a policy, with the names of stable-baselines3 where it has them.

    Those that its algorithm does not have are ignored.
    """

    algorithm: str = "ppo"
    """key of `ALGORITHMS`"""
    steps: int = 1000
    """steps of the environment in one unit of training"""
    layers: int = 2
    """hidden layers of each network"""
    units: int = 64
    """of a hidden layer"""
    activation: str = "tanh"
    """tanh or relu"""
    learning_rate: float = 3e-4
    gamma: float = 0.99
    batch_size: int = 64
    buffer_size: int = 100_000
    """transitions that are kept for replay"""
    learning_starts: int = 100
    """steps of random actions before training begins"""
    train_freq: int = 1
    """steps between two updates; there are as many updates as steps, but for `dqn`: one"""
    tau: float = 0.005
    """share of the networks in their targets after each update"""
    action_noise: float = 0.1
    """standard deviation, where actions are from -1 to 1"""
    exploration_steps: int = 2000
    """steps over which the share of random actions falls from 1"""
    exploration_final_eps: float = 0.05
    """share of random actions after these"""
    target_update_interval: int = 500
    """steps"""
    n_steps: int = 500
    """steps between two updates, rounded down to a divisor of `steps`"""
    n_epochs: int = 10
    """passes over these steps in an update"""
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    ent_coef: float = 0.0

    @property
    def is_off_policy(self) -> bool:
        """Training on transitions that are kept for replay."""
        return "buffer_size" in ALGORITHMS[self.algorithm].own


_SHARES = ("gamma", "tau", "exploration_final_eps", "gae_lambda", "clip_range")
"""Hyperparameters from 0 to 1."""
_MAY_BE_ZERO = ("learning_starts", "action_noise", "exploration_final_eps", "ent_coef", "gae_lambda", "gamma")
_LEAST = {"steps": 10, "n_steps": 2, "batch_size": 2}
"""Least values of whole numbers, where it is not 1: an update of PPO needs several steps."""
_CHOICES = {"algorithm": tuple(ALGORITHMS), "activation": ("tanh", "relu")}


def policy_config(configuration: Configuration, task: Task) -> PolicyConfig:
    """Read the configuration of a policy for `task`, with defaults for absent names.

    Raises ModelError for an unknown name, an unusable value, or an algorithm that does not take the actions.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(PolicyConfig)}
    for name, value in configuration.items():
        if name not in defaults:
            raise ModelError(f"{name!r} is not a hyperparameter of a policy: it must be one of {', '.join(defaults)}")
        if problem := _problem(name, value, defaults[name]):
            raise ModelError(f"{name} is {value!r}: it must be {problem}")
    config = PolicyConfig(**configuration)  # type: ignore[arg-type]  # checked above
    fitting = fitting_algorithms(task)
    if config.algorithm not in fitting:
        actions = "an action in a box" if task.low else "discrete actions"
        raise ModelError(f"algorithm {config.algorithm} does not take {actions}: use {' or '.join(fitting)}")
    return config


def fitting_algorithms(task: Task) -> tuple[str, ...]:
    """Return the names of the algorithms that take the actions of `task`."""
    return tuple(name for name, one in ALGORITHMS.items() if (one.box if task.low else one.discrete))


def unused_names(algorithms: tuple[str, ...]) -> set[str]:
    """Return the hyperparameters that none of `algorithms` has."""
    every = {name for one in ALGORITHMS.values() for name in one.own}
    return every - {name for algorithm in algorithms for name in ALGORITHMS[algorithm].own}


def _problem(name: str, value: Any, default: Any) -> str:
    """Return what the value of hyperparameter `name` must be; empty: it is."""
    if name in _CHOICES:
        return "" if value in _CHOICES[name] else " or ".join(_CHOICES[name])
    may_be_zero = name in _MAY_BE_ZERO
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_enough = is_number and (value > 0 or (value == 0 and may_be_zero))
    if isinstance(default, int):
        least = 0 if may_be_zero else _LEAST.get(name, 1)
        is_whole = is_number and isinstance(value, int)
        return "" if is_whole and value >= least else f"a whole number of at least {least}"
    bound = "of at least 0" if may_be_zero else "above 0"
    if name in _SHARES:
        return "" if is_enough and value <= 1 else f"a number {bound} and at most 1"
    return "" if is_enough and value < float("inf") else f"a finite number {bound}"
