"""Prediction of a measured cost from features of a network, and how far it is off."""

from __future__ import annotations

import math

import numpy as np
import pytest

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


def test_the_error_is_that_of_networks_that_were_left_out() -> None:
    rows = features(12)
    costs = [cost(row) * math.exp(DICE.normal() * 0.3) for row in rows]
    model = fit_cost_model(rows, costs)
    assert model is not None
    off = []
    for left_out in range(12):
        others = [n for n in range(12) if n != left_out]
        # the same penalty by hand: the closed form must be that of twelve fits
        best = min((abs(_ridge_error(rows, costs, others, left_out, penalty)), penalty) for penalty in (0.01, 30.0))
        off.append(best[0])
    assert math.log(model.error) >= 0.8 * math.sqrt(float(np.mean(np.square(off))))
    assert 1.2 < model.error < 1.8


def _ridge_error(
    rows: list[dict[str, float]], costs: list[float], others: list[int], left_out: int, penalty: float
) -> float:
    names = ("log flops", "log values")
    matrix = np.array([[row[name] for name in names] for row in rows])
    target = np.log(costs)
    mean, level = matrix[others].mean(axis=0), target[others].mean()
    scale = matrix.std(axis=0)
    scaled = (matrix - mean) / scale
    slopes = np.linalg.solve(
        scaled[others].T @ scaled[others] + penalty * np.eye(2), scaled[others].T @ (target[others] - level)
    )
    return float(level + scaled[left_out] @ slopes - target[left_out])


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
