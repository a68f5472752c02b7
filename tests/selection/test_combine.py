from __future__ import annotations

import numpy as np
import pytest

from ripieno.errors import SelectionError
from ripieno.selection.combine import combine

# three members, one sample, three classes
MEMBERS = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.8, 0.1]], [[0.6, 0.1, 0.3]]])


def test_the_mean_is_the_mean() -> None:
    assert combine(MEMBERS)[0] == pytest.approx([1.3 / 3, 1.3 / 3, 0.4 / 3])


def test_weights_are_shares() -> None:
    assert combine(MEMBERS, [2.0, 0.0, 2.0], "weighted")[0] == pytest.approx([0.6, 0.25, 0.15])


def test_a_vote_counts_likeliest_classes_and_heeds_weights() -> None:
    assert combine(MEMBERS, None, "vote")[0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert combine(MEMBERS, [1.0, 8.0, 1.0], "vote")[0] == pytest.approx([0.2, 0.8, 0])


def test_a_median_is_scaled_to_sum_to_one() -> None:
    assert combine(MEMBERS, None, "median")[0] == pytest.approx(np.array([0.6, 0.4, 0.1]) / 1.1)


def test_a_median_of_nothing_is_uniform() -> None:
    disjoint = np.eye(3)[:, None, :]
    assert combine(disjoint, None, "median")[0] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(SelectionError, match="weights"):
        combine(MEMBERS, weights, "weighted")


def test_an_unknown_combiner_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SelectionError, match="expected mean, weighted, vote or median"):
        combine(MEMBERS, None, "mode")  # type: ignore[arg-type]
