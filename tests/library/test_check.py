"""Notes on implausible predictions."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.library.check import note_if_worse_than_chance


def sure(answers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[answers] * 0.9 + 0.1 / classes


@pytest.mark.parametrize("order", [[1, 2, 0, 3], [0, 1, 3, 2], [3, 2, 1, 0]])
def test_columns_in_another_order_are_named(order: list[int]) -> None:
    labels = np.arange(80) % 4
    note = note_if_worse_than_chance(labels, sure(labels, 4)[:, order], "net", "abcd")
    assert note is not None
    assert f"100% if its columns are the classes {', '.join('abcd'[i] for i in order)};" in note


def test_two_of_many_columns_exchanged_are_no_chance_and_not_noted_when_they_cost_little() -> None:
    labels = np.arange(200) % 20
    exchanged = sure(labels, 20)[:, [1, 0, *range(2, 20)]]
    assert note_if_worse_than_chance(labels, exchanged, "net") is None


def test_predictions_worse_than_guessing_are_noted() -> None:
    labels = np.arange(60) % 3
    note = note_if_worse_than_chance(labels, sure((labels + 1 + np.arange(60) // 3 % 2) % 3, 3), "net")
    assert note is not None
    assert note.startswith("net is right for 0% of 60 samples, guessing for 33%")


def test_modest_predictions_are_not_noted() -> None:
    labels = np.arange(60) % 3
    assert note_if_worse_than_chance(labels, np.full((60, 3), 1 / 3), "net") is None
    assert note_if_worse_than_chance(labels, sure(np.zeros(60, np.int64), 3), "net") is None
    assert note_if_worse_than_chance(labels, sure(np.where(np.arange(60) < 30, labels, 0), 3), "net") is None


def test_chance_is_not_taken_for_another_order_of_classes() -> None:
    generator = np.random.default_rng(0)
    for classes, samples in ((2, 40), (3, 16), (10, 60), (100, 500)):
        for _ in range(20):
            values, labels = generator.dirichlet(np.ones(classes), samples), generator.integers(0, classes, samples)
            note = note_if_worse_than_chance(labels, values, "net")
            assert note is None or "columns" not in note
