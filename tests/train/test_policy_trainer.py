"""Training of policies: state, resuming, and what the exported model answers."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3", reason="needs the extra rl")

from ripieno.backends.onnx import open_file
from ripieno.environments import environment_dataset
from ripieno.errors import ModelError
from ripieno.tasks.policy import LARGEST_SEED
from ripieno.train.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from ripieno.train.evaluate import DivergedError
from ripieno.train.policy_trainer import PolicyTrainer, divisor
from ripieno.types import Job

pytestmark = pytest.mark.rl
SMALL = {"steps": 60, "units": 8, "layers": 1, "batch_size": 16, "learning_starts": 20}
AGENTS = {
    "dqn": ("gym:CartPole-v1", {"exploration_steps": 100, "target_update_interval": 25, "train_freq": 2}),
    "ppo": ("gym:CartPole-v1", {"n_steps": 30, "n_epochs": 2}),
    "ddpg": ("gym:Pendulum-v1", {"action_noise": 0.3}),
    "sac": ("gym:Pendulum-v1", {"buffer_size": 40}),  # less than a unit has: the oldest transitions go
}


@pytest.fixture(scope="module")
def datasets():
    return {name: environment_dataset(name, episodes=2) for name in ("gym:CartPole-v1", "gym:Pendulum-v1")}


def start(datasets, algorithm, seed=5, **more):
    environment, own = AGENTS[algorithm]
    trainer = PolicyTrainer()
    job = Job(0, {"algorithm": algorithm, **SMALL, **own, **more}, 0, 2, seed)
    trainer.start(job, datasets[environment])
    return trainer


def generator_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


@pytest.mark.parametrize("algorithm", AGENTS)
def test_a_resumed_policy_is_the_same_to_the_bit(datasets, algorithm, tmp_path):
    path = tmp_path / "00000.safetensors"
    whole = start(datasets, algorithm)
    whole.epoch()
    before = whole.tensors()
    assert ("replay" in before) == (algorithm != "ppo")
    write_checkpoint(path, TrainingState("a", 1), before, whole.apart)
    assert (tmp_path / "00000-e001-replay.npy").exists() == (algorithm != "ppo")
    random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002  what happens elsewhere meanwhile
    whole.predict_rows(np.arange(2))
    whole.epoch()

    resumed = start(datasets, algorithm)
    _, tensors = read_checkpoint(path, "a", 1)
    resumed.load(tensors)
    resumed.epoch()
    expected, found = whole.tensors(), resumed.tensors()
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert np.array_equal(array, found[name]), name
    assert any(not np.array_equal(before[name], expected[name]) for name in before if name.startswith("policy/"))
    rows = np.arange(2)
    assert np.array_equal(whole.predict_rows(rows), resumed.predict_rows(rows))
    whole.close(), resumed.close()


@pytest.mark.parametrize("algorithm", AGENTS)
def test_the_exported_policy_acts_as_the_agent(datasets, algorithm, tmp_path):
    trainer = start(datasets, algorithm)
    trainer.epoch()
    trainer.export(tmp_path / "model.onnx")
    observations = 2 * np.random.default_rng(0).standard_normal((40, *trainer.data.input.shape), np.float32)
    (answers,) = open_file((tmp_path / "model.onnx").read_bytes())(observations)
    expected, _ = trainer.agent.predict(observations, deterministic=True)
    assert answers.shape == (40, *trainer.data.task.output)
    if trainer.policy_output == "action":
        assert np.allclose(answers, expected, atol=1e-5)
        assert (np.abs(answers) <= 2).all()
    else:
        assert np.array_equal(answers.argmax(axis=1), expected)
        assert trainer.policy_output == {"dqn": "values", "ppo": "probabilities"}[algorithm]
        assert algorithm == "dqn" or np.allclose(answers.sum(axis=1), 1)
    trainer.close()


def test_training_leaves_the_seeds_of_validation_alone_and_the_common_generators_as_they_were(datasets):
    trainer = start(datasets, "ppo")
    assert all(LARGEST_SEED <= trainer._seed(unit) < 2**31 for unit in range(1000))
    assert datasets["gym:CartPole-v1"].targets.max() < LARGEST_SEED
    states = generator_states()
    loss = trainer.epoch()
    trainer.predict_rows(np.arange(4))
    assert states == generator_states()
    assert -60 < loss < 0  # minus the mean return of its episodes, a reward of 1 a step
    trainer.close()


def test_policies_of_other_seeds_differ_and_of_the_same_do_not(datasets):
    first, same, other = (start(datasets, "ppo", seed) for seed in (1, 1, 2))
    for trainer in (first, same, other):
        trainer.epoch()
    inputs = first.data.inputs
    assert np.array_equal(first.predict(inputs), same.predict(inputs))
    assert not np.array_equal(first.predict(inputs), other.predict(inputs))


def test_weights_that_are_no_numbers_end_the_trial_as_diverged(datasets):
    trainer = start(datasets, "ppo")
    with torch.no_grad():
        trainer.agent.policy.action_net.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        trainer.epoch()
    with pytest.raises(DivergedError, match="not finite"):
        trainer.predict_rows(np.arange(2))


def test_a_checkpoint_of_another_network_is_refused(datasets):
    trainer = start(datasets, "ppo")
    trainer.epoch()
    with pytest.raises(ModelError, match="another policy"):
        start(datasets, "ppo", units=9).load(trainer.tensors())


def test_a_trainer_of_policies_needs_an_environment(datasets):
    data = dataclasses.replace(datasets["gym:CartPole-v1"], environment="")
    with pytest.raises(ModelError, match="needs an environment"):
        PolicyTrainer().start(Job(0, {}, 0, 1), data)


def test_updates_fit_into_a_unit():
    assert [divisor(1000, n) for n in (1, 3, 125, 126, 300, 5000)] == [1, 4, 125, 200, 500, 1000]
