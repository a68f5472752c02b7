"""Prediction of a measured cost from features of a network, and how far it is off."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ripieno.profiles import cost_model
from ripieno.profiles.cost_model import LEAST, fit_cost_model

DICE = np.random.default_rng(0)


def features(count: int) -> list[dict[str, float]]:
    return [{"log flops": float(DICE.normal()), "log values": float(DICE.normal()), "bias": 1.0} for _ in range(count)]


def cost(row: dict[str, float]) -> float:
    return math.exp(0.5 + 0.8 * row["log flops"] - 0.3 * row["log values"])


def test_a_power_law_is_found() -> None:
    rows = features(12)
    model = fit_cost_model(rows, [cost(row) for row in rows])
    assert model is not None
    assert model.features == ("log flops", "log values")  # what never varies is left out
    for row in features(20):
        assert model.predict(row) == pytest.approx(cost(row), rel=0.02)
    assert 1 <= model.error < 1.02


def test_the_error_is_that_of_networks_that_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "PENALTIES", (3.0,))
    rows = features(12)
    costs = [cost(row) * math.exp(DICE.normal() * 0.3) for row in rows]
    model = fit_cost_model(rows, costs)
    assert model is not None
    matrix = np.array([[row["log flops"], row["log values"]] for row in rows])
    scaled, target = matrix / matrix.std(axis=0), np.log(costs)
    errors = []
    for left_out in range(12):
        others = [n for n in range(12) if n != left_out]
        centre, level = scaled[others].mean(axis=0), target[others].mean()
        x, y = scaled[others] - centre, target[others] - level
        slopes = np.linalg.solve(x.T @ x + 3.0 * np.eye(2), x.T @ y)
        errors.append(level + (scaled[left_out] - centre) @ slopes - target[left_out])
    assert math.log(model.error) == pytest.approx(math.sqrt(np.mean(np.square(errors))), rel=1e-9)


def test_noise_alone_has_a_large_error() -> None:
    costs = np.exp(2 * DICE.normal(size=12))
    model = fit_cost_model(features(12), costs.tolist())
    assert model is not None
    assert model.error > 3


def test_more_features_than_networks_can_be_fitted() -> None:
    rows = [{"log flops": 1.0 + n, **{f"kind={m}": 1.0 for m in (n, n % 3)}} for n in range(8)]
    model = fit_cost_model(rows, [math.exp(0.5 * n) for n in range(8)])
    assert model is not None
    assert model.features == ("kind=0", "kind=1", "kind=2", "log flops")  # no word that only one network has
    assert model.error < 2.5  # the mean alone is off by a factor of 3.7
    assert model.predict({"log flops": 8.0}) > model.predict({"log flops": 0.0})


def test_few_networks_give_no_model_and_equal_ones_their_mean() -> None:
    rows = features(LEAST)
    assert fit_cost_model(rows[:-1], [1.0] * (LEAST - 1)) is None
    model = fit_cost_model([rows[0]] * LEAST, [1.0, 4.0, 1.0, 4.0])
    assert model is not None
    assert model.features == ()
    assert model.predict({}) == pytest.approx(2.0)
