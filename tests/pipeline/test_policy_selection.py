"""Selection from a run of policies, by rollouts of their ONNX models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="needs the extra rl")
from ripieno.environments import make_environment
from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.pipeline import front, select
from tests.linear_policies import CARTPOLE, TEST, VALID, policy_model, policy_run

pytestmark = pytest.mark.rl
PARAMETERS = {"parameters": 100.0}


@pytest.fixture
def run(tmp_path):
    return policy_run(tmp_path / "run")


def alone(weights, seed):
    """Return the return of a linear policy from a seed."""
    environment = make_environment("gym:CartPole-v1")
    observation, _ = environment.reset(seed=seed)
    total, running = 0.0, True
    while running:
        observation, reward, ended, cut, _ = environment.step(int(observation @ np.float32(weights) > 0))
        total += reward
        running = not (ended or cut)
    return total


def test_the_ensemble_has_the_returns_of_its_episodes_and_of_test_seeds_that_do_not_select(run):
    (chosen,) = select(run, PARAMETERS)
    assert chosen.members == ("good",)
    assert chosen.name == "B-parameters100"
    assert chosen.method == "replacement"
    assert chosen.returns["valid"] == tuple(alone(CARTPOLE["good"], seed) for seed in VALID)
    assert chosen.returns["test"] == tuple(alone(CARTPOLE["good"], seed) for seed in TEST)
    assert chosen.losses["valid_negative_return"] == -np.mean(chosen.returns["valid"])
    assert chosen.losses["test_return"] == np.mean(chosen.returns["test"])
    assert run.ensemble(chosen.name) == chosen
    assert run.predictions("good", "test").shape == (len(TEST), 1)


def test_the_rollouts_decide_and_not_the_returns_that_members_are_kept_with(tmp_path):
    run = policy_run(tmp_path / "run", own={"bad": 500.0})
    (chosen,) = select(run, PARAMETERS, size=2)
    assert chosen.members == ("bad", "good")  # nested: the best by its kept returns is in all
    assert chosen.returns["valid"] != (500.0,) * len(VALID)


def test_a_budget_bounds_the_members_and_test_can_be_left_out(run):
    (chosen,) = select(run, {"parameters": 4.0}, test=False)
    assert chosen.members == ("good",)
    assert set(chosen.returns) == {"valid"}
    assert not run.has_predictions("good", "test")
    with pytest.raises(SelectionError, match="no policy fits the budget of 3 parameters: the cheapest needs 4"):
        select(run, {"parameters": 3.0})


def test_the_front_rises_with_the_cost(run):
    found = front(run, cost="parameters", points=5)
    returns = [np.mean(e.returns["valid"]) for e in found.ensembles]
    assert returns == sorted(returns)
    assert run.front() == found


def test_seconds_are_measured_and_bound_by_default(run):
    chosen = select(run)
    assert chosen
    assert all(set(e.budget) == {"seconds"} for e in chosen)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"combiner": "mean"}, "makes no sense of 2 discrete actions"),
        (
            {"combiner": "probability"},
            "needs policies that return probabilities, one returns values: use vote",
        ),
        ({"method": "smobf"}, "method 'smobf' does not fit policies: expected one of replacement, top-k, best"),
        ({"loss": "accuracy"}, "loss='accuracy' does not fit policies"),
        ({"calibrate": "members"}, "does not fit policies"),
        ({"cv": 3}, "does not fit policies"),
        ({"coverage": 0.9}, "does not fit policies"),
        ({"size": 0}, "size 0 is not valid"),
    ],
)
def test_options_that_do_not_fit_policies_are_one_line(run, options, error):
    with pytest.raises(SelectionError, match=error) as raised:
        select(run, PARAMETERS, **options)
    assert "\n" not in str(raised.value)
    assert not run.ensembles()


def test_a_named_rule_is_part_of_the_name(run):
    (chosen,) = select(run, PARAMETERS, combiner="vote", method="top-k")
    assert chosen.name == "B-parameters100-top-k-vote"
    assert chosen.combiner == "vote"


def test_a_policy_with_other_actions_is_named(run):
    member = run.member("bad")
    other = dataclasses.replace(member.task, output=(3,), names=("0", "1", "2"))
    run.update(dataclasses.replace(member, task=other))
    with pytest.raises(SelectionError, match="the actions of bad are 3 discrete ones, those of the environment are 2"):
        select(Library(run.path), PARAMETERS, size=3)


def test_a_policy_that_returns_the_wrong_shape_is_named(tmp_path):
    run = policy_run(tmp_path / "run")
    (run.path / "library" / "good" / "model.onnx").write_bytes(policy_model([0.1, 0.5, 3.0, 1.0], -1.0, 1.0))
    with pytest.raises(Exception, match="good") as raised:
        select(Library(run.path), PARAMETERS)
    assert "\n" not in str(raised.value)


def test_a_run_without_its_environment_says_so(tmp_path):
    run = policy_run(tmp_path / "run")
    for path in (run.path / "dataset").glob("*"):
        path.unlink()
    with pytest.raises(SelectionError, match="names no environment"):
        select(Library(run.path), PARAMETERS)
