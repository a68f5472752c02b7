"""The head on frozen features: the solution is scikit-learn's, and does not depend on the features' scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from ripieno.tasks.registry import kind_of
from ripieno.train.head_fit import FLOOR, fit_head, fit_wide_head
from ripieno.train.losses import LossConfig, TrainingLoss
from ripieno.types import Task, classification

SAMPLES, WIDTH, CLASSES = 200, 12, 3
PENALTY = 0.02


def features_of(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    raw = random.normal(size=(SAMPLES, WIDTH)) * random.uniform(0.1, 10, WIDTH) + random.normal(size=WIDTH)
    raw[:, 3] = 7.0  # constant
    return raw.astype(np.float32)


def loss_of(task: Task, targets: np.ndarray, **config: object) -> TrainingLoss:
    return TrainingLoss(
        LossConfig(**{"training_loss": kind_of(task).training_losses[0], **config}),  # type: ignore[arg-type]
        task,
        targets,
        torch.device("cpu"),
    )


def standardised(features: np.ndarray) -> np.ndarray:
    deviation = features.std(0)
    return (features - features.mean(0)) / np.where(deviation > 1e-5, deviation, 1.0)


def labels_of(features: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(1)
    scores = standardised(features) @ random.normal(size=(WIDTH, CLASSES)) + random.normal(size=(SAMPLES, CLASSES))
    return np.asarray(scores.argmax(1))


def fitted(features: np.ndarray, loss: TrainingLoss, targets: np.ndarray, outputs: int) -> np.ndarray:
    head = nn.Linear(WIDTH, outputs)
    fit_head(head, torch.from_numpy(features), torch.from_numpy(np.asarray(loss.encode(targets))), loss, PENALTY)
    with torch.inference_mode():
        return np.asarray(head(torch.from_numpy(features)).numpy())


def test_classes_are_those_of_logistic_regression() -> None:
    features = features_of()
    targets = labels_of(features)
    task = classification(("a", "b", "c"))
    model = LogisticRegression(C=1 / (PENALTY * SAMPLES), max_iter=1000, tol=1e-8)
    expected = model.fit(standardised(features), targets).predict_proba(standardised(features))
    found = fitted(features, loss_of(task, targets), targets, CLASSES)
    assert np.allclose(torch.softmax(torch.from_numpy(found), 1).numpy(), expected, atol=5e-3)


def test_values_are_those_of_ridge_regression() -> None:
    features = features_of()
    targets = (features @ np.random.default_rng(2).normal(size=(WIDTH, 2)) * 50 + 1000).astype(np.float32)
    task = Task("regression", (2,), ("u", "v"))
    loss = loss_of(task, targets)
    model = Ridge(alpha=PENALTY * SAMPLES)  # the mean is over both targets: half the weight of each
    expected = model.fit(standardised(features), loss.encode(targets)).predict(standardised(features))
    found = fitted(features, loss, targets, 2)
    assert np.allclose(found, expected, atol=5e-3)


def test_labels_follow_their_features() -> None:
    features = features_of()
    targets = (standardised(features)[:, :2] > 0).astype(np.uint8)
    task = Task("multilabel", (2,), ("p", "q"))
    found = fitted(features, loss_of(task, targets), targets, 2)
    assert ((found > 0) == targets).mean() > 0.95


def test_label_smoothing_makes_the_head_less_sure() -> None:
    features = features_of()
    targets, task = labels_of(features), classification(("a", "b", "c"))
    sure, smooth = (
        torch.softmax(torch.from_numpy(fitted(features, loss_of(task, targets, label_smoothing=s), targets, 3)), 1)
        for s in (0.0, 0.3)
    )
    assert float(smooth.amax(1).mean()) < float(sure.amax(1).mean()) - 0.05


def test_the_same_head_twice() -> None:
    features = features_of()
    targets, task = labels_of(features), classification(("a", "b", "c"))
    first, second = (fitted(features, loss_of(task, targets), targets, 3) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_features_does_not_matter(factor: float) -> None:
    features = features_of()
    targets, task = labels_of(features), classification(("a", "b", "c"))
    found = fitted(features, loss_of(task, targets), targets, 3)
    scaled = fitted(features * np.float32(factor), loss_of(task, targets), targets, 3)
    assert np.allclose(found, scaled, atol=2e-2)


def test_a_wide_head_is_the_same_by_the_space_of_the_samples() -> None:
    features, targets = features_of(), labels_of(features_of())[:10]
    features = features[:10]
    loss, x = loss_of(classification(("a", "b", "c")), targets), torch.from_numpy(features)
    heads = [torch.nn.Linear(x.shape[1], 3) for _ in range(2)]
    losses = [
        fit(head, x, torch.from_numpy(targets), loss, PENALTY)
        for fit, head in zip((fit_head, fit_wide_head), heads, strict=True)
    ]
    assert x.shape[1] > len(x)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    torch.testing.assert_close(heads[0].weight, heads[1].weight, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(heads[0](x), heads[1](x), atol=1e-2, rtol=0)


def test_a_feature_that_few_samples_have_does_not_decide_for_others() -> None:
    features = features_of()
    targets = labels_of(features)
    features[:, 5] = 0.0
    features[0, 5] = 1e-3  # of one sample
    losses = {}
    for floor in (0.0, FLOOR):
        head, loss = nn.Linear(WIDTH, CLASSES), loss_of(classification(("a", "b", "c")), targets)
        encoded = torch.from_numpy(np.asarray(loss.encode(targets)))
        fit_head(head, torch.from_numpy(features), encoded, loss, PENALTY, floor)
        others = torch.from_numpy(features.copy())
        others[:, 5] = 1.0  # of an image unlike all of them
        with torch.inference_mode():
            losses[floor] = float(loss(head(others), encoded))
    assert losses[FLOOR] < 1.5 < 5 < losses[0.0]
