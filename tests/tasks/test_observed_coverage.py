"""Coverage that sets and intervals have on samples with targets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from ripieno.tasks.conformal import fit_coverage, prediction_set, share_held
from ripieno.tasks.observed_coverage import PixelCoverage, binomial_interval, observed_coverage
from ripieno.types import IGNORED, Coverage, Task, classification

CLASSES = classification(("a", "b", "c"))
LABELS = Task("multilabel", (2,), ("x", "y"))
VALUES = Task("regression", (2,), ("u", "v"))


@pytest.mark.parametrize(("hits", "samples"), [(0, 20), (20, 20), (17, 20), (450, 500)])
def test_the_interval_is_scipys_exact_one(hits: int, samples: int) -> None:
    expected = binomtest(hits, samples).proportion_ci(0.95, method="exact")
    assert binomial_interval(hits, samples) == pytest.approx((expected.low, expected.high))


def test_classes_are_counted_by_themselves_and_those_without_samples_left_out() -> None:
    predictions = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.45, 0.45, 0.1]])
    coverage = Coverage(0.9, "lac", (0.6,), 100)  # in the set: a probability of 0.4 and more
    rows = observed_coverage(predictions, np.array([0, 0, 1, 1]), CLASSES, coverage)
    assert [(r.name, r.samples, r.value, r.size) for r in rows] == [
        ("all", 4, 0.75, 1.5),
        ("a", 2, 0.5, 1.0),
        ("b", 2, 1.0, 2.0),
    ]
    assert (rows[1].low, rows[1].high) == pytest.approx(binomial_interval(1, 2))


def test_labels_count_where_they_are_true() -> None:
    predictions = np.array([[0.9, 0.8], [0.2, 0.9], [0.7, 0.1]])
    targets = np.array([[1, 1], [1, 0], [0, 0]], np.uint8)
    rows = observed_coverage(predictions, targets, LABELS, Coverage(0.9, "fnr", (0.5,), 100))
    assert [(r.name, r.samples, r.value) for r in rows] == [("all", 2, 0.5), ("x", 2, 0.5), ("y", 1, 1.0)]
    assert [r.size for r in rows] == pytest.approx([4 / 3, 2 / 3, 2 / 3])


def test_targets_have_widths_in_their_units_and_exchangeable_ones_the_level() -> None:
    generator = np.random.default_rng(0)
    predictions = generator.normal(size=(4000, 2)).astype(np.float32)
    targets = (predictions + generator.normal(size=(4000, 2)) * [1, 10]).astype(np.float32)
    coverage = fit_coverage(predictions[:2000], targets[:2000], VALUES, 0.9, score="residual")
    rows = observed_coverage(predictions[2000:], targets[2000:], VALUES, coverage)
    assert [r.name for r in rows] == ["u", "v"]
    assert rows[1].size == pytest.approx(10 * rows[0].size, rel=0.1)
    assert all(r.low <= 0.9 <= r.high for r in rows)


def test_pixels_are_counted_by_image_and_in_blocks() -> None:
    generator = np.random.default_rng(0)
    task = Task("segmentation", (4, 5, 3), ("a", "b", "c"))
    predictions = generator.dirichlet(np.ones(3), (6, 4, 5)).astype(np.float32)
    targets = generator.integers(0, 2, (6, 4, 5)).astype(np.uint8)
    targets[0], targets[1, 0, 0], targets[2] = 0, IGNORED, IGNORED
    coverage = Coverage(0.9, "fnr", (0.7,), 100)
    found = PixelCoverage(task, coverage)
    found.add(predictions[:4], targets[:4])
    found.add(predictions[4:], targets[4:])
    rows = found.rows()
    sets = prediction_set(predictions, coverage)
    shares = share_held(sets, targets)
    assert [(r.name, r.samples) for r in rows] == [("all", 5), ("a", 5), ("b", 4)]
    assert rows[0].value == pytest.approx(np.nanmean(shares))
    assert rows[0].size == pytest.approx(sets.sum(axis=-1)[targets != IGNORED].mean())
    own = [sets[i, ..., 1][targets[i] == 1].mean() for i in (1, 3, 4, 5)]
    assert rows[2].value == pytest.approx(np.mean(own))
    assert rows[2].low < rows[2].value < rows[2].high
