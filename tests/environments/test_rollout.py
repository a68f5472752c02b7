"""Lockstep rollouts: the same episodes as one at a time, each policy asked once a step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="needs the extra rl")
from ripieno.environments import make_environment, task_of
from ripieno.environments.rollout import PolicyEnsemble, RolloutRunner
from ripieno.errors import SelectionError

pytestmark = pytest.mark.rl
SEEDS = (5, 6, 7)


def linear(weights, calls=None):
    """Return a policy of CartPole with two action values, exact for any batch, that counts its calls."""

    def policy(observations):
        if calls is not None:
            calls.append(len(observations))
        score = (observations * np.float32(weights)).sum(axis=1)
        return np.stack([-score, score], axis=1)

    return policy


@pytest.fixture
def runner():
    made = RolloutRunner(partial(make_environment, "gym:CartPole-v1"), task_of(make_environment("gym:CartPole-v1")))
    yield made
    made.close()


POLICIES = {
    "good": linear([0.1, 0.5, 3.0, 1.0]),
    "bad": linear([1.0, 0.0, 0.0, 0.0]),
    "worse": linear([0.0, 0.0, -1.0, 0.0]),
}
ENSEMBLES = [
    PolicyEnsemble(("good",), "vote"),
    PolicyEnsemble(("bad", "worse", "good"), "value"),
    PolicyEnsemble(("bad", "good"), "vote", (1.0, 2.0)),
]


def alone(ensemble, seed):
    """Return the return and length of one episode, without the runner."""
    environment = make_environment("gym:CartPole-v1")
    observation, _ = environment.reset(seed=seed)
    total = steps = 0
    while True:
        outputs = [POLICIES[name](observation[None])[0] for name in ensemble.policies]
        if ensemble.rule == "vote":
            weights = ensemble.weights or (1,) * len(outputs)
            votes = np.zeros(2)
            for output, weight in zip(outputs, weights, strict=True):
                votes[output.argmax()] += weight
            action = int(votes.argmax())
        else:
            action = int(sum(np.sign(output - output.mean()) for output in outputs).argmax())
        observation, reward, ended, cut, _ = environment.step(action)
        total, steps = total + reward, steps + 1
        if ended or cut:
            return total, steps


def test_lockstep_episodes_equal_those_run_alone(runner):
    found = runner.run(ENSEMBLES, POLICIES, SEEDS)
    expected = np.array([[alone(ensemble, seed) for seed in SEEDS] for ensemble in ENSEMBLES])
    assert np.array_equal(found.returns, expected[..., 0])
    assert np.array_equal(found.steps, expected[..., 1])
    assert found.returns[0].min() > found.returns[1].max()
    again = runner.run(ENSEMBLES[::-1], POLICIES, SEEDS[::-1])  # in environments that have been used
    assert np.array_equal(again.returns, found.returns[::-1, ::-1])


def test_each_policy_is_asked_once_a_step_for_all_episodes_that_still_run(runner):
    calls = []
    policies = {**POLICIES, "bad": linear([1.0, 0.0, 0.0, 0.0], calls)}
    seen = []
    found = runner.run(ENSEMBLES, policies, SEEDS, progress=lambda *state: seen.append(state))
    longest = found.steps[1:].max()  # of the episodes that it belongs to
    assert len(calls) == longest
    assert calls[0] == 6
    assert sum(calls) == found.steps[1:].sum()
    assert seen[-1] == ("episodes", 9, 9)


def test_steps_are_told_with_the_observation_before_and_the_reward(runner):
    steps = []
    found = runner.run(ENSEMBLES[:1], POLICIES, SEEDS[:1], on_step=lambda *step: steps.append(step))
    assert len(steps) == found.steps[0, 0]
    first = make_environment("gym:CartPole-v1").reset(seed=5)[0]
    assert np.array_equal(steps[0][2], first)
    assert sum(step[4] for step in steps) == found.returns[0, 0]


def test_the_policy_with_the_wrong_shape_is_named(runner):
    with pytest.raises(SelectionError, match=r"policy wide returned \(1, 3\) for 1 observations, expected \(1, 2\)"):
        runner.run(
            [PolicyEnsemble(("wide",), "vote")], {"wide": lambda batch: np.zeros((len(batch), 3), np.float32)}, [1]
        )
