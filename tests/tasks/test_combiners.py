"""Scoring, serving and export use the same combiner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.engine.combiner import combine as served
from ripieno.selection.combine import combine as scored
from ripieno.tasks.combiners import median, vote
from ripieno.types import Combiner


@pytest.mark.parametrize("combiner", ["mean", "weighted", "vote", "median"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_scored_is_what_is_served(combiner: Combiner, data: st.DataObject) -> None:
    members, samples, classes = data.draw(st.tuples(*[st.integers(1, 6)] * 2, st.integers(2, 5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    predictions = rng.dirichlet(np.full(classes, 0.3), (members, samples)).astype(np.float32)
    hard = rng.random(members) < 0.5  # members that are certain of one class
    predictions[hard] = np.eye(classes, dtype=np.float32)[predictions[hard].argmax(axis=2)]
    weights = rng.integers(1, 4, members) / 10 if combiner in ("weighted", "vote") else np.ones(members)
    offline = scored(predictions, weights.tolist(), combiner)
    online = served(combiner, predictions, weights / weights.sum())
    np.testing.assert_allclose(online, offline, atol=2e-6)
    if combiner == "vote":
        assert (online.argmax(axis=1) == offline.argmax(axis=1)).all()


def test_equal_votes_are_equal_in_whatever_order_they_come() -> None:
    """The lowest class must win although 0.1 + 0.2 is not 0.3 in floating point."""
    votes = np.eye(2, dtype=np.float32)[[1, 1, 0]][:, None]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        shares = vote(votes[order], np.array([0.1, 0.2, 0.3])[order])
        assert shares[0, 0] == shares[0, 1]
        assert shares.argmax() == 0


def test_members_sure_of_different_classes_have_the_mean_for_their_median() -> None:
    sure = np.eye(4, dtype=np.float32)[[1, 2, 3]][:, None]
    np.testing.assert_allclose(median(sure), [[0, 1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


def test_a_tie_of_weighted_means_goes_to_the_lowest_class_wherever_it_is_combined() -> None:
    # 3/7 of certain members against 1/7 and 2/7: mathematically equal, but different if the sevenths are rounded first
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 4, rng.integers(2, 8))
        sure = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (len(counts), 5))]
        right = np.tensordot(counts, sure, 1).argmax(1)
        weights = counts / counts.sum()
        assert (scored(sure, weights.tolist(), "weighted").argmax(1) == right).all()
        assert (served("weighted", sure, weights.astype(np.float32)).argmax(1) == right).all()
