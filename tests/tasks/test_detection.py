"""The area under the ROC curve against scikit-learn's, and its interval against resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ripieno.tasks.detection import detection_area


@pytest.mark.parametrize("digits", [9, 0])
def test_the_area_is_scikit_learns_also_with_ties(digits: int) -> None:
    generator = np.random.default_rng(0)
    known, unknown = generator.normal(0, 1, 200).round(digits), generator.normal(0.7, 1, 90).round(digits)
    truth = np.repeat([0, 1], [200, 90])
    assert detection_area(known, unknown).value == pytest.approx(roc_auc_score(truth, np.append(known, unknown)))


def test_the_interval_holds_the_true_area_as_often_as_it_says() -> None:
    """Of normal numbers a distance d apart the area is the normal distribution's at d / sqrt 2: 0.76 at 1."""
    held = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        found = detection_area(generator.normal(0, 1, 120), generator.normal(1, 1, 60))
        held += found.low <= 0.76025 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_separate_numbers_have_an_area_of_one() -> None:
    assert detection_area(np.arange(5), np.arange(5, 9)) == (1.0, 1.0, 1.0)
