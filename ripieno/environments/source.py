"""Environments by name: `gym:ID` of Gymnasium, `gem:ID` of gym-electric-motor, or a user's own `module:function`."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ripieno.errors import DataError, error_summary, require
from ripieno.models.user_code import import_named
from ripieno.types import Task

if TYPE_CHECKING:
    from ripieno.environments.wrappers import CheckedEnvironment

GYM, GEM = "gym", "gem"


def is_environment(name: object) -> bool:
    """Return whether `name` names an environment of Gymnasium or gym-electric-motor, which no file does."""
    return isinstance(name, str) and name.partition(":")[0] in (GYM, GEM) and ":" in name


def make_environment(name: str, trusted: Collection[str] = (), *, render: bool = False) -> CheckedEnvironment:
    """Make the environment `name`: float32 observations, discrete actions from 0 or a box, finite episodes, checks.

    An own `module:function`, called without arguments, is imported only when it is in `trusted`. With `render`,
    `render()` of the environment returns frames (height, width, 3), where it can. Raises DataError when there is no
    such environment, or its observations or actions are not supported; ModelError for own code
    that is not trusted or cannot be imported; MissingExtraError without the extra.
    """
    maker, colon, rest = name.partition(":")
    if not colon or not rest:
        raise DataError(f"environment {name!r}: expected gym:ID, gem:ID, or your own as module:function")
    gymnasium = require("gymnasium")
    from ripieno.environments.wrappers import prepared

    options: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    if maker == GEM:
        require("gym_electric_motor")  # registers its environments
        options = {}
    if maker in (GYM, GEM):
        if ":" in rest:  # Gymnasium would import a module of that name
            raise DataError(f"environment {name!r}: expected {maker}:ID; name your own as module:function")
        make: Any = partial(gymnasium.make, disable_env_checker=True)  # the wrappers check
        arguments: tuple[Any, ...] = (rest,)
        if rest not in gymnasium.registry:
            raise DataError(f"there is no environment {name!r}{_similar(rest, list(gymnasium.registry))}")
    else:
        make = import_named("environment", name, trusted, "a function that returns a gymnasium environment")
        arguments, options = (), {}
    try:
        made = make(*arguments, **options)
    except Exception as error:  # an environment may raise anything
        raise DataError(f"environment {name!r} cannot be made ({error_summary(error, named=True)})") from error
    if not isinstance(made, gymnasium.Env):
        raise DataError(f"environment {name!r}: the function returned a {type(made).__name__}, not a gymnasium.Env")
    return prepared(made, name, motor=maker == GEM)


def _similar(name: str, known: list[str]) -> str:
    """Return the registered names that are similar to `name`, in brackets."""
    from difflib import get_close_matches

    found = get_close_matches(name, known, 3, 0.6)
    return f" (similar ones: {', '.join(found)})" if found else ""


def task_of(environment: CheckedEnvironment) -> Task:
    """Return the task of finding a policy for an environment: its actions, with their bounds where they are a box."""
    from gymnasium import spaces

    space = environment.action_space
    if isinstance(space, spaces.Discrete):
        count = int(space.n)
        return Task("policy", (count,), tuple(map(str, range(count))), "return")
    assert isinstance(space, spaces.Box)
    low, high = (tuple(float(v) for v in np.asarray(bound, np.float64)) for bound in (space.low, space.high))
    return Task("policy", (len(low),), tuple(map(str, range(len(low)))), "return", low, high)


def check_steps(environment: CheckedEnvironment, seed: int = 0) -> None:
    """Reset the environment and take one step. Raises DataError where that fails: see `CheckedEnvironment`."""
    environment.action_space.seed(seed)
    environment.reset(seed=seed)
    environment.step(environment.action_space.sample())
