"""The sampler that learns from curves and durations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import log
from typing import Any

import numpy as np
import pytest
from optuna.samplers import RandomSampler

from ripieno.errors import SearchError
from ripieno.search import Settings, samplers, simulate
from ripieno.search.algorithms import Algorithm, check_algorithm
from ripieno.search.encoding import Encoding
from ripieno.search.forest import FADING, STARTUP, TREES, WARM_STARTUP, Forest, Knowledge, PastForest, learn, sizes
from ripieno.search.in_memory_study import InMemoryStudy, ReportedStudy, Result
from ripieno.search.objectives import scaled
from ripieno.search.portfolio import PastModel
from ripieno.search.samplers import find_sampler, sample
from ripieno.search.space import Categorical, Continuous, Integer, Space, distributions
from ripieno.search.warm_start import PastCurve, PastResult, PastSearch, PastTrial

LINE = Space("line", "none", {"x": Continuous(0.0, 1.0)})
PLANE = Space("plane", "none", {"x": Continuous(0.0, 1.0), "y": Continuous(0.0, 1.0)})
FOREST = find_sampler("forest")
Told = list[tuple[int, float | None, float]]
"""Epoch, loss and seconds of the jobs of a trial."""


def view_of(space: Space, trials: int, told: Callable[[dict[str, Any]], Told]) -> InMemoryStudy:
    """Return a view after random trials with these results."""
    view = InMemoryStudy(distributions(space))
    for trial in range(trials):
        view.start(sample(find_sampler("random"), view, 0))
        for epoch, loss, seconds in told(view.get_all_trials(0)[trial].params):
            view.tell(trial, epoch, loss, last=epoch == 27, seconds=seconds)
    return view


def chosen(view: InMemoryStudy, seeds: int = 40) -> list[dict[str, Any]]:
    """Return what the forest chooses for the next trial with different seeds, without the random trials."""
    study, new, found = view.study(), view.new(), []
    for seed in range(seeds):
        sampler = FOREST(seed)
        if joint := sampler.infer_relative_search_space(study, new):
            found.append(sampler.sample_relative(study, new, joint))
    return found


def knowledge(view: InMemoryStudy) -> tuple[Encoding, Knowledge]:
    encoding = Encoding(view.ranges)
    return encoding, learn(encoding, [t.params for t in view.get_all_trials(0)], view.results)


def test_trials_that_never_reached_the_last_epoch_teach() -> None:
    view = view_of(LINE, 30, lambda v: [(1, 1.0 + abs(v["x"] - 0.7), 1.0)])
    assert np.mean([abs(v["x"] - 0.7) < 0.1 for v in chosen(view)]) > 0.8


def test_what_counts_is_the_loss_at_the_last_epoch_not_at_the_first() -> None:
    """Curves cross: what starts well ends badly."""
    crossing = {1: lambda x: 1 + x, 3: lambda x: 1.2, 9: lambda x: 1.4 - x, 27: lambda x: 1.4 - x}

    def told(v: dict[str, Any]) -> Told:
        return [(epoch, loss(v["x"]), 1.0) for epoch, loss in crossing.items() if epoch == 1 or v["x"] * 97 % 1 < 0.4]

    view = view_of(LINE, 60, told)
    assert len({r.trial for r in view.results if r.epoch == 27}) < 40
    assert np.mean([v["x"] > 0.75 for v in chosen(view)]) > 0.9


def test_a_region_where_trials_fail_is_left_alone() -> None:
    view = view_of(PLANE, 60, lambda v: [(1, None if v["x"] > 0.5 else 2.0 - v["x"], 1.0)])
    found = [v["x"] for v in chosen(view)]
    assert np.mean([x < 0.55 for x in found]) > 0.8
    assert np.mean([x > 0.3 for x in found]) > 0.7  # and yet the best is sought, at its edge
    encoding, known = knowledge(view)
    places = encoding.features(encoding.draw(200, np.random.default_rng(1)))
    predicted = known.objectives[0].predict(np.column_stack([places, np.zeros(200)])).mean(axis=0)
    assert predicted[places[:, 0] > 0.6].min() > np.median(predicted[places[:, 0] < 0.4]) + 0.02


def test_of_two_that_promise_the_same_the_quicker_is_chosen() -> None:
    def told(slow: float) -> Callable[[dict[str, Any]], Told]:
        return lambda v: [(3, 1.0 + abs(v["y"] - 0.5), 30.0 if v["x"] > 0.5 else 30.0 * slow)]

    fast, same = (chosen(view_of(PLANE, 60, told(slow))) for slow in (16.0, 1.0))
    assert np.mean([v["x"] > 0.5 for v in fast]) > 0.85
    assert np.mean([v["x"] > 0.5 for v in same]) < 0.65


def test_improvement_is_divided_by_the_root_of_the_seconds_of_an_epoch() -> None:
    def told(v: dict[str, Any]) -> Told:  # seconds of a job, not of an epoch: the trials are of different lengths
        return [
            (stop, 1 + v["y"], (stop - start) * 4 ** v["x"])
            for start, stop in ((0, 3), (3, 9))[: int(v["y"] < 0.5) + 1]
        ]

    encoding, known = knowledge(view_of(PLANE, 80, told))
    features = encoding.features(encoding.draw(50, np.random.default_rng(1)))
    plain = replace(known, seconds=None).improvement(features, np.ones(1))
    features, plain = features[plain > 0], plain[plain > 0]
    assert len(plain) > 20
    assert np.log(plain / known.improvement(features, np.ones(1))) == pytest.approx(
        features[:, 0] * log(4) / 2, abs=0.15
    )


@pytest.mark.parametrize("worst", [1e6, None])
def test_a_few_terrible_trials_do_not_hide_what_separates_the_good(worst: float | None) -> None:
    chance = random.Random(3)
    view = view_of(LINE, 40, lambda v: [(1, worst if chance.random() < 0.1 else 1 + abs(v["x"] - 0.3) / 10, 1.0)])
    assert np.mean([abs(v["x"] - 0.3) < 0.15 for v in chosen(view)]) > 0.7


@pytest.mark.parametrize("shift", [-10.0, -0.5, 0.0])
def test_losses_may_be_negative_or_zero(shift: float) -> None:
    view = view_of(LINE, 40, lambda v: [(1, max(0.0, abs(v["x"] - 0.3) - 0.02) + shift, 1.0)])
    assert np.mean([abs(v["x"] - 0.3) < 0.1 for v in chosen(view)]) > 0.8


def test_equal_losses_and_spaces_with_one_value_or_few_are_sampled() -> None:
    for space in (PLANE, LINE, Space("one", "none", {"only": Integer(3, 3)})):
        view = view_of(space, 20, lambda v: [(1, 0.5, 1.0)])
        for seed in range(6):
            assert sample(FOREST, view, seed).keys() == space.ranges.keys()
    few = Space("few", "none", {"kind": Categorical(("a", "b", True)), "width": Integer(1, 5)})
    view = InMemoryStudy(distributions(few))
    for trial in range(20):  # more than the space has
        view.start(sample(FOREST, view, 0))
        view.tell(trial, 1, 0.5, last=True)
    assert sample(FOREST, view, 0).keys() == few.ranges.keys()


def test_no_configuration_is_chosen_twice_while_there_are_others() -> None:
    space = Space("few", "none", {"a": Integer(0, 9), "b": Integer(0, 9)})
    view = view_of(space, 30, lambda v: [(1, 1.0 + v["a"] + v["b"], 1.0)])
    running = chosen(view)[0]
    view.start(running)  # without a result yet
    before = [t.params for t in view.get_all_trials(0)]
    assert all(values not in before for values in chosen(view))


def test_if_all_trials_failed_the_next_is_random() -> None:
    assert chosen(view_of(LINE, 20, lambda v: [(1, None, 1.0)])) == []


def test_the_first_dozen_and_a_quarter_of_the_others_are_random() -> None:
    assert chosen(view_of(LINE, STARTUP - 1, lambda v: [(1, v["x"], 1.0), (3, v["x"], 1.0)])) == []
    found = chosen(view_of(LINE, STARTUP, lambda v: [(1, v["x"], 1.0)]), seeds=400)
    assert len(found) / 400 == pytest.approx(3 / 4, abs=0.06)


def test_a_forest_kept_since_earlier_trials_is_the_one_a_restart_fits() -> None:
    view = InMemoryStudy(distributions(PLANE))
    for trial in range(54):
        values = sample(FOREST, view, 0)
        if trial >= 39:  # from here on a forest serves for two results or more
            again = InMemoryStudy(distributions(PLANE))
            for t in view.get_all_trials(0):
                again.start(t.params)
            for r in view.results:
                again.tell(r.trial, r.epoch, r.loss, last=False, seconds=r.seconds)
            assert sample(FOREST, again, 0) == values
        view.start(values)
        view.tell(trial, 1, values["x"] + values["y"], last=False, seconds=1 + values["x"])


def test_forests_are_fitted_for_each_result_at_first_and_then_for_a_twentieth_more() -> None:
    assert [sizes(n) for n in (12, 13, 39, 40, 41, 42, 43, 44)] == [12, 13, 39, 40, 40, 42, 42, 44]
    grid = sorted({sizes(n) for n in range(12, 5000)})
    assert len(grid) < 140
    assert all(n <= later <= 1.05 * n + 1 for n, later in pairwise(grid))


def test_losses_are_learnt_in_logarithm_without_the_worst_tenth() -> None:
    assert scaled([0.5, 1.0, 2.0]).tolist() == pytest.approx([log(0.5), 0.0, 0.8 * log(2)])
    assert scaled([-0.5, 1.0]).tolist() == pytest.approx([-0.5, 0.85])
    assert scaled([0.0, 0.5, 0.5]).tolist() == pytest.approx([log(0.5)] * 3)
    assert scaled([0.0, 0.0]).tolist() == [0.0, 0.0]
    assert scaled([3.0]).tolist() == [log(3)]


class Spy(RandomSampler):
    """Random sampler that notes the results it sees."""

    seen: list[Result]

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        assert isinstance(study, ReportedStudy)
        Spy.seen = list(study.results)
        return {}


@pytest.mark.parametrize("order", ["virtual", "arrival"])
def test_samplers_see_measured_seconds_in_order_of_arrival_and_estimates_in_virtual_order(
    order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(samplers.SAMPLERS, "spy", Spy)
    settings = Settings(LINE, "asha+spy", trials=20, epochs=9, order=order, window=2)
    simulate(settings, lambda c, epoch: (c["x"] / epoch, epoch * (1 + c["x"])), 2, weight=lambda c: 10.0)
    assert len(Spy.seen) >= 17
    epochs = {(r.trial, r.epoch): r.epoch - {1: 0, 3: 1, 9: 3}[r.epoch] for r in Spy.seen}
    for r in Spy.seen:
        each = r.seconds / epochs[r.trial, r.epoch]
        assert each == pytest.approx(0.01) if order == "virtual" else 1 <= each <= 2


def test_the_learner_is_one_of_two() -> None:
    def told(values: dict[str, Any]) -> Told:
        return [(27, 1.0 + abs(values["x"] - 0.7), 1.0)]

    by_name = {}
    for name in ("extra-trees", "random-forest"):
        view = view_of(LINE, 30, told)  # one each: it keeps what was learnt
        encoding, study = Encoding(view.ranges), view.study()
        sampler = FOREST(3, random_share=0.0, learner=name)
        joint = sampler.infer_relative_search_space(study, view.new())
        by_name[name] = sampler.sample_relative(study, view.new(), joint)["x"]
        known = learn(encoding, [t.params for t in view.get_all_trials(0)], view.results, name)
        assert study.cache[max(study.cache)].known.min() == pytest.approx(known.known.min())
        assert abs(by_name[name] - 0.7) < 0.15
    assert by_name["extra-trees"] != by_name["random-forest"]
    with pytest.raises(SearchError, match="no learner 'lines'; there are: extra-trees, random-forest"):
        check_algorithm(Algorithm(sampler="forest", learner="lines"))


def past_curves(best: float, trials: int = 60) -> tuple[PastCurve, ...]:
    """Return curves of a search of the line whose losses are lowest at `best`."""
    draw = np.random.default_rng(0).random(trials).tolist()
    told = [PastTrial({"x": x}, (PastResult(1, 50 * (1 + abs(x - best))),)) for x in draw]
    return PastModel(LINE, PastSearch("past", LINE, tuple(told))).curves(trials, 1)


def warm_view(best: float, trials: int, told: Callable[[float], float]) -> InMemoryStudy:
    """Return a view after random trials of the line, with curves of a past search."""
    view = InMemoryStudy(distributions(LINE), past=past_curves(best))
    for trial in range(trials):
        view.start(sample(find_sampler("random"), view, 0))
        view.tell(trial, 1, told(view.get_all_trials(0)[trial].params["x"]), last=False, seconds=1.0)
    return view


def test_past_searches_teach_before_there_are_results_enough() -> None:
    near = [abs(v["x"] - 0.7) < 0.15 for v in chosen(warm_view(0.7, WARM_STARTUP, lambda x: 1 + abs(x - 0.7)))]
    assert np.mean(near) > 0.7
    assert not chosen(view_of(LINE, WARM_STARTUP, lambda v: [(1, 1.0 + abs(v["x"] - 0.7), 1.0)]))
    assert not chosen(warm_view(0.7, WARM_STARTUP - 1, lambda x: 1 + abs(x - 0.7)))


def test_past_searches_that_mislead_are_forgotten() -> None:
    found = chosen(warm_view(0.2, 60, lambda x: 1 + abs(x - 0.8)))
    assert np.mean([abs(v["x"] - 0.8) < 0.15 for v in found]) > 0.7


def test_the_trees_of_past_searches_become_fewer_and_have_the_scale_of_the_search() -> None:
    encoding = Encoding(distributions(LINE))
    past = PastForest(encoding, past_curves(0.5))
    lent = []
    for count in (2, FADING, 20 * FADING):
        x = np.linspace(0.0, 1.0, count)
        inputs, targets = np.column_stack([x, np.zeros(count)]), 7 + 3 * abs(x - 0.5)
        mixed = past.lend(Forest(inputs, targets, TREES, seed=0), inputs, targets)
        lent.append(mixed.lent)
        assert mixed.predict(inputs).shape == (TREES, count)
    assert lent[0] > lent[1] == TREES // 2 > lent[2] >= 1
    assert np.allclose(mixed.predict(inputs)[: mixed.lent].mean(axis=0), targets, atol=0.25)
    flat = past.lend(Forest(inputs, -targets, TREES, seed=0), inputs, -targets)
    assert flat.slope == 0  # what past searches found best is worst here
