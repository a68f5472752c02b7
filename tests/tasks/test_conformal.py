"""Prediction sets and intervals: coverage on exchangeable samples, agreement with MAPIE, classes, seeds, bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from ripieno.errors import SelectionError
from ripieno.tasks.conformal import (
    fit_coverage,
    fit_pixel_coverage,
    interval,
    least_samples,
    prediction_set,
    share_held,
)
from ripieno.types import IGNORED, Coverage, CoverageScore, Task

CLASSES, LABELS = 5, 6
CLASSIFICATION = Task("classification", (CLASSES,), tuple("abcde"))
MULTILABEL = Task("multilabel", (LABELS,), tuple("pqrstu"))
SEGMENTATION = Task("segmentation", (6, 7, 3), ("sky", "road", "car"))
REGRESSION = Task("regression", (2,), ("x", "y"))
CLASS_SCORES: tuple[CoverageScore, ...] = ("lac", "aps", "raps")
VALUE_SCORES: tuple[CoverageScore, ...] = ("residual", "spread", "root")


def classes(samples: int, seed: int, sharpness: float = 1.5) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities that are too certain, and classes of which the last one is hard to tell from the first."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, CLASSES, samples)
    logits = generator.normal(size=(samples, CLASSES))
    logits[np.arange(samples), np.where(truth == CLASSES - 1, 0, truth)] += 2.0
    shares = np.exp(sharpness * logits)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), truth


def labels(samples: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities of labels, some samples without any."""
    generator = np.random.default_rng(seed)
    truth = (generator.random((samples, LABELS)) < np.linspace(0.1, 0.6, LABELS)).astype(np.uint8)
    logits = generator.normal(size=truth.shape) + 2.0 * truth - 1
    return (1 / (1 + np.exp(-2 * logits))).astype(np.float32), truth


def values(samples: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Positive values with noise that grows with them, their targets, and a spread that knows half of the noise."""
    generator = np.random.default_rng(seed)
    truth = generator.gamma(2.0, 10.0, size=(samples, 2))
    noise = np.sqrt(truth) * generator.gamma(2.0, 0.5, size=truth.shape)
    predicted = truth + noise * generator.normal(size=truth.shape)
    return predicted.astype(np.float32), truth.astype(np.float32), noise.astype(np.float32)


def pixels(samples: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Probabilities of pixels of images of which some are hard as a whole, and masks with ignored pixels."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, (samples, 6, 7)).astype(np.uint8)
    truth[generator.random(truth.shape) < 0.1] = IGNORED
    truth[generator.random(samples) < 0.3] %= 2  # without the last class; 255 becomes 1
    sharpness = generator.gamma(2.0, 1.5, samples)[:, None, None, None]
    logits = generator.normal(size=(samples, 6, 7, 3)) + sharpness * (truth[..., None] == np.arange(3))
    shares = np.exp(logits)
    return (shares / shares.sum(axis=-1, keepdims=True)).astype(np.float32), truth


def assert_in_interval(held: float, samples: int, level: float, fitted: int) -> None:
    """The number of samples held is that of a coverage whose own deviation is that of `fitted` samples."""
    error = np.sqrt(level * (1 - level) * (1 / samples + 1 / fitted))
    assert abs(held - level) < 3.3 * error


def test_least_number_of_samples_is_exact() -> None:
    assert [least_samples(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    predictions, truth = classes(9, 0)
    assert fit_coverage(predictions, truth, CLASSIFICATION, 0.9).samples == 9
    with pytest.raises(SelectionError, match=r"coverage 0\.9 needs at least 9 validation samples, and there are 8: "):
        fit_coverage(predictions[:8], truth[:8], CLASSIFICATION, 0.9)


@pytest.mark.parametrize("score", CLASS_SCORES)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_sets_of_classes_hold_their_coverage(score: CoverageScore, level: float) -> None:
    coverage = fit_coverage(*classes(2000, 1), CLASSIFICATION, level, score=score)
    predictions, truth = classes(20000, 2)
    sets = prediction_set(predictions, coverage)
    assert_in_interval(share_held(sets, truth).mean(), len(truth), level, 2000)
    assert coverage.sizes[0] == pytest.approx(sets.sum(axis=1).mean(), rel=0.05)


def test_coverage_of_few_samples_is_that_of_the_beta_binomial() -> None:
    """The mean coverage over many draws of 19 samples is 19 of 20 ranks at 0.95, not the quantile's 18."""
    predictions, truth = classes(19 * 4000, 3)
    missed = 0
    for start in range(0, len(truth), 38):
        half = slice(start, start + 19), slice(start + 19, start + 38)
        coverage = fit_coverage(predictions[half[0]], truth[half[0]], CLASSIFICATION, 0.95)
        missed += int((share_held(prediction_set(predictions[half[1]], coverage), truth[half[1]]) == 0).sum())
    low, high = binom.interval(0.9999, 38000, 0.05)
    assert low * 0.9 < missed < high * 1.1  # draws share their thresholds


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_sets_grow_with_the_level(score: CoverageScore) -> None:
    fitted = classes(500, 4)
    predictions, _ = classes(1000, 5)
    former = np.zeros(predictions.shape, bool)
    for level in (0.5, 0.7, 0.9, 0.99):
        coverage = fit_coverage(*fitted, CLASSIFICATION, level, score=score)
        if score == "raps":  # another rank is another score
            coverage = dataclasses.replace(coverage, penalty=0.01, free_classes=2)
        sets = prediction_set(predictions, coverage)
        assert (sets >= former).all()
        former = sets


def test_coverage_by_class_holds_for_the_class_that_is_hard_to_tell() -> None:
    fitted, (predictions, truth) = classes(4000, 6), classes(20000, 7)
    hard = truth == CLASSES - 1
    together = prediction_set(predictions, fit_coverage(*fitted, CLASSIFICATION, 0.9))
    assert share_held(together, truth)[hard].mean() < 0.75
    each = fit_coverage(*fitted, CLASSIFICATION, 0.9, per_class=True)
    held = share_held(prediction_set(predictions, each), truth)
    assert len(each.thresholds) == CLASSES
    for index in range(CLASSES):
        of_class = truth == index
        assert_in_interval(held[of_class].mean(), of_class.sum(), 0.9, (fitted[1] == index).sum())


def test_random_shares_are_those_of_the_seed_and_the_sample() -> None:
    fitted, (predictions, _) = classes(300, 8), classes(400, 9)
    first, again, other = (fit_coverage(*fitted, CLASSIFICATION, 0.7, score="aps", seed=s) for s in (1, 1, 2))
    sets = prediction_set(predictions, first)
    assert first == again
    np.testing.assert_array_equal(sets, prediction_set(predictions, again))
    assert (sets != prediction_set(predictions, other)).any()
    alone = np.concatenate([prediction_set(predictions[i : i + 1], first) for i in reversed(range(len(predictions)))])
    np.testing.assert_array_equal(sets, alone[::-1])


def test_random_shares_are_uniform_and_independent_of_the_order_of_classes() -> None:
    from scipy.stats import kstest

    from ripieno.tasks.conformal import _random_shares

    predictions, truth = classes(5000, 10)
    shares = _random_shares(predictions, 0)
    assert kstest(shares, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(shares, predictions.max(axis=1))[0, 1]) < 0.05
    assert abs(np.corrcoef(shares, predictions[np.arange(5000), truth])[0, 1]) < 0.05


def test_raps_has_fewer_large_sets_than_aps() -> None:
    fitted, (predictions, _) = classes(2000, 11, sharpness=0.7), classes(5000, 12, sharpness=0.7)
    largest = {
        score: prediction_set(predictions, fit_coverage(*fitted, CLASSIFICATION, 0.9, score=score)).sum(axis=1).mean()
        for score in CLASS_SCORES
    }
    assert largest["lac"] <= largest["raps"] <= largest["aps"]


class Given:
    """A classifier or regressor, for MAPIE, whose inputs are its predictions."""

    def __init__(self, count: int = CLASSES) -> None:
        self.classes_ = np.arange(count)

    def fit(self, inputs: Any, targets: Any = None) -> Given:
        return self

    def predict_proba(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(inputs)

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(inputs.argmax(axis=1) if inputs.shape[1] > 1 else inputs[:, 0])

    def __sklearn_is_fitted__(self) -> bool:
        return True


def test_sets_by_probability_are_those_of_mapie() -> None:
    from mapie.classification import SplitConformalClassifier

    (fitted, targets), (predictions, _) = classes(333, 13), classes(500, 14)
    fitted, predictions = fitted.astype(np.float64), predictions.astype(np.float64)
    fitted, predictions = (p / p.sum(axis=1, keepdims=True) for p in (fitted, predictions))
    peer = SplitConformalClassifier(Given(), confidence_level=0.83, conformity_score="lac")
    peer.conformalize(fitted, targets)
    theirs = peer.predict_set(predictions)[1][:, :, 0]
    ours = prediction_set(predictions, fit_coverage(fitted, targets, CLASSIFICATION, 0.83))
    np.testing.assert_array_equal(ours, theirs)


def test_intervals_are_those_of_mapie() -> None:
    from mapie.regression import SplitConformalRegressor

    (fitted, targets, _), (predictions, _, _) = values(333, 15), values(500, 16)
    peer = SplitConformalRegressor(Given(), confidence_level=0.83)
    peer.conformalize(fitted[:, :1].astype(np.float64), targets[:, 0].astype(np.float64))
    theirs = peer.predict_interval(predictions[:, :1].astype(np.float64))[1][:, :, 0]
    one = Task("regression", (1,), ("x",))
    coverage = fit_coverage(fitted[:, :1], targets[:, :1], one, 0.83, score="residual")
    low, high = interval(predictions[:, :1], coverage)
    np.testing.assert_allclose(np.hstack([low, high]), theirs, rtol=1e-5)


def test_labels_are_missed_as_rarely_as_asked() -> None:
    coverage = fit_coverage(*labels(3000, 17), MULTILABEL, 0.9)
    predictions, truth = labels(20000, 18)
    held = share_held(prediction_set(predictions, coverage), truth)
    some = truth.any(axis=1)
    assert np.isnan(held[~some]).all()
    assert coverage.samples < 3000  # those with a label
    assert held[some].mean() == pytest.approx(0.9, abs=0.01)


def test_the_threshold_of_labels_is_the_least_that_controls_the_risk() -> None:
    """The written definition: (sum of losses + 1) / (n + 1) is at most 0.1, and is above it one score lower."""
    predictions, truth = labels(200, 19)
    coverage = fit_coverage(predictions, truth, MULTILABEL, 0.9)

    def risk(threshold: float) -> float:
        held = share_held(prediction_set(predictions, dataclasses.replace(coverage, thresholds=(threshold,))), truth)
        losses = 1 - held[~np.isnan(held)]
        return float((losses.sum() + 1) / (len(losses) + 1))

    scores = np.unique(1 - predictions[truth > 0].astype(np.float64))
    below = scores[scores < coverage.thresholds[0]]
    assert risk(coverage.thresholds[0]) <= 0.1 < risk(below[-1])


def test_each_label_holds_its_coverage() -> None:
    coverage = fit_coverage(*labels(4000, 20), MULTILABEL, 0.9, per_class=True)
    predictions, truth = labels(20000, 21)
    sets = prediction_set(predictions, coverage)
    for index in range(LABELS):
        true = truth[:, index] > 0
        assert_in_interval(sets[true, index].mean(), true.sum(), 0.9, 400)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_pixels_are_missed_as_rarely_as_asked(level: float) -> None:
    coverage = fit_coverage(*pixels(2000, 34), SEGMENTATION, level)
    predictions, truth = pixels(4000, 35)
    sets = prediction_set(predictions, coverage)
    held = share_held(sets, truth)
    assert held.mean() == pytest.approx(level, abs=0.012)
    assert coverage.sizes[0] == pytest.approx(sets[truth != IGNORED].sum(axis=-1).mean(), rel=0.03)


def test_the_threshold_of_pixels_controls_the_risk_to_one_part_in_a_hundred() -> None:
    predictions, truth = pixels(100, 36)
    truth[3] = IGNORED
    coverage = fit_coverage(predictions, truth, SEGMENTATION, 0.9)

    def risk(threshold: float) -> float:
        held = share_held(prediction_set(predictions, dataclasses.replace(coverage, thresholds=(threshold,))), truth)
        losses = 1 - held[~np.isnan(held)]
        return float((losses.sum() + 1) / (len(losses) + 1))

    assert coverage.samples == 99
    threshold = coverage.thresholds[0]
    probability = 1 - threshold
    assert risk(threshold) <= 0.1 < risk(1 - 1.02 * probability)


def test_pixels_of_each_class_hold_their_coverage() -> None:
    predictions, truth = pixels(2000, 37)
    coverage = fit_coverage(predictions, truth, SEGMENTATION, 0.9, per_class=True)
    assert len(coverage.thresholds) == 3
    predictions, truth = pixels(4000, 38)
    sets = prediction_set(predictions, coverage)
    for index in range(3):
        held = share_held(sets, np.where(truth == index, truth, IGNORED))
        assert np.nanmean(held) == pytest.approx(0.9, abs=0.015)


def test_pixels_are_read_in_blocks_of_samples() -> None:
    predictions, truth = pixels(90, 39)
    parts = [(predictions[i : i + 20], truth[i : i + 20]) for i in range(0, 90, 20)]
    for per_class in (False, True):
        whole = [fit_coverage(predictions, truth, SEGMENTATION, level, per_class=per_class) for level in (0.9, 0.6)]
        once = iter(parts)
        assert fit_pixel_coverage(once, SEGMENTATION, (0.9, 0.6), per_class=per_class) == tuple(whole)
    (held_out,) = fit_pixel_coverage(iter(parts), SEGMENTATION, (0.9,), held_out=True)
    assert held_out == fit_coverage(predictions, truth, SEGMENTATION, 0.9, held_out=True)


def test_a_class_without_pixels_is_named() -> None:
    predictions, truth = pixels(50, 40)
    truth[truth == 2] = 1
    with pytest.raises(SelectionError, match="at least 9 validation samples of each class, and 'car' has none"):
        fit_coverage(predictions, truth, SEGMENTATION, 0.9, per_class=True)


@pytest.mark.parametrize("score", VALUE_SCORES)
def test_intervals_hold_their_coverage_for_each_target(score: CoverageScore) -> None:
    predictions, truth, spread = values(2000, 22)
    coverage = fit_coverage(predictions, truth, REGRESSION, 0.9, score=score, spread=spread)
    predictions, truth, spread = values(20000, 23)
    low, high = interval(predictions, coverage, spread)
    assert low.dtype == np.float32
    assert low.shape == truth.shape
    for held in ((low <= truth) & (truth <= high)).mean(axis=0):
        assert_in_interval(held, 20000, 0.9, 2000)
    np.testing.assert_allclose((high - low).mean(axis=0), coverage.sizes, rtol=0.05)


def test_scaled_intervals_are_narrower_where_the_scale_knows_the_noise() -> None:
    predictions, truth, spread = values(3000, 24)
    widths = {s: fit_coverage(predictions, truth, REGRESSION, 0.9, score=s, spread=spread).sizes for s in VALUE_SCORES}
    for plain, scaled in zip(widths["residual"], widths["spread"], strict=True):
        assert scaled < 0.97 * plain
    assert max(widths["root"]) < max(widths["residual"])


def test_intervals_of_a_single_member_are_those_of_the_residual() -> None:
    predictions, truth, _ = values(100, 25)
    still = np.zeros_like(predictions)
    scaled = fit_coverage(predictions, truth, REGRESSION, 0.9, score="spread", spread=still)
    plain = fit_coverage(predictions, truth, REGRESSION, 0.9, score="residual")
    np.testing.assert_allclose(interval(predictions, scaled, still), interval(predictions, plain), rtol=1e-5)


def test_exact_predictions_have_intervals_of_no_width() -> None:
    _, truth, spread = values(100, 25)
    for score in VALUE_SCORES:
        coverage = fit_coverage(truth, truth, REGRESSION, 0.9, score=score, spread=0 * spread)
        np.testing.assert_array_equal(interval(truth, coverage, spread), [truth, truth])


def test_a_spread_or_a_prediction_of_zero_keeps_an_interval() -> None:
    predictions, truth, spread = values(100, 26)
    for score in ("spread", "root"):
        coverage = fit_coverage(predictions, truth, REGRESSION, 0.9, score=score, spread=spread)
        low, high = interval(np.zeros((1, 2)), coverage, np.zeros((1, 2)))
        assert (high > low).all()


@pytest.mark.parametrize("level", [0, 1, -0.1, 1.5, float("nan"), "high"])
def test_a_level_outside_0_and_1_is_refused(level: Any) -> None:
    with pytest.raises(SelectionError, match=r"^coverage .* is invalid: expected a number between 0 and 1"):
        fit_coverage(*classes(100, 27), CLASSIFICATION, level)


def test_a_score_of_another_task_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"score 'root' does not fit task classification: expected lac, aps, raps"):
        fit_coverage(*classes(100, 28), CLASSIFICATION, 0.9, score="root")
    predictions, truth, _ = values(100, 29)
    with pytest.raises(SelectionError, match="coverage by class does not fit task regression"):
        fit_coverage(predictions, truth, REGRESSION, 0.9, score="residual", per_class=True)


def test_a_class_with_too_few_samples_is_named() -> None:
    predictions, truth = classes(400, 30)
    lacking = truth != 3
    with pytest.raises(SelectionError, match=r"at least 9 validation samples of each class, and 'd' has none: "):
        fit_coverage(predictions[lacking], truth[lacking], CLASSIFICATION, 0.9, per_class=True)
    predictions, truth = labels(30, 31)
    with pytest.raises(SelectionError, match=r"at least 99 .* of each label, and 'p' has \d+ \(so have 5 more\): "):
        fit_coverage(predictions, truth, MULTILABEL, 0.99, per_class=True)


def test_labels_need_samples_with_a_label() -> None:
    predictions, truth = labels(30, 32)
    truth[8:] = 0
    with pytest.raises(SelectionError, match=r"needs at least 9 validation samples with a label, and there are \d: "):
        fit_coverage(predictions, truth, MULTILABEL, 0.9)


def test_thresholds_are_numbers_that_json_keeps() -> None:
    coverage = fit_coverage(*classes(100, 33), CLASSIFICATION, np.float64(0.9), per_class=False)
    assert isinstance(coverage, Coverage)
    assert {type(value) for value in (coverage.level, *coverage.thresholds, *coverage.sizes)} == {float}
