from __future__ import annotations

import numpy as np
import pytest

from ripieno.backends.difference import largest_difference


def test_a_difference_of_probabilities_is_absolute() -> None:
    expected = np.float32([[0.5, 0.5], [0.9, 0.1]])
    assert largest_difference(expected + np.float32([[0, 0], [0, 0.25]]), expected, "sigmoid") == pytest.approx(0.25)


def test_a_difference_of_values_is_relative_to_the_largest_of_the_target() -> None:
    """A target in the thousands and one in the hundredths count alike, in any unit."""
    expected = np.float32([[1000, -0.04], [-4000, 0.01]])
    predictions = expected + np.float32([[4, 0], [0, 0.0004]])
    assert largest_difference(predictions, expected, "identity") == pytest.approx(0.01, rel=1e-3)
    assert largest_difference(predictions * 64, expected * 64, "identity") == pytest.approx(0.01, rel=1e-3)


def test_equal_zeros_do_not_differ() -> None:
    nothing = np.zeros((3, 1), np.float32)
    assert largest_difference(nothing, nothing, "identity") == 0
