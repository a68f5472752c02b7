"""Configurations of policies: what is read, and the one line that refuses another value."""

from __future__ import annotations

import dataclasses

import pytest

from ripieno.errors import ModelError, SearchError
from ripieno.models.policy_config import ALGORITHMS, PolicyConfig, fitting_algorithms, policy_config, unused_names
from ripieno.search.built_in_spaces import find_space, fit_policy_space
from ripieno.search.space import Categorical, Space
from ripieno.types import Task

DISCRETE = Task("policy", (3,), ("0", "1", "2"), "return")
BOX = Task("policy", (1,), ("0",), "return", (-1.0,), (1.0,))


def test_absent_names_have_defaults():
    assert policy_config({}, DISCRETE) == PolicyConfig()
    assert policy_config({"algorithm": "sac", "tau": 0.1}, BOX) == PolicyConfig(algorithm="sac", tau=0.1)


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        ({"width": 3}, "'width' is not a hyperparameter of a policy: it must be one of algorithm, steps"),
        ({"algorithm": "a2c"}, "algorithm is 'a2c': it must be dqn or ddpg or ppo or sac"),
        ({"steps": 5}, "steps is 5: it must be a whole number of at least 10"),
        ({"units": 8.5}, "units is 8.5: it must be a whole number of at least 1"),
        ({"layers": True}, "layers is True: it must be a whole number"),
        ({"learning_rate": 0}, "learning_rate is 0: it must be a finite number above 0"),
        ({"action_noise": -1}, "action_noise is -1: it must be a finite number of at least 0"),
        ({"gamma": 1.5}, "gamma is 1.5: it must be a number of at least 0 and at most 1"),
        ({"algorithm": "ddpg"}, "algorithm ddpg does not take discrete actions: use dqn or ppo"),
    ],
)
def test_values_that_do_not_fit_are_named(configuration, error):
    with pytest.raises(ModelError, match=error):
        policy_config(configuration, DISCRETE)


def test_the_space_keeps_the_algorithms_of_the_actions_and_what_these_have():
    for task, algorithms in ((DISCRETE, ("dqn", "ppo")), (BOX, ("ddpg", "ppo", "sac"))):
        assert fitting_algorithms(task) == algorithms
        space = fit_policy_space(find_space("policy"), task)
        assert space.ranges["algorithm"] == Categorical(algorithms)
        assert not space.ranges.keys() & unused_names(algorithms)
        used = {name for one in algorithms for name in ALGORITHMS[one].own}
        assert used <= space.ranges.keys() | space.fixed.keys()
        assert fit_policy_space(space, task) == space
    names = {field.name for field in dataclasses.fields(PolicyConfig)}
    whole = find_space("policy")
    assert whole.ranges.keys() | whole.fixed.keys() == names


def test_a_space_of_the_users_own_is_kept_or_refused():
    own = Space("own", "policy", {"algorithm": Categorical(("ppo",))}, {"tau": 0.1})
    assert fit_policy_space(own, BOX) is own
    with pytest.raises(SearchError, match="algorithm 'dqn' does not take an action in a box: use ddpg or ppo or sac"):
        fit_policy_space(Space("own", "policy", {"units": Categorical((8,))}, {"algorithm": "dqn"}), BOX)
