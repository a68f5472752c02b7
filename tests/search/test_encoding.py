"""Configurations as rows of numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ripieno.search.encoding import Encoding
from ripieno.search.space import Categorical, Continuous, Integer, Space, distributions

SPACE = Space(
    "mixed",
    "none",
    {
        "rate": Continuous(1e-4, 1.0, log=True),
        "share": Continuous(-1.0, 1.0),
        "width": Integer(4, 64, log=True),
        "blocks": Integer(2, 10, step=2),
        "kind": Categorical(("a", "b", True)),
        "only": Integer(3, 3),
    },
)
ENCODING = Encoding(distributions(SPACE))


def test_values_become_a_row_and_the_row_the_same_values_again() -> None:
    values = {"rate": 0.01, "share": 0.5, "width": 7, "blocks": 6, "kind": True}
    (row,) = ENCODING.rows([{**values, "only": 3}])
    assert row.tolist() == [0.01, 0.5, 7, 6, 2]  # a range of one value has no column
    again = ENCODING.values(row)
    assert again == values
    assert {name: type(value) for name, value in again.items()} == {name: type(v) for name, v in values.items()}


def test_features_are_places_in_the_range_and_a_column_for_each_choice() -> None:
    rows = ENCODING.rows([{"rate": 0.01, "share": 0.5, "width": 16, "blocks": 2, "kind": "b", "only": 3}])
    expected = [0.5, 0.75, np.log(16 / 3.5) / np.log(64.5 / 3.5), 0.1, 0, 1, 0]
    assert ENCODING.features(rows)[0].tolist() == pytest.approx(expected)


def test_draws_fill_the_ranges_and_every_integer_and_choice_is_drawn_equally_often() -> None:
    drawn = [ENCODING.values(row) for row in ENCODING.draw(5000, np.random.default_rng(0))]
    for name in ("blocks", "kind"):
        counts = Counter(values[name] for values in drawn)
        assert len(counts) == (5 if name == "blocks" else 3)
        assert all(n == pytest.approx(5000 / len(counts), rel=0.12) for n in counts.values())
    assert {values["width"] for values in drawn} == set(range(4, 65))
    rates = np.log10([values["rate"] for values in drawn])
    assert np.histogram(rates, 4, (-4, 0))[0] == pytest.approx([1250] * 4, rel=0.12)


def test_neighbours_stay_in_the_ranges_and_near() -> None:
    random = np.random.default_rng(0)
    rows = np.repeat(ENCODING.rows([{"rate": 1.0, "share": -1.0, "width": 64, "blocks": 2, "kind": "a"}]), 2000, 0)
    near = ENCODING.neighbours(rows, 0.1, 0.3, random)
    places = ENCODING.features(near)
    assert places.min() >= 0
    assert places.max() <= 1
    assert places[:, 0].min() > 0.5  # five steps away
    changed = near != rows
    assert changed[:, 0].mean() == pytest.approx(0.2 + 0.8 * 0.3, abs=0.04)
    assert 1.5 < changed.sum(axis=1).mean() < 2.2  # 2.2, less the integers and choices that stay as they are
    assert {ENCODING.values(row)["blocks"] for row in near} >= {2, 4}
    assert not changed[:, 0].all()


def test_a_space_of_single_values_has_no_columns() -> None:
    assert not Encoding(distributions(Space("one", "none", {"only": Integer(3, 3)})))
    assert Encoding({}).features(np.empty((4, 0))).shape == (4, 0)
