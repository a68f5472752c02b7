"""Targets that predictions contradict, and their order."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ripieno.tasks.contradiction import contradictions
from ripieno.types import Task, classification

CLASSES = classification(("a", "b", "c"))
LABELS = Task("multilabel", (2,), ("x", "y"))
VALUES = Task("regression", (2,), ("u", "v"))


def test_classes_that_are_not_the_likeliest_come_least_probable_first() -> None:
    predictions = np.array([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9], [0.3, 0.4, 0.3]], np.float32)
    found = contradictions(predictions, np.array([1, 1, 0, 2]), CLASSES)
    assert found.samples.tolist() == [2, 3, 0]
    assert found.doubt == pytest.approx([1.0, 0.7, 0.6])
    assert found.suggested.tolist() == [2, 1, 0]


def test_the_least_likely_label_of_a_sample_counts_and_thresholds_decide() -> None:
    predictions = np.array([[0.9, 0.4], [0.2, 0.1], [0.6, 0.6]], np.float32)
    targets = np.array([[1, 1], [1, 1], [1, 0]], np.uint8)
    found = contradictions(predictions, targets, LABELS, thresholds=(0.5, 0.3))
    assert found.samples.tolist() == [1, 2], "0.4 reaches the threshold of its label"
    assert found.doubt == pytest.approx([0.9, 0.6])
    assert found.suggested.tolist() == [[0, 0], [1, 1]]


def test_residuals_are_scaled_by_target_and_where_members_differ_count_less() -> None:
    generator = np.random.default_rng(0)
    predictions = generator.normal(size=(400, 2)).astype(np.float32)
    targets = predictions + (generator.normal(size=(400, 2)) * [1, 100]).astype(np.float32)
    targets[7, 0], targets[9, 1] = predictions[7, 0] + 8, predictions[9, 1] + 2000
    found = contradictions(predictions, targets, VALUES)
    assert found.samples[:2].tolist() == [9, 7]
    assert found.doubt[:2] == pytest.approx([20, 8], rel=0.15)
    assert found.doubt.min() > 3
    spread = np.zeros((400, 2))
    spread[9] = 1000
    assert contradictions(predictions, targets, VALUES, spread=spread).samples[0] == 7


def test_an_exact_prediction_is_no_contradiction() -> None:
    assert not len(contradictions(np.ones((5, 1), np.float32), np.ones((5, 1), np.float32), VALUES).samples)


def test_planted_errors_are_found_first() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 1000)
    logits = generator.normal(size=(1000, 3)) + 4 * np.eye(3)[labels]
    predictions = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = generator.choice(1000, 50, replace=False)
    given = labels.copy()
    given[planted] = (given[planted] + generator.integers(1, 3, 50)) % 3
    found = contradictions(predictions, given, CLASSES)
    doubt = np.zeros(1000)
    doubt[found.samples] = found.doubt
    assert roc_auc_score(np.isin(np.arange(1000), planted), doubt) > 0.95
    assert np.isin(found.samples[:30], planted).mean() > 0.9
