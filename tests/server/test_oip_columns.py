"""Requests with one tensor a column become the matrix of members; invalid ones get one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ripieno.data.table_encoding import encode
from ripieno.errors import DataError
from ripieno.server import grpc_codec
from ripieno.server.http_errors import HttpError
from ripieno.server.oip_columns import COLUMNS_JSON
from ripieno.server.oip_decode import read_request
from ripieno.server.oip_encode import strings_to_bytes
from ripieno.server.signature import ModelSignature
from ripieno.types import Column, Float32s, Input, classification
from tests.server.stand_in import COLUMNS, ROWS

TASK = classification(("a", "b"))
SIGNATURE = ModelSignature("ensemble", Input((8,), "float32", columns=COLUMNS), TASK, ("m",))
EXPECTED = encode(COLUMNS, ROWS, "x", DataError)
DATATYPES = {"age": "FP32", "plan": "BYTES", "since": "BYTES", "paid": "BOOL"}
Inputs = list[dict[str, Any]]


def inputs(**changes: dict[str, Any]) -> Inputs:
    """Return the inputs of a request for ROWS in JSON; `changes` by the name of a column."""
    return [
        {"name": name, "shape": [4, 1], "datatype": DATATYPES[name], "data": ROWS[name], **changes.get(name, {})}
        for name in ROWS
    ]


def read(body: Inputs, tail: bytes = b"") -> Float32s:
    content = json.dumps({"inputs": body}).encode()
    matrix = read_request(content + tail, len(content) if tail else None, SIGNATURE).images
    assert matrix.dtype == np.float32
    return matrix  # type: ignore[return-value]


def raw(*tensors: tuple[str, str, bytes]) -> tuple[Inputs, bytes]:
    """Return the inputs and the tail of a request with raw tensors, given by name, datatype and bytes."""
    described: Inputs = [
        {"name": name, "shape": [4, 1], "datatype": datatype, "parameters": {"binary_data_size": len(content)}}
        for name, datatype, content in tensors
    ]
    return described, b"".join(content for _, _, content in tensors)


AGES = np.array([31, np.nan, 45.5, -2])
PLANS = strings_to_bytes(["gold", "12", "new", ""])
DAYS = np.array([19782.5625, 10956.0, np.nan, -165.0])


def test_json_of_columns_is_encoded_as_everywhere() -> None:
    np.testing.assert_array_equal(read(inputs()), EXPECTED)
    np.testing.assert_array_equal(read(inputs()[::-1]), EXPECTED)  # in any order
    nested = inputs(age={"data": [[value] for value in ROWS["age"]]}, plan={"shape": [4]})
    np.testing.assert_array_equal(read(nested), EXPECTED)
    days = [None if np.isnan(day) else day for day in DAYS]
    np.testing.assert_array_equal(read(inputs(since={"datatype": "FP64", "data": days})), EXPECTED)


def test_raw_tensors_of_any_datatype_are_encoded() -> None:
    paid = np.array([1, 0, np.nan, 1])
    body, tail = raw(
        ("since", "FP64", DAYS.tobytes()),
        ("age", "FP32", AGES.astype("<f4").tobytes()),
        ("plan", "BYTES", PLANS),
        ("paid", "FP64", paid.tobytes()),
    )
    np.testing.assert_array_equal(read(body, tail), EXPECTED)
    signalling = np.array([0x7FA00000] * 4, "<u4").tobytes()
    sent, rest = raw(("age", "FP32", signalling), ("since", "FP64", np.array([0x7FF4 << 48] * 4, "<u8").tobytes()))
    assert np.isnan(read([*sent, inputs()[1], inputs()[3]], rest)[:, [0, 2, 5, 6]]).all()
    mixed = [body[0], *inputs()[:2], inputs()[3]]  # raw and JSON in one request
    np.testing.assert_array_equal(read(mixed, tail[:32]), EXPECTED)
    whole = np.array([31, -7, 45, -2])
    for datatype, dtype in (("INT8", "i1"), ("INT16", "<i2"), ("INT32", "<i4"), ("INT64", "<i8")):
        sent, rest = raw(("age", datatype, whole.astype(dtype).tobytes()), ("paid", "BOOL", bytes([2, 0, 1, 0])))
        matrix = read([*sent, *inputs()[1:3]], rest)
        np.testing.assert_array_equal(matrix[:, 0], whole)
        np.testing.assert_array_equal(matrix[:, -1], [1, 0, 1, 0])


def test_a_matrix_is_taken_too() -> None:
    matrix = np.where(np.isnan(EXPECTED), None, EXPECTED.astype(object)).tolist()
    found = read([{"name": "images", "shape": [4, 8], "datatype": "FP32", "data": matrix}])
    np.testing.assert_array_equal(found, EXPECTED)
    tail = EXPECTED.tobytes()
    sent: Inputs = [{"name": "images", "shape": [4, 8], "datatype": "FP32", "parameters": {"binary_data_size": 128}}]
    np.testing.assert_array_equal(read(sent, tail), EXPECTED)


def test_a_column_may_be_named_images() -> None:
    only = ModelSignature("m", Input((1,), "float32", columns=(Column("images", "category", ("a",)),)), TASK, ("m",))
    body = {"inputs": [{"name": "images", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}]}
    assert read_request(json.dumps(body).encode(), None, only).images.tolist() == [[0], [-1]]


def grpc_request(contents: dict[str, dict[str, Any]], raw: list[bytes] | None = None) -> Float32s:
    request = grpc_codec.InferRequest(model_name="ensemble")
    for name, fields in contents.items():
        values = {key: value for key, value in fields.items() if key != "datatype"}
        datatype = fields.get("datatype", DATATYPES[name])
        request.inputs.add(name=name, datatype=datatype, shape=[4, 1], contents=values)
    message = request.SerializeToString() + b"".join(b"\x3a" + bytes([len(one)]) + one for one in raw or [])
    parsed, views = grpc_codec.parse_message(message, grpc_codec.InferRequest, 1 << 20, len(COLUMNS))
    return grpc_codec.read_request(parsed, views, SIGNATURE).images  # type: ignore[return-value]


def test_grpc_takes_columns_with_and_without_raw_contents() -> None:
    plain = {
        "age": {"fp32_contents": AGES},
        "plan": {"bytes_contents": [b"gold", b"12", b"new", b""]},
        "since": {"datatype": "FP64", "fp64_contents": DAYS},
        "paid": {"datatype": "FP32", "fp32_contents": [1, 0, np.nan, 1]},
    }
    np.testing.assert_array_equal(grpc_request(plain), EXPECTED)
    whole = {"age": {"datatype": "INT16", "int_contents": [31, -7, 45, -2]}, "paid": {"bool_contents": [1, 0, 0, 1]}}
    found = grpc_request({**plain, **whole})
    np.testing.assert_array_equal(found[:, 0], [31, -7, 45, -2])
    np.testing.assert_array_equal(found[:, -1], [1, 0, 0, 1])
    sent = [AGES.astype("<f4").tobytes(), PLANS, DAYS.tobytes(), np.array([1, 0, np.nan, 1], "<f4").tobytes()]
    named: dict[str, dict[str, Any]] = {
        "age": {},
        "plan": {},
        "since": {"datatype": "FP64"},
        "paid": {"datatype": "FP32"},
    }
    np.testing.assert_array_equal(grpc_request(named, sent), EXPECTED)
    with pytest.raises(HttpError, match="'plan' has a text that is not UTF-8"):
        grpc_request({**plain, "plan": {"bytes_contents": [b"\xff"] * 4}})
    with pytest.raises(HttpError, match="3 raw contents for 4 inputs"):
        grpc_request({"age": {}, "plan": {}, "since": {}, "paid": {}}, sent[:3])


def test_a_message_may_have_as_many_inputs_as_columns() -> None:
    columns = tuple(Column(f"c{i}") for i in range(400))
    wide = ModelSignature("ensemble", Input((400,), "float32", columns=columns), TASK, ("m",))
    request = grpc_codec.InferRequest(raw_input_contents=[np.float32(i).tobytes() for i in range(400)])
    for column in columns:
        request.inputs.add(name=column.name, datatype="FP32", shape=[1, 1])
    message = request.SerializeToString()
    parsed, views = grpc_codec.parse_message(message, grpc_codec.InferRequest, 1 << 20, len(columns))
    np.testing.assert_array_equal(grpc_codec.read_request(parsed, views, wide).images[0], np.arange(400))
    with pytest.raises(HttpError, match="more than 256 fields"):
        grpc_codec.parse_message(message, grpc_codec.InferRequest, 1 << 20)


def without(name: str) -> Callable[[], Any]:
    return lambda: read([tensor for tensor in inputs() if tensor["name"] != name])


def texts(content: bytes) -> Callable[[], Any]:
    body, tail = raw(("plan", "BYTES", content))
    return lambda: read([*body, *(tensor for tensor in inputs() if tensor["name"] != "plan")], tail)


FAULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "a missing column": (without("plan"), r"lacks 1 of 4 columns: 'plan'\. Send all"),
    "no columns": (lambda: read([]), "lacks 4 of 4 columns: 'age', 'plan', 'since', 'paid'"),
    "an unknown column": (
        lambda: read([*inputs(), {**inputs()[0], "name": "height"}]),
        r"Unknown input 'height'. ensemble has the columns 'age', 'plan', 'since', 'paid'\.",
    ),
    "a column twice": (lambda: read([*inputs(), inputs()[0]]), "'age' occurs 2 times"),
    "a text in a number column": (
        lambda: read(inputs(age={"data": [1, 2, "old", 4]})),
        "row 2 holds 'old' for 'age'; expected a number",
    ),
    "an infinite number": (
        lambda: read(inputs(age={"data": [1, 2, 1e39, 4]})),
        "row 2 holds '1e.39' for 'age'; expected a finite number",
    ),
    "no date": (lambda: read(inputs(since={"data": ["soon"] * 4})), "row 0 holds 'soon' for 'since'; expected a date"),
    "unequal rows": (
        lambda: read(inputs(plan={"shape": [3, 1], "data": ["a"] * 3})),
        "'plan' has 3 rows, but 'age' has 4",
    ),
    "another number of values": (
        lambda: read(inputs(age={"data": [1, 2]})),
        "'age' has 2 values, its shape requires 4",
    ),
    "a wrong shape": (lambda: read(inputs(age={"shape": [4, 2]})), r"'age' has shape \[4, 2\], must be \[rows, 1\]"),
    "too many rows": (
        lambda: read(inputs(age={"shape": [65537, 1]})),
        "'age' has 65537 rows, must have 1 to 65536",
    ),
    "no rows": (lambda: read(inputs(age={"shape": [0, 1], "data": []})), "'age' has 0 rows, must have 1 to 65536"),
    "an unknown datatype": (
        lambda: read(inputs(age={"datatype": "FP16"})),
        "'age' has datatype 'FP16', must be one of",
    ),
    "no list": (lambda: read(inputs(age={"data": {"a": 1}})), "not a list of numbers, texts, true, false and null"),
    "lists in a list": (lambda: read(inputs(age={"data": [[1, 2], [3], [4], [5]]})), "not a list of numbers, texts"),
    "no data": (lambda: read(inputs(age={"data": None})), "'age' has neither data nor binary_data_size"),
    "shared memory": (
        lambda: read(inputs(age={"parameters": {"shared_memory_region": "x"}})),
        "Shared memory regions are not supported",
    ),
    "data and bytes": (
        lambda: read(inputs(age={"parameters": {"binary_data_size": 8}}), bytes(8)),
        "'age' has both data and binary_data_size",
    ),
    "bytes of another size": (
        lambda: read(inputs(age={"data": None, "parameters": {"binary_data_size": 8}}), bytes(8)),
        "'age' has 8 bytes, its shape and datatype require 16",
    ),
    "bytes of a negative size": (
        lambda: read(inputs(age={"data": None, "parameters": {"binary_data_size": -8}}), bytes(8)),
        "binary_data_size is -8, must be a whole number",
    ),
    "bytes that are not named": (lambda: read(inputs(), bytes(8)), "all inputs is 0, but 8 bytes follow"),
    "texts too short": (texts(PLANS[:-1]), "'plan' has fewer texts in its 24 bytes than the 4 of its shape"),
    "texts too long": (texts(PLANS + b"x"), "'plan' has 1 bytes after the 4 texts"),
    "a text with a huge length": (texts(b"\xff" * 16), "'plan' has fewer texts"),
    "a text of another encoding": (texts(strings_to_bytes(["a"] * 3) + b"\1\0\0\0\xff"), "that is not UTF-8"),
    "long JSON": (
        lambda: read(inputs(plan={"data": ["x" * (COLUMNS_JSON // 4)] * 4})),
        "over 1048576 bytes. Send fewer rows, or binary",
    ),
    "long JSON of numbers": (lambda: read(inputs(age={"data": [1] * COLUMNS_JSON})), "Send fewer rows, or binary"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_invalid_columns_are_one_line(fault: str) -> None:
    call, message = FAULTS[fault]
    with pytest.raises(HttpError, match=message) as refused:
        call()
    assert refused.value.status == (413 if fault.startswith("long JSON") else 400)
