"""Columns become the tensors that a server of any make declares."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from ripieno.errors import RipienoError
from ripieno.server.column_tensors import to_tensors

DECLARED = {"age": "FP32", "plan": "BYTES", "since": "FP64"}


def test_text_and_dates_are_sent_in_the_form_that_graphs_know() -> None:
    tensors = to_tensors(
        {
            "plan": [" gold", 12.0, None, True],
            "age": ["31", None, True, np.float64(2.5)],
            "since": ["1970-01-02T12:00", datetime.datetime(1970, 1, 3), None, 4],
            "other": [1, 2, 3, 4],
        },
        DECLARED,
        "m",
    )
    assert list(tensors) == list(DECLARED)
    assert tensors["plan"] == ["gold", "12", "", "True"]
    np.testing.assert_array_equal(tensors["age"], [31, np.nan, 1, 2.5])
    np.testing.assert_array_equal(tensors["since"], [1.5, 2, np.nan, 4])
    assert [np.asarray(tensors[name]).dtype for name in ("age", "since")] == ["<f4", "<f8"]


def test_numbers_that_another_server_declares_as_double_are_no_dates() -> None:
    (sent,) = to_tensors({"x": np.array([1e9, -1e9])}, {"x": "FP64"}, "m").values()
    np.testing.assert_array_equal(sent, [1e9, -1e9])


def test_a_missing_column_is_named_with_those_of_the_model() -> None:
    with pytest.raises(RipienoError, match="the data have no column 'since'; m has the inputs age, plan, since"):
        to_tensors({"age": [1], "plan": ["a"]}, DECLARED, "m")


def test_a_datatype_of_other_bytes_is_refused() -> None:
    with pytest.raises(RipienoError, match="m takes 'x' as INT32; columns are sent as one of BYTES, FP32, FP64"):
        to_tensors({"x": [1]}, {"x": "INT32"}, "m")
