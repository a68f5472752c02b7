"""Forecasts of a search: the epochs that it will train, and its best loss at the last epoch."""

from __future__ import annotations

from functools import partial
from statistics import median

import pytest

from ripieno.search import Settings, simulate
from ripieno.search.algorithms import find_algorithm, make_scheduler
from ripieno.search.built_in_spaces import find_space
from ripieno.search.forecast import expected_epochs, predict_best_loss
from ripieno.types import Configuration

SPACE = find_space("resnet-tiny")


def curve(configuration: Configuration, epochs: int) -> tuple[float, float]:
    return abs(float(configuration["learning_rate"]) - 0.01) + 1 / epochs, float(epochs)


@pytest.mark.parametrize("algorithm", ["hyperband", "asha", "random", "genetic"])
def test_the_epochs_of_a_search_are_known_before_it_begins(algorithm: str) -> None:
    expected = expected_epochs(partial(make_scheduler, find_algorithm(algorithm), 27), 60)
    trained = []
    for seed in range(3):
        done = simulate(Settings(SPACE, algorithm, trials=60, epochs=27, seed=seed), curve, slots=4)
        trained.append(sum(outcome.job.stop - outcome.job.start for outcome in done.outcomes))
        assert done.summary.expected_epochs == expected
        assert done.summary.epochs == trained[-1]
    assert expected == pytest.approx(median(trained), rel=0.25)


def test_long_searches_are_in_proportion() -> None:
    make = partial(make_scheduler, find_algorithm("random"), 27)
    assert expected_epochs(make, 100_000) == 27 * 100_000


def test_the_lowest_loss_goes_on_to_fall_more_slowly() -> None:
    halved = [1.0 / n for n in range(1, 65)]  # by every doubling of the jobs
    assert predict_best_loss(halved, 0.25) == pytest.approx(halved[-1] * 0.5)
    assert predict_best_loss(halved, 0.125) == pytest.approx(halved[-1] * 0.5**1.5)


def test_there_is_no_forecast_without_enough_results() -> None:
    falling = [1.0 / n for n in range(1, 13)]
    assert predict_best_loss(falling, 0.3) is not None
    assert predict_best_loss(falling[:-1], 0.3) is None
    assert predict_best_loss([], 0.3) is None
    assert predict_best_loss(falling, 0.05) is None
    assert predict_best_loss(falling, 0.7) is None
    assert predict_best_loss([1.0] * 12, 0.3) is None
    assert predict_best_loss([loss - 0.5 for loss in falling], 0.3) is None
