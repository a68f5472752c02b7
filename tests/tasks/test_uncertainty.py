from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.errors import SelectionError
from ripieno.tasks import pixels
from ripieno.tasks.combiners import combine, member_shares
from ripieno.tasks.registry import TASKS
from ripieno.tasks.uncertainty import (
    QUANTILES,
    abstention_threshold,
    entropy,
    least_samples,
    mutual_information,
    quantile_among,
    quantiles_of,
    risk_coverage,
    risk_coverage_area,
)
from ripieno.types import Ensemble


def probabilities(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.5), shape[:-1]).astype(np.float32)


def test_the_entropy_of_classes_is_that_of_scipy_and_zero_where_one_is_certain():
    values = probabilities(50, 7)
    np.testing.assert_allclose(entropy(values, "softmax"), scipy.stats.entropy(values, axis=1), rtol=1e-4, atol=1e-6)
    assert entropy(np.eye(3, dtype=np.float16) * np.float16(1.001), "softmax").tolist() == [0, 0, 0]


def test_the_entropy_of_labels_is_the_sum_of_theirs():
    values = np.random.default_rng(0).random((20, 3), np.float32)
    each = scipy.stats.entropy(np.stack([values, 1 - values]), axis=0)
    np.testing.assert_allclose(entropy(values, "sigmoid"), each.sum(axis=1), rtol=1e-5)


def test_the_numbers_of_a_picture_are_means_over_its_pixels_in_any_blocks(monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 1)  # a sample at a time
    members = probabilities(3, 2, 4, 5, 6)
    weights = np.array([0.5, 0.3, 0.2])
    flat = members.reshape(3, 2 * 20, 6)
    np.testing.assert_allclose(
        entropy(members[0], "softmax"), entropy(flat[0], "softmax").reshape(2, 20).mean(axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(
        mutual_information(members, weights, "softmax"),
        mutual_information(flat, weights, "softmax").reshape(2, 20).mean(axis=1),
        rtol=1e-4,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(1, 5), activation=st.sampled_from(["softmax", "sigmoid"]))
def test_the_mutual_information_is_the_mean_divergence_of_a_member_from_the_mean(seed, members, activation):
    predictions = probabilities(members, 6, 4, seed=seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members))
    found = mutual_information(predictions, weights, activation)
    both = np.stack([predictions, 1 - predictions]) if activation == "sigmoid" else predictions[None]
    mean = np.tensordot(both.astype(np.float64), weights, ([1], [0]))
    axis = 0 if activation == "sigmoid" else 2
    divergence = [scipy.stats.entropy(both[:, m].astype(np.float64), mean, axis=axis) for m in range(members)]
    expected = np.tensordot(weights, np.reshape(divergence, (members, 6, -1)).sum(axis=2), 1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.min() >= 0


def test_members_that_agree_have_no_mutual_information_however_uncertain_they_are():
    flat = np.full((3, 1, 4), 0.25, np.float32)
    assert mutual_information(flat, np.full(3, 1 / 3), "softmax")[0] == pytest.approx(0, abs=1e-6)
    apart = np.eye(4, dtype=np.float32)[:, None]
    assert mutual_information(apart, np.full(4, 0.25), "softmax")[0] == pytest.approx(np.log(4), rel=1e-5)


def test_the_disagreement_about_values_keeps_its_order_in_other_units():
    kind = TASKS["regression"]
    values = np.random.default_rng(0).normal(size=(4, 30, 2)).astype(np.float32)
    weights = np.full(4, 0.25)
    found = kind.member_disagreement(values, weights)
    np.testing.assert_allclose(found, np.prod(values.std(axis=0), axis=1) ** 0.5, rtol=1e-5)
    scaled = kind.member_disagreement(values * np.float32([1, 1000]), weights)
    assert np.argsort(found).tolist() == np.argsort(scaled).tolist()
    assert kind.member_disagreement(np.ones((2, 3, 1), np.float32), np.full(2, 0.5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("combiner", "shares"), [("mean", [0.5, 0.5]), ("weighted", [0.75, 0.25])])
def test_the_shares_of_members_are_those_of_what_is_answered(combiner, shares):
    ensemble = Ensemble("B", ("a", "b"), (0.75, 0.25), "smobf", {}, {}, {}, combiner=combiner)
    assert member_shares(ensemble).tolist() == shares
    predictions = probabilities(2, 5, 3)
    np.testing.assert_allclose(
        combine(predictions, ensemble.weights, combiner), np.tensordot(shares, predictions, 1), rtol=1e-5
    )


def test_a_quantile_is_the_share_of_validation_samples_with_at_most_the_value():
    values = np.random.default_rng(0).exponential(size=5000)
    quantiles = quantiles_of(values)
    assert len(quantiles) == QUANTILES
    seen = np.sort(values)[::50]
    np.testing.assert_allclose(quantile_among(seen, quantiles), np.arange(0, 5000, 50) / 5000, atol=0.002)
    assert quantile_among(np.array([-1, values.min(), values.max(), 1e9]), quantiles).tolist() == [0, 0, 1, 1]


def test_a_quantile_among_equal_ones_is_the_last():
    assert quantile_among(np.array([-0.1, 0.0, 0.5, 1.0, 2.0]), [0, 0, 0, 1, 1]).tolist() == pytest.approx(
        [0, 0.5, 0.625, 1, 1]
    )
    assert quantile_among(np.array([0.0, 1.0, 2.0]), [1, 1, 1]).tolist() == [0, 1, 1]


def test_the_curve_answers_the_most_certain_samples_first():
    curve = risk_coverage(np.array([0.5, 0.9, 0.7, 0.6]), np.array([1, 0, 0, 1]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == [0, 0, 1 / 3, 0.5]
    assert curve.certainty.tolist() == [0.9, 0.7, 0.6, 0.5]
    assert risk_coverage_area(np.array([0.5, 0.9, 0.7, 0.6]), np.array([1, 0, 0, 1])) == pytest.approx(5 / 24)


def test_samples_of_equal_certainty_are_answered_together_and_their_area_is_that_of_a_random_order():
    certainty, errors = np.array([0.9, 0.5, 0.5, 0.5]), np.array([0.0, 1, 0, 0])
    assert risk_coverage(certainty, errors).coverage.tolist() == [0.25, 1]
    orders = [[0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 0, 1]]
    areas = [risk_coverage_area(np.array([4.0, 3, 2, 1]), np.array(order)) for order in orders]
    assert risk_coverage_area(certainty, errors) == pytest.approx(np.mean(areas))


def test_answers_above_the_threshold_have_at_most_the_error_that_was_wanted():
    rng = np.random.default_rng(0)
    errors_of_answers, answered = [], []
    for _ in range(300):
        certainty = rng.random(2 * 300)
        wrong = rng.random(600) > 0.6 + 0.4 * certainty
        threshold = abstention_threshold(certainty[:300], wrong[:300], 0.1)
        kept = certainty[300:] >= threshold
        answered.append(kept.mean())
        errors_of_answers.append(wrong[300:][kept].mean() if kept.any() else 0.0)
    assert 0.07 < np.mean(errors_of_answers) <= 0.1
    assert np.mean(answered) == pytest.approx(0.5, abs=0.08)  # the error above certainty c is 0.2 (1 - c)


def test_samples_of_the_threshold_are_answered_and_ties_are_not_split():
    certainty = np.repeat([0.9, 0.6, 0.3], 50)
    errors = np.repeat([0.0, 0.0, 1.0], 50)
    assert abstention_threshold(certainty, errors, 0.02) == 0.6
    errors[75] = 1
    errors[76] = 1
    assert abstention_threshold(certainty, errors, 0.02) == 0.9


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan")])
def test_an_error_outside_0_to_1_is_refused(target):
    with pytest.raises(SelectionError, match=r"must be between 0 and 1, such as 0\.02"):
        abstention_threshold(np.ones(100), np.zeros(100), target)


def test_too_few_samples_and_an_error_out_of_reach_are_refused():
    assert [least_samples(e) for e in (0.02, 0.1, 0.5, 0.03)] == [49, 9, 1, 33]
    with pytest.raises(SelectionError, match=r"48 validation samples are too few for an error of 0.02: .* at least 49"):
        abstention_threshold(np.ones(48), np.zeros(48), 0.02)
    assert abstention_threshold(np.ones(49), np.zeros(49), 0.02) == 1
    with pytest.raises(SelectionError, match=r"the least on validation samples is 0\.5$"):
        abstention_threshold(np.ones(99), np.arange(99) % 2, 0.02)
