"""Tables in memory: what is one, and what is refused."""

from __future__ import annotations

import pytest

from ripieno.data.data_frame import columns_of_rows
from ripieno.errors import DataError


def test_rows_become_columns() -> None:
    assert columns_of_rows([{"a": 1, "b": "x"}, {"b": None, "a": 2}], "x", DataError) == {"a": [1, 2], "b": ["x", None]}
    assert columns_of_rows([], "x", DataError) == {}
    with pytest.raises(DataError, match=r"x row 1 has no 'b'; expected a value of each column, or null"):
        columns_of_rows([{"a": 1, "b": 2}, {"a": 1}], "x", DataError)
    with pytest.raises(DataError, match=r"x row 1 has 'c', row 0 has not"):
        columns_of_rows([{"a": 1}, {"a": 1, "c": 2}], "x", DataError)
