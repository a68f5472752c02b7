"""The standard deviation of an error: scale and floor of highest likelihood, and evidence for the scale."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.tasks.metrics import normal_log_loss
from ripieno.tasks.registry import TASKS
from ripieno.tasks.spread_calibration import fit_spread, standard_deviation
from ripieno.types import Floats, SpreadCalibration


def case(
    scale: float, floor: float, samples: int = 2000, unit: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return predictions, targets and spreads (samples, 1) with errors of the deviation of `scale` and `floor`."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.2, 2.0, (samples, 1))
    targets = rng.normal(0, 5, (samples, 1))
    predictions = targets + rng.normal(size=spread.shape) * np.hypot(scale * spread, floor)
    return tuple((array * unit).astype(np.float32) for array in (predictions, targets, spread))  # type: ignore[return-value]


def loss(predictions: Floats, targets: Floats, spread: Floats, known: SpreadCalibration) -> float:
    return normal_log_loss(predictions, targets, standard_deviation(spread, known))


@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e20])
def test_scale_and_floor_are_found_in_any_unit(unit: float) -> None:
    known = fit_spread(*case(2.0, 0.5, 8000, unit))
    assert known.scales == (pytest.approx(2.0, rel=0.08),)
    assert known.floors == (pytest.approx(0.5 * unit, rel=0.2),)
    assert known.samples == 8000


def test_they_have_the_highest_likelihood() -> None:
    data = case(1.5, 0.7)
    known = fit_spread(*data)
    best = loss(*data, known)  # type: ignore[arg-type]
    for scales, floors in ((1.1, 1), (0.9, 1), (1, 1.1), (1, 0.9), (1.05, 0.95), (0.95, 1.05)):
        near = SpreadCalibration((known.scales[0] * scales,), (known.floors[0] * floors,), 2000)
        assert loss(*data, near) > best  # type: ignore[arg-type]


def test_on_new_samples_it_is_better_than_the_spread_and_than_one_deviation() -> None:
    known, (predictions, targets, spread) = fit_spread(*case(1.5, 0.7)), case(1.5, 0.7, seed=1)
    own = normal_log_loss(predictions, targets, standard_deviation(spread, known))
    assert own < normal_log_loss(predictions, targets, spread) - 0.1
    assert own < normal_log_loss(predictions, targets) - 0.02


def test_a_spread_that_tells_nothing_has_the_scale_zero() -> None:
    predictions, targets, spread = case(0.0, 0.8)
    known = fit_spread(predictions, targets, spread)
    assert known.scales == (0.0,)
    error = float(np.sqrt(np.mean((predictions.astype(np.float64) - targets) ** 2)))
    assert known.floors == (pytest.approx(error),)
    assert np.unique(standard_deviation(spread, known)).tolist() == [pytest.approx(error)]
    few = fit_spread(*(array[:4] for array in case(3.0, 0.1)))
    assert few.scales == (0.0,), "fewer samples than folds"


def test_members_that_agree_give_no_width_of_zero() -> None:
    predictions, targets, spread = case(1.0, 0.0)
    known = fit_spread(predictions, targets, spread)
    assert standard_deviation(np.zeros((1, 1)), known)[0, 0] > 0
    single = fit_spread(predictions, targets, np.zeros_like(spread))
    assert single.scales == (0.0,)
    exact = fit_spread(targets, targets, spread)
    assert (exact.scales, exact.floors[0] > 0) == ((0.0,), True)
    constant = fit_spread(np.zeros((9, 1)), np.zeros((9, 1)), np.ones((9, 1)))
    assert constant.floors[0] > 0


def test_each_target_has_its_own() -> None:
    left, right = case(2.0, 0.5, 4000), case(0.0, 3.0, 4000, seed=2)
    both = [np.hstack(pair) for pair in zip(left, right, strict=True)]
    known = fit_spread(*both)
    assert known.scales[0] == pytest.approx(fit_spread(*left).scales[0], rel=1e-6)
    assert known.scales[1] == 0
    assert known.floors[1] == pytest.approx(3.0, rel=0.05)


def test_only_values_have_one() -> None:
    predictions = np.full((9, 3), 0.5, np.float32)
    for name in ("classification", "multilabel", "segmentation"):
        assert TASKS[name].fit_spread(predictions, predictions, predictions) is None
    assert TASKS["regression"].fit_spread(predictions, predictions, predictions) is not None


def test_the_loss_is_that_of_the_normal_density() -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(2, 50, 2))
    deviation = rng.uniform(0.5, 2, (50, 2))
    expected = -norm.logpdf(targets, predictions, deviation).mean()
    assert normal_log_loss(predictions, targets, deviation) == pytest.approx(expected)
    whole = np.sqrt(((predictions - targets) ** 2).mean(axis=0))
    assert normal_log_loss(predictions, targets) == pytest.approx(-norm.logpdf(targets, predictions, whole).mean())
    assert normal_log_loss(predictions * 10, targets * 10, deviation * 10) == pytest.approx(expected + np.log(10))
