"""Squared error, accuracy, macro-F1, and combiners other than the mean."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.selection import select_members
from ripieno.selection.squared_error import SquaredError
from ripieno.selection.validation import Loss
from ripieno.tasks import metrics
from ripieno.tasks.combiners import combine
from ripieno.types import Combiner


def classifiers(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 60)
    scores = rng.normal(size=(7, 60, 4)) + 1.2 * np.eye(4)[labels]
    return np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True), labels


LOSSES: dict[Loss, Callable[[NDArray[np.float64], NDArray[np.int64]], float]] = {
    "cross-entropy": metrics.cross_entropy,
    "accuracy": lambda p, y: 1 - metrics.accuracy(p, y),
    "macro-f1": lambda p, y: 1 - metrics.macro_f1(p, y),
    "squared-error": lambda p, y: metrics.squared_distance(p, np.eye(4)[y]),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("combiner", ["mean", "vote", "median"])
def test_exact_finds_the_best_of_all_and_the_loss_is_that_of_the_combiner(loss: Loss, combiner: Combiner) -> None:
    predictions, labels = classifiers(1)
    every = [list(s) for k in (1, 2, 3) for s in combinations(range(7), k)]
    best = min(LOSSES[loss](combine(predictions[s], None, combiner), labels) for s in every)
    choice = select_members(predictions, labels, method="exact", size=3, loss=loss, combiner=combiner)
    assert choice.loss == pytest.approx(best, abs=1e-6)
    combined = combine(predictions[list(choice.members)], choice.weights, choice.combiner)
    assert LOSSES[loss](combined, labels) == pytest.approx(choice.loss, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("combiner", ["mean", "vote"])
def test_replacement_is_judged_with_its_weights(loss: Loss, combiner: Combiner) -> None:
    predictions, labels = classifiers(2)
    choice = select_members(predictions, labels, method="replacement", size=9, loss=loss, combiner=combiner)
    combined = combine(predictions[list(choice.members)], choice.weights, choice.combiner)
    assert LOSSES[loss](combined, labels) == pytest.approx(choice.loss, abs=1e-6)


@pytest.mark.parametrize("outputs", [(), (3,)])
def test_squared_error_of_a_regression_is_that_of_the_mean(outputs: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, *outputs))
    predictions = targets + rng.normal(size=(6, 50, *outputs))
    choice = select_members(predictions, targets, loss="squared-error", method="exact")
    every = [list(s) for k in range(1, 7) for s in combinations(range(6), k)]
    losses = [metrics.squared_distance(predictions[s].mean(axis=0), targets) for s in every]
    assert choice.loss == pytest.approx(min(losses))
    assert sorted(choice.members) == every[int(np.argmin(losses))]


def test_the_gram_matrix_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(4, 101, 3)), rng.normal(size=(101, 3))
    whole = SquaredError(predictions, targets)
    monkeypatch.setattr("ripieno.selection.squared_error.BLOCK_BYTES", 1000)
    parts = SquaredError(predictions, targets)
    every = np.arange(4)
    assert parts.losses(parts.state((1, 2)), every) == pytest.approx(whole.losses(whole.state((1, 2)), every))


def test_all_classes_and_the_true_class_choose_alike() -> None:
    predictions, labels = classifiers(3)
    truth = metrics.true_class(predictions, labels)
    assert select_members(predictions, labels, budget=3, method="smobf") == select_members(
        truth, budget=3, method="smobf"
    )


def test_pixels_are_more_samples() -> None:
    predictions, labels = classifiers(4)  # 60 samples as 3 images of 4 x 5
    truth = metrics.true_class(predictions, labels).reshape(7, 3, 4, 5)
    flat = select_members(truth.reshape(7, -1), budget=3, method="smobf")
    assert flat == select_members(predictions, labels, budget=3, method="smobf")


def test_half_precision_chooses_as_its_own_values_say() -> None:
    predictions, labels = classifiers(5)
    half = predictions.astype(np.float16)
    wide = half.astype(np.float64) / half.astype(np.float64).sum(axis=-1, keepdims=True)
    assert (
        select_members(half, labels, budget=3, method="smobf").members
        == select_members(wide, labels, budget=3, method="smobf").members
    )
