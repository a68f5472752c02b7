"""Selection scores the same predictions as a running engine returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.engine.combiner import combine as served
from ripieno.selection import select_members
from ripieno.selection.combine import combine as scored
from ripieno.train.evaluate import scores
from ripieno.types import Combiner


def dense_predictions(seed: int, members: int, samples: int, classes: int) -> NDArray[np.float32]:
    """Return predictions, many of them certain of a class, some of different classes."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(classes, 0.3), (members, samples)).astype(np.float32)
    sure = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, (members, samples))]
    return np.where(rng.random((members, samples, 1)) < 0.5, sure, rows)


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote", "median"])
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 5))
def test_selection_combines_as_the_engine_does(combiner: Combiner, seed: int, members: int, classes: int) -> None:
    predictions = dense_predictions(seed, members, 12, classes)
    shares = np.full(members, 1 / members)
    if combiner in ("weighted", "vote"):
        shares = np.random.default_rng(seed).dirichlet(np.ones(members))
    answer = served(combiner, predictions, shares.astype(np.float32))
    np.testing.assert_allclose(scored(predictions, shares.tolist(), combiner), answer, atol=1e-5)


def test_a_median_without_a_common_class_is_the_same_mean_in_both() -> None:
    # no class has a majority: the medians are zero, and the means differ between classes
    predictions: NDArray[np.float32] = np.zeros((5, 1, 4), np.float32)
    for member, label in enumerate([0, 0, 1, 2, 3]):
        predictions[member, 0, label] = 1
    for answer in (scored(predictions, None, "median"), served("median", predictions, np.full(5, 0.2, np.float32))):
        np.testing.assert_allclose(answer, [[0.4, 0.2, 0.2, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("combiner", ["mean", "vote", "median"])
@pytest.mark.parametrize("seed", range(5))
def test_the_accuracy_of_a_choice_is_that_of_what_the_engine_answers(combiner: Combiner, seed: int) -> None:
    predictions = dense_predictions(seed, 7, 60, 4)
    labels: NDArray[Any] = np.random.default_rng(seed).integers(0, 4, 60)
    choice = select_members(predictions, labels, budget=4, method="swap", loss="accuracy", combiner=combiner)
    weights = np.array(choice.weights, np.float32)
    answer = served(choice.combiner, predictions[list(choice.members)], weights)
    assert choice.loss == pytest.approx(1 - (answer.argmax(1) == labels).mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_cross_entropy_of_a_choice_is_that_of_its_answers_under_one_clip(seed: int) -> None:
    # every member is sometimes certain of a wrong class: the loss of such errors is that used in training
    predictions = dense_predictions(seed, 6, 60, 3)
    labels: NDArray[Any] = np.random.default_rng(seed).integers(0, 3, 60)
    for members in (predictions, predictions[:1]):
        choice = select_members(members, labels, budget=3)
        answer = served(choice.combiner, members[list(choice.members)], np.array(choice.weights, np.float32))
        assert choice.loss == pytest.approx(scores(answer, labels)["cross_entropy"], rel=1e-5)
    assert scores(np.array([[1, 0]], np.float32), np.array([1]))["cross_entropy"] == pytest.approx(-np.log(1e-15))
