from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import nn

from ripieno.tasks.metrics import scores
from ripieno.train.optim import OptimizerConfig, learning_rates, make_optimizer


def rates(schedule: str, start: int, stop: int, steps: int = 10) -> list[float]:
    chosen = OptimizerConfig(learning_rate=2.0, schedule=schedule)  # type: ignore[arg-type]
    epochs = range(start + 1, stop + 1)
    return [r for epoch in epochs for r in learning_rates(chosen, start, stop, epoch, steps)]


def test_the_constant_schedule_is_constant() -> None:
    assert set(rates("constant", 1, 3)) == {2.0}


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (9, 27)])
def test_the_rung_schedule_rises_briefly_and_falls_to_zero_within_each_job(start: int, stop: int) -> None:
    found = rates("rung", start, stop)
    top = found.index(max(found))
    assert top <= len(found) / 8
    assert all(a > b for a, b in itertools.pairwise(found[top:]))
    assert max(found) > 1.8
    assert 0 < found[-1] < 0.02


def test_epochs_before_the_job_are_scheduled_as_a_job_of_their_own() -> None:
    chosen = OptimizerConfig()
    assert learning_rates(chosen, 3, 9, 2, 5) == learning_rates(chosen, 0, 3, 2, 5)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_weights_decay_but_biases_and_norms_do_not(kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5, optimizer=kind), network)  # type: ignore[arg-type]
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in network.parameters()] == [0.5, 0, 0, 0, 0.5, 0]


def test_adamw_decays_apart_from_the_gradient_and_adam_within_it() -> None:
    def after(kind: str) -> float:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(layer.weight)
        optimizer = make_optimizer(OptimizerConfig(0.1, weight_decay=0.5, optimizer=kind), layer)  # type: ignore[arg-type]
        layer.weight.grad = torch.zeros(1, 1)
        optimizer.step()
        return layer.weight.item()

    assert after("adamw") == pytest.approx(1 - 0.1 * 0.5)
    assert after("adam") == pytest.approx(1 - 0.1)  # a first step of Adam is the learning rate, however small the decay
    assert after("sgd") == pytest.approx(1 - 0.1 * 0.5 * 1.9)  # Nesterov's first step is 1 + momentum times


def test_scores_equal_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), 50).astype(np.float32)
    labels = generator.integers(0, 3, 50)  # class 3 never occurs, but is predicted
    found = scores(probabilities, labels)
    answers = probabilities.argmax(1)
    rows = probabilities.astype(np.float64)
    rows /= rows.sum(1, keepdims=True)
    assert found["accuracy"] == accuracy_score(labels, answers)
    assert found["macro_f1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert found["cross_entropy"] == pytest.approx(log_loss(labels, rows, labels=[0, 1, 2, 3]))


def test_a_probability_of_zero_costs_much_but_not_everything() -> None:
    assert np.isfinite(scores(np.array([[1, 0]], np.float32), np.array([1]))["cross_entropy"])


def test_a_score_of_no_numbers_is_no_number() -> None:
    assert np.isnan(scores(np.full((1, 2), np.nan, np.float32), np.array([1]))["cross_entropy"])
