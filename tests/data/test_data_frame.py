"""Tables in memory: what is one, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.data.data_frame import columns_of_rows, data_frame_columns, is_data_frame
from ripieno.errors import DataError


def test_rows_become_columns() -> None:
    assert columns_of_rows([{"a": 1, "b": "x"}, {"b": None, "a": 2}], "x", DataError) == {"a": [1, 2], "b": ["x", None]}
    assert columns_of_rows([], "x", DataError) == {}
    with pytest.raises(DataError, match=r"x row 1 has no 'b'; expected a value of each column, or null"):
        columns_of_rows([{"a": 1, "b": 2}, {"a": 1}], "x", DataError)
    with pytest.raises(DataError, match=r"x row 1 has 'c', row 0 has not"):
        columns_of_rows([{"a": 1}, {"a": 1, "c": 2}], "x", DataError)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"a": [1, 2], "b": ("x", "y"), "c": np.ones(2)}, True),
        ([{"a": 1, "b": "x"}], True),
        ({"a": [[1, 2], [3, 4]]}, False),
        ({"train": ([[1.0]], [0])}, False),
        ({"a": np.ones((2, 2))}, False),
        ([{"image": np.ones((2, 2)), "label": 1}], False),
        ([1, 2], False),
        ({}, False),
        (np.ones((2, 2)), False),
    ],
)
def test_values_of_one_axis_by_names_are_a_table(source: Any, expected: bool) -> None:
    assert is_data_frame(source) is expected


def test_columns_have_names_of_their_own_and_equal_lengths() -> None:
    assert data_frame_columns([{1: 5, "b": "x"}], "x") == {"1": [5], "b": ["x"]}
    for source, message in (
        ([{}], "x has no columns"),
        ({"a": [1], "b": [1, 2]}, "x has 1 values for 'a', but 2 for 'b'"),
        ({1: [1], "1": [1]}, "two columns of x are named '1'"),
    ):
        with pytest.raises(DataError, match=message):
            data_frame_columns(source, "x")
