"""The bootstrap draws images, not answers: each draw is the metric of exactly these images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ripieno.tasks.metrics import cross_entropy, losses

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "paper"))
from intervals import difference, error

LABELS = np.random.default_rng(1).integers(0, 6, 300)


def answers(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    raw = generator.random((300, 6))
    raw[np.arange(300), LABELS] += 0.1 * seed
    found: np.ndarray = raw / raw.sum(1, keepdims=True)
    return found


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_error_of_drawn_images_is_that_of_the_metric(metric: str) -> None:
    drawn = np.random.default_rng(2).integers(0, 300, 300)
    times = np.bincount(drawn, minlength=300)
    expected = losses(answers(3)[drawn], LABELS[drawn])[f"valid_{metric}"]
    assert error(answers(3).argmax(1), LABELS, times, metric) == pytest.approx(100 * (1 - expected))


def test_a_difference_stands_within_its_interval_and_is_none_against_itself() -> None:
    points, nats = difference([(answers(4), answers(2))], LABELS, "accuracy")
    value, low, _, high = points.replace("(", "").replace(")", "").split()
    assert float(low) < float(value) < float(high) < 0
    assert float(nats.split()[0]) == pytest.approx(
        cross_entropy(answers(4), LABELS) - cross_entropy(answers(2), LABELS), abs=1e-4
    )
    assert difference([(answers(4), answers(4))], LABELS, "macro_f1")[0] == "+0.00 (+0.00 to +0.00)"


def test_differences_of_seeds_are_averaged() -> None:
    pairs = [(answers(4), answers(2)), (answers(3), answers(5))]
    both = [float(difference([pair], LABELS, "accuracy")[0].split()[0]) for pair in pairs]
    assert float(difference(pairs, LABELS, "accuracy")[0].split()[0]) == pytest.approx(np.mean(both), abs=0.01)
