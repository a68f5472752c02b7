"""Portfolios of past searches, and searches that begin with them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from ripieno.search import Categorical, Continuous, Settings, Space, simulate
from ripieno.search.algorithms import Algorithm
from ripieno.search.portfolio import (
    SIZE,
    PastModel,
    greedy_portfolio,
    make_warm_start,
    normalized,
    portfolio_size,
    rated_portfolio,
)
from ripieno.search.warm_start import PastResult, PastSearch, PastTrial, WarmStart
from ripieno.types import Configuration

PLANE = Space("plane", "none", {"x": Continuous(0.0, 1.0), "y": Continuous(0.0, 1.0)})


def past(name: str, best: float, seed: int = 0, trials: int = 40, scale: float = 1.0) -> PastSearch:
    """Return a search of the plane whose losses are lowest at x = `best`, on rungs 1, 3, 9; one in ten trials fails."""
    draw = np.random.default_rng(seed).random((trials, 2)).tolist()
    found = []
    for number, (x, y) in enumerate(draw):
        rungs = (1, 3, 9)[: 1 + number % 3]
        losses = [scale * (0.1 + abs(x - best) + 1 / rung) for rung in rungs]
        results = [
            PastResult(rung, None if number % 10 == 9 else loss) for rung, loss in zip(rungs, losses, strict=True)
        ]
        found.append(PastTrial({"x": x, "y": y}, tuple(results)))
    return PastSearch(name, PLANE, tuple(found), name)


def test_a_greedy_portfolio_is_the_one_that_lowers_the_mean_of_the_best_most() -> None:
    table = np.random.default_rng(1).random((5, 12))
    chosen = greedy_portfolio(table, 4)
    assert len(set(chosen)) == 4
    for size in range(1, 5):
        before = table[:, chosen[: size - 1]].min(axis=1, initial=np.inf)
        means = np.minimum(before[:, None], table).mean(axis=0)
        assert means[chosen[size - 1]] == pytest.approx(means.min())
    exact = min(table[:, list(pair)].min(axis=1).mean() for pair in combinations(range(12), 2))
    assert table[:, chosen[:2]].min(axis=1).mean() < 1.2 * exact


def test_a_configuration_that_complements_comes_before_one_that_is_as_good() -> None:
    table = np.array([[0.0, 0.1, 1.0], [0.9, 0.9, 0.0], [0.2, 0.2, 0.9]])
    assert greedy_portfolio(table, 3) == [0, 2, 1]


def test_without_a_gain_the_best_on_average_is_next() -> None:
    assert greedy_portfolio(np.array([[0.3, 0.0, 0.2, 0.1]]), 9) == [1, 3, 2, 0]


def test_losses_are_normalised_between_the_best_and_the_median() -> None:
    assert normalized(np.array([1.0, 2.0, 3.0, 9.0, 0.5]), 1.0, 3.0).tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    assert normalized(np.array([1.0, 1.0]), 1.0, 1.0).tolist() == [0.0, 0.0]


def test_a_portfolio_covers_the_past_searches_whatever_the_scale_of_their_losses() -> None:
    models = [PastModel(PLANE, past(f"{n}", best, n, scale=10.0**n)) for n, best in enumerate((0.2, 0.2, 0.8))]
    found = rated_portfolio(models, 2)
    xs = [float(values["x"]) for values, _ in found]
    assert abs(xs[0] - 0.2) < 0.1  # of two of three searches
    assert abs(xs[1] - 0.8) < 0.1
    assert all(0 <= loss <= 1 for _, losses in found for loss in losses)


def test_one_past_search_gives_its_best_trials_in_order() -> None:
    search = past("one", 0.5)
    last = [t for t in search.trials if len(t.results) == 3 and t.results[-1].loss is not None]
    best = min(last, key=lambda t: t.results[-1].loss or 0.0)
    values = [values for values, _ in rated_portfolio([PastModel(PLANE, search)], 5)]
    assert len(values) == 5
    assert values[0] == best.values


def test_a_configuration_that_two_searches_trained_has_its_own_loss_in_both() -> None:
    one, two = past("a", 0.2), past("b", 0.8)  # of the same seed
    models = [PastModel(PLANE, one), PastModel(PLANE, two)]
    for values, losses in rated_portfolio(models, 4):
        number = next(n for n, trial in enumerate(one.trials) if trial.values == values)
        assert losses == [float(model.losses[number]) for model in models]


def test_a_search_without_losses_gives_nothing() -> None:
    failed = PastSearch("x", PLANE, (PastTrial({"x": 0.1, "y": 0.2}, (PastResult(1, None),)),))
    assert PastModel(PLANE, failed).trials == ()
    assert not make_warm_start([PastModel(PLANE, failed)], 9, None)


def test_trials_that_do_not_fit_are_left_out() -> None:
    narrow = replace(PLANE, ranges={**PLANE.ranges, "x": Continuous(0.4, 1.0)})
    model = PastModel(narrow, past("wide", 0.0))
    assert min(float(trial.values["x"]) for trial in model.trials) == 0.4  # clipped


def test_curves_are_standardised_and_end_at_the_last_epoch_of_the_new_search() -> None:
    models = [PastModel(PLANE, past("a", 0.3)), PastModel(PLANE, past("b", 0.3, 1, scale=100.0))]
    found = make_warm_start(models, 27, None)
    assert found.sources == ("a", "b")
    losses = np.array([loss for curve in found.curves for _, loss in curve.points])
    assert abs(losses.mean()) < 0.2
    assert losses.std() == pytest.approx(1.0, abs=0.2)
    assert {epoch for curve in found.curves for epoch, _ in curve.points} == {3.0, 9.0, 27.0}


def test_a_portfolio_leaves_half_of_the_trials_to_the_sampler() -> None:
    assert [portfolio_size(n) for n in (None, 1, 2, 10, 1000)] == [SIZE, 1, 1, 5, SIZE]
    models = [PastModel(PLANE, past("a", 0.3))]
    assert len(make_warm_start(models, 9, 10).portfolio) == 5
    shipped: list[Configuration] = [{"x": 0.5, "y": 0.1}, {"x": 0.6, "y": 0.1}]
    mixed = make_warm_start(models, 9, 8, ("built-in plane", shipped))
    assert mixed.sources == ("a", "built-in plane")
    assert [mixed.portfolio[n] for n in (1, 3)] == shipped


def bowl(configuration: Configuration, epoch: int) -> tuple[float, float]:
    return 0.1 + abs(float(configuration["x"]) - 0.35) + 1 / epoch, float(epoch)


def configurations(
    run_of: WarmStart, algorithm: str | Algorithm = "hyperband", **options: object
) -> list[Configuration]:
    settings = Settings(PLANE, algorithm, epochs=9, trials=12, seed=3, order="virtual", window=2, **options)  # type: ignore[arg-type]
    outcomes = simulate(settings, bowl, 2, warm_start=run_of).outcomes
    found = {o.job.trial: o.job.configuration for o in outcomes}
    return [found[trial] for trial in sorted(found)]


def test_a_search_begins_with_the_portfolio_and_goes_on_with_its_sampler() -> None:
    warm = WarmStart(("a",), ({"x": 0.25, "y": 0.5}, {"x": 0.75, "y": 0.5}))
    cold, found = configurations(WarmStart()), configurations(warm)
    assert found[:2] == list(warm.portfolio)
    assert found[2:] == cold[2:]  # a random trial depends on its number and the seed
    assert configurations(warm) == found


def test_a_configuration_that_breaks_a_bound_is_left_out() -> None:
    warm = WarmStart(("a",), ({"x": 0.9, "y": 0.5}, {"x": 0.1, "y": 0.5}))
    settings = Settings(PLANE, epochs=9, trials=3, constraints=("flops<=0.5",))
    outcomes = simulate(settings, bowl, 1, costs=lambda c: {"flops": float(c["x"])}, warm_start=warm).outcomes
    assert next(o.job.configuration for o in outcomes if o.job.trial == 0) == warm.portfolio[1]
    assert all(float(o.job.configuration["x"]) <= 0.5 for o in outcomes)


def test_several_objectives_begin_with_the_portfolio_too() -> None:
    warm = make_warm_start([PastModel(PLANE, past("a", 0.35))], 9, 12)
    found = configurations(warm, "hyperband+forest", objective=("loss", "train_seconds"))
    assert found[: len(warm.portfolio)] == list(warm.portfolio)


def test_trials_of_the_portfolio_are_trained_further_while_they_are_in_the_better_half() -> None:
    warm = WarmStart(("a",), ({"x": 0.35, "y": 0.5}, {"x": 0.3, "y": 0.5}))
    steps = [o.job for o in simulate(Settings(PLANE, "asha", epochs=9, trials=6), bowl, 1, warm_start=warm).outcomes]
    assert [(job.trial, job.stop) for job in steps[:3]] == [(0, 1), (0, 3), (0, 9)]


def test_what_past_searches_tried_is_not_tried_again_but_for_the_portfolio() -> None:
    cold = configurations(WarmStart())  # of the same seed
    trials = tuple(PastTrial(values, (PastResult(9, bowl(values, 9)[0]),)) for values in cold)
    warm = make_warm_start([PastModel(PLANE, PastSearch("past", PLANE, trials))], 9, 12)
    found = configurations(warm)
    assert found[:6] == list(warm.portfolio)
    assert not [values for values in found[6:] if values in cold]


def test_a_space_that_past_searches_have_exhausted_is_searched_again() -> None:
    space = Space("two", "none", {"x": Categorical((0.1, 0.4))})
    warm = WarmStart(("a",), ({"x": 0.4}, {"x": 0.1}))
    outcomes = simulate(Settings(space, epochs=3, trials=5), bowl, 1, warm_start=warm).outcomes
    assert len({o.job.trial for o in outcomes}) == 5
