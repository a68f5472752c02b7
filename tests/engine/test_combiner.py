from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.engine.combiner import runs, spread
from ripieno.engine.request import ExecutionPlan, Request
from ripieno.engine.ring import RequestSlice
from ripieno.tasks.combiners import combine


def request_slice(start: int, stop: int, plan: ExecutionPlan) -> RequestSlice:
    return RequestSlice(Request(stop - start, plan, 0), 0, start, stop, 0.0, [], 0, frozenset())


def test_only_neighbours_with_one_plan_that_do_not_meet_at_the_buffers_end_are_combined_together():
    whole, alone = ExecutionPlan((0, 1)), ExecutionPlan((0,))
    slices = [
        request_slice(5, 6, whole),
        request_slice(6, 7, whole),
        request_slice(7, 8, alone),
        request_slice(8, 10, alone),
        request_slice(11, 12, alone),
    ]
    assert [(plan, [s.start for s in run]) for plan, run in runs(slices, 8)] == [
        (whole, [5, 6]),
        (alone, [7]),
        (alone, [8]),
        (alone, [11]),
    ]


def cube(members=4, samples=6, classes=3, seed=0):
    raw = np.random.default_rng(seed).random((members, samples, classes), np.float32)
    return raw / raw.sum(2, keepdims=True)


EQUAL = np.full(4, 0.25, np.float32)


def test_the_spread_is_the_deviation_of_the_answered_class():
    predictions = np.array([[[0.9, 0.1]], [[0.5, 0.5]]], np.float32)
    weights = np.array([0.5, 0.5], np.float32)
    np.testing.assert_allclose(spread(predictions, combine(predictions), weights), [0.2], rtol=1e-5)


def test_the_spread_counts_a_member_by_its_weight():
    # of the answered class 0.9, 0.5 and 0.5 with weights 3, 1, 0: mean 0.8, variance 0.75 * 0.01 + 0.25 * 0.09
    predictions = np.array([[[0.9, 0.1]], [[0.5, 0.5]], [[0.5, 0.5]]], np.float32)
    weights = np.array([0.75, 0.25, 0.0], np.float32)
    answer = combine(predictions, weights, "weighted")
    np.testing.assert_allclose(spread(predictions, answer, weights), [0.03**0.5], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(1, 6))
def test_the_spread_is_the_square_root_of_the_weighted_variance(seed, members):
    predictions = cube(members, 7, 4, seed)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members)).astype(np.float32)
    answer = combine(predictions, weights, "weighted")
    for sample, found in enumerate(spread(predictions, answer, weights)):
        chosen = predictions[:, sample, answer[sample].argmax()].astype(np.float64)
        variance = np.average((chosen - np.average(chosen, weights=weights)) ** 2, weights=weights)
        assert found == pytest.approx(variance**0.5, abs=1e-5)


def test_members_that_agree_have_no_spread():
    predictions = np.repeat(cube(1), 4, axis=0)
    np.testing.assert_allclose(spread(predictions, predictions[0], EQUAL), 0, atol=1e-6)


def test_the_spread_of_large_finite_numbers_is_finite():
    predictions = np.array([[[3e38, 0]], [[1.0, 0]]], np.float32)
    half = np.full(2, 0.5, np.float32)
    np.testing.assert_allclose(spread(predictions, predictions[0], half), [1.5e38], rtol=1e-6)
