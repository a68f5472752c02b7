"""The losses of choices are those of the combined predictions, which the engine returns (tests/tasks)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.selection import select_members
from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import scores
from ripieno.types import Combiner


def dense_predictions(seed: int, members: int, samples: int, classes: int) -> NDArray[np.float32]:
    """Return predictions, many of them certain of a class, some of different classes."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(classes, 0.3), (members, samples)).astype(np.float32)
    sure = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, (members, samples))]
    return np.where(rng.random((members, samples, 1)) < 0.5, sure, rows)


@pytest.mark.parametrize("combiner", ["mean", "vote", "median"])
@pytest.mark.parametrize("seed", range(5))
def test_the_accuracy_of_a_choice_is_that_of_what_the_engine_answers(combiner: Combiner, seed: int) -> None:
    predictions = dense_predictions(seed, 7, 60, 4)
    labels: NDArray[Any] = np.random.default_rng(seed).integers(0, 4, 60)
    choice = select_members(predictions, labels, budget=4, method="swap", loss="accuracy", combiner=combiner)
    answer = combine(predictions[list(choice.members)], choice.weights, choice.combiner)
    assert choice.loss == pytest.approx(1 - (answer.argmax(1) == labels).mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_cross_entropy_of_a_choice_is_that_of_its_answers_under_one_clip(seed: int) -> None:
    # every member is sometimes certain of a wrong class: the loss of such errors is that used in training
    predictions = dense_predictions(seed, 6, 60, 3)
    labels: NDArray[Any] = np.random.default_rng(seed).integers(0, 3, 60)
    for members in (predictions, predictions[:1]):
        choice = select_members(members, labels, budget=3, method="smobf")
        answer = combine(members[list(choice.members)], choice.weights, choice.combiner)
        assert choice.loss == pytest.approx(scores(answer, labels)["cross_entropy"], rel=1e-5)
    assert scores(np.array([[1, 0]], np.float32), np.array([1]))["cross_entropy"] == pytest.approx(-np.log(1e-15))
