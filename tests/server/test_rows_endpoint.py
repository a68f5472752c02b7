"""Rows of a table as JSON objects."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ripieno.data.table_encoding import encode
from ripieno.errors import DataError
from ripieno.server.http_errors import HttpError
from ripieno.server.oip_columns import COLUMNS_JSON
from ripieno.server.rows_endpoint import ROWS as MOST
from ripieno.server.rows_endpoint import read_rows
from ripieno.server.signature import ModelSignature
from ripieno.types import Input, classification
from tests.server.stand_in import COLUMNS, ROWS

SIGNATURE = ModelSignature("ensemble", Input((8,), "float32", columns=COLUMNS), classification(("a", "b")), ("m",))
OBJECTS = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]


def test_rows_are_encoded_as_everywhere() -> None:
    expected = encode(COLUMNS, ROWS, "x", DataError)
    np.testing.assert_array_equal(read_rows(json.dumps(OBJECTS).encode(), SIGNATURE), expected)
    np.testing.assert_array_equal(read_rows(json.dumps(OBJECTS[2]).encode(), SIGNATURE), expected[2:3])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "The request has 0 rows, must have 1 to"),
        ([OBJECTS[0]] * (MOST + 1), rf"has {MOST + 1} rows, must have 1 to {MOST}\. Send tensors for more"),
        ([{**OBJECTS[0], "height": 3}], "unknown column 'height'"),
        ([{k: v for k, v in OBJECTS[0].items() if k != "plan"}], "has no column 'plan'"),
        ([OBJECTS[0], {"age": 3}], "row 1 has no 'plan'"),
        ([{**OBJECTS[0], "age": "old"}], "row 0 holds 'old' for 'age'; expected a number"),
        ([{**OBJECTS[0], "age": 10**400}], "for 'age'; expected a finite number"),
        ([{**OBJECTS[0], "age": [3]}], "Cannot parse the rows"),
        ([3], "Cannot parse the rows"),
        ("x", "Cannot parse the rows"),
    ],
)
def test_invalid_rows_are_one_line(body: Any, message: str) -> None:
    with pytest.raises(HttpError, match=message) as refused:
        read_rows(json.dumps(body).encode(), SIGNATURE)
    assert refused.value.status == 400


def test_too_long_and_unsuitable_rows_are_refused_before_they_are_read() -> None:
    with pytest.raises(HttpError, match="Send fewer, or binary tensors") as refused:
        read_rows(b" " * (COLUMNS_JSON + 1), SIGNATURE)
    assert refused.value.status == 413
    nameless = ModelSignature("m", Input((8,), "float32"), classification(("a", "b")), ("m",))
    with pytest.raises(HttpError, match="m has no named columns") as refused:
        read_rows(b"{}", nameless)
    assert refused.value.status == 415
