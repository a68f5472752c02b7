"""Predictions of samplers: kept in the journal, compared with results, correlated by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from scipy.stats import spearmanr

from ripieno.search import SAMPLERS, Continuous, Settings, Simulation, Space, simulate
from ripieno.search.constraints import Bounds, parse_constraints
from ripieno.search.journal import Journal
from ripieno.search.predictions import PredictionChecks, StepCorrelation, TrialPrediction, rank_correlation
from ripieno.types import Configuration

SPACE = Space("one", "resnet", {"x": Continuous(0.0, 1.0)})


class Oracle(RandomSampler):
    """Sampler that knows the losses of trials, and predicts the opposite of the seconds."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(study.ranges)  # type: ignore[attr-defined]

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        x = self.sample_independent(study, trial, "x", search_space["x"])
        predictions: dict[int, TrialPrediction] = study.predictions  # type: ignore[attr-defined]
        predictions[trial.number] = TrialPrediction(1 + trial.number // 15, 3, loss=x, seconds=-x)
        return {"x": x}


def curve(configuration: Configuration, epoch: int) -> tuple[float, float]:
    x = float(configuration["x"])
    return x / epoch, (1 + x) * epoch


def test_a_prediction_is_kept_in_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = Journal(path, SPACE, lambda seed: Oracle(seed=seed), 0)
    values = [journal.configuration(trial)["x"] for trial in range(20)]
    journal.sync()
    found = Journal(path, SPACE, "random", 0).predictions
    assert found == {n: TrialPrediction(1 + n // 15, 3, x, -x) for n, x in enumerate(values)}


def test_values_drawn_in_place_of_refused_ones_have_no_prediction() -> None:
    class Stubborn(Oracle):
        def sample_independent(self, *_: Any) -> float:
            return 0.9

    bounds = Bounds(parse_constraints(["x<=0.5"]), lambda configuration: {"x": float(configuration["x"])})
    journal = Journal(None, SPACE, lambda seed: Stubborn(seed=seed), 0, bounds=bounds)
    assert float(journal.configuration(0)["x"]) <= 0.5
    assert journal.predictions == {}


def test_a_search_compares_predictions_with_the_results_at_their_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "oracle", lambda seed: Oracle(seed=seed))
    settings = Settings(SPACE, "asha+oracle", epochs=9, trials=30)
    run = simulate(settings, curve, 2)
    assert [(s.step, s.trials) for s in run.summary.correlations] == _reached(run)
    known = [step for step in run.summary.correlations if step.trials > 2]
    assert known
    for step in known:
        assert step.loss == pytest.approx(1)
        assert step.seconds == pytest.approx(-1)
    assert simulate(Settings(SPACE, "asha", epochs=9, trials=10), curve, 2).summary.correlations == ()


def _reached(run: Simulation) -> list[tuple[int, int]]:
    trials = [o.job.trial for o in run.outcomes if o.job.stop == 3]
    return sorted(Counter(1 + trial // 15 for trial in trials).items())


def test_seconds_are_those_of_all_jobs_to_the_epoch() -> None:
    checks = PredictionChecks({4: TrialPrediction(2, 3, 0.5, 10.0)})
    for trial, epoch, loss in [(4, 1, 0.9), (5, 3, 0.8), (4, 3, 0.6), (4, 9, 0.2)]:
        checks.add(trial, epoch, loss, 4.0)
    assert [(one.trial, one.loss, one.seconds) for one in checks.compared] == [(4, 0.6, 8.0)]
    assert checks.correlations() == (StepCorrelation(2, 1, None, None),)


def test_a_failed_trial_is_not_compared() -> None:
    checks = PredictionChecks({0: TrialPrediction(1, 1, 0.5, 1.0)})
    checks.add(0, 1, None, 1.0)
    assert checks.compared == ()
    assert checks.correlations() == ()


def test_the_rank_correlation_is_spearmans() -> None:
    pairs = [(0.1, 3.0), (0.2, 1.0), (0.2, 2.0), (0.9, 2.0), (0.4, 9.0)]
    expected = spearmanr(*zip(*pairs, strict=True)).statistic
    assert rank_correlation([*pairs, (None, 5.0)]) == pytest.approx(expected)
    assert rank_correlation(pairs[:2]) is None
    assert rank_correlation([(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]) is None


def test_a_trial_of_which_nothing_was_predicted_is_not_compared() -> None:
    checks = PredictionChecks({0: TrialPrediction(1, 1), 1: TrialPrediction(1, 1, loss=0.5)})
    for trial in (0, 1):
        checks.add(trial, 1, 0.4, 2.0)
    assert [one.trial for one in checks.compared] == [1]
