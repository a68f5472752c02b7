"""Environments by name: what they become, and the one line that refuses one."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra rl")
from gymnasium import spaces  # noqa: E402

from ripieno.environments import is_environment, make_environment, task_of  # noqa: E402
from ripieno.environments.source import check_steps  # noqa: E402
from ripieno.errors import DataError, RipienoError  # noqa: E402

pytestmark = pytest.mark.rl


class Own(gymnasium.Env):
    """Environment of a user: four discrete actions from 3 on, of whose endless episodes each step fails as asked."""

    def __init__(self, reward=1.0, observation=(0.0, 0.0), error=None, actions=None, observations=None):
        self.observation_space = observations or spaces.Box(-1, 1, (2,), np.float64)
        self.action_space = actions or spaces.Discrete(4, start=3)
        self.given = reward, observation, error
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2), {}

    def step(self, action):
        reward, observation, error = self.given
        if error:
            raise error
        self.actions.append(action)
        return np.array(observation), reward, False, False, {}


@pytest.fixture
def own(monkeypatch):
    """Return a function that makes `Own` an environment by name, with its trust."""

    def name(**options):
        module = types.ModuleType("own_environment")
        module.make = lambda: Own(**options)
        monkeypatch.setitem(sys.modules, "own_environment", module)
        return make_environment("own_environment:make", ("own_environment:make",))

    return name


def test_names_of_environments():
    assert is_environment("gym:CartPole-v1")
    assert is_environment("gem:Cont-CC-PermExDc-v0")
    assert not any(map(is_environment, ("gym", "data.npz", "c:data", 3, "own_environment:make")))


def test_discrete_actions_and_boxes_become_tasks():
    task = task_of(make_environment("gym:CartPole-v1"))
    assert (task.kind, task.output, task.names, task.low) == ("policy", (2,), ("0", "1"), ())
    task = task_of(make_environment("gym:Pendulum-v1"))
    assert (task.output, task.low, task.high) == ((1,), (-2.0,), (2.0,))


def test_observations_are_float32_and_episodes_end(own):
    environment = own()
    first, _ = environment.reset(seed=1)
    assert first.dtype == np.float32
    steps = 0
    while not environment.step(0)[3]:
        steps += 1
    assert steps == 999
    assert set(environment.unwrapped.actions) == {3}  # the environment's own first action


def test_a_motor_that_crashes_gets_nothing_and_one_that_holds_nearly_one():
    pytest.importorskip("gym_electric_motor", reason="needs the extra rl")
    environment = make_environment("gem:Cont-CC-PermExDc-v0")
    observation, _ = environment.reset(seed=1)
    assert observation.shape == (6,)
    rewards = []
    for _ in range(300):
        _, reward, crashed, cut, _ = environment.step(np.array([1.0 if rewards else 0.0], np.float32))
        rewards.append(reward)
        if crashed or cut:
            break
    assert crashed
    assert rewards[-1] == 0.0
    assert 0 < rewards[0] < 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"reward": float("nan")}, "the reward of step 1 is nan"),
        ({"reward": "good"}, "the reward of step 1 is no number"),
        ({"observation": (0.0, float("inf"))}, "the observation after step 1 is not finite"),
        ({"observation": (0.0,)}, r"an observation has shape \(1,\), its space \(2,\)"),
        ({"error": ValueError("no power")}, r"does not step: step 1 failed \(ValueError: no power\)"),
    ],
)
def test_what_is_wrong_with_a_step_is_one_line(own, options, error):
    with pytest.raises(DataError, match=error) as raised:
        check_steps(own(**options))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"actions": spaces.MultiDiscrete([2, 2])}, "its actions are in MultiDiscrete"),
        ({"actions": spaces.Box(-np.inf, np.inf, (1,))}, "expected finite bounds of a Box"),
        ({"observations": spaces.Text(3)}, "its observations are in Text"),
    ],
)
def test_spaces_that_are_not_supported_are_named(own, options, error):
    with pytest.raises(DataError, match=error):
        own(**options)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gym:CartPol-v1", "similar ones: CartPole-v1"),
        ("gym:os:CartPole-v1", "expected gym:ID"),
        ("gym:", "expected gym:ID"),
        ("os:getcwd", "not trusted; pass --environment os:getcwd"),
    ],
)
def test_names_that_are_no_environment_are_one_line(name, error):
    with pytest.raises(RipienoError, match=error):
        make_environment(name)


def test_a_function_that_returns_something_else_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "own_environment", types.SimpleNamespace(make=lambda: 3))
    with pytest.raises(DataError, match=r"returned a int, not a gymnasium.Env"):
        make_environment("own_environment:make", ("own_environment:make",))
