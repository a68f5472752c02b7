"""Decoding of requests without a server: parsing, its limits, and fuzzing of both."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.server.http_errors import HttpError, sanitize
from ripieno.server.oip_decode import LONG, _numbers, read_request
from ripieno.server.oip_encode import strings_to_bytes
from ripieno.server.signature import ModelSignature
from ripieno.types import Input, classification

BYTES = ModelSignature(
    "ensemble",
    Input((2, 3, 1)),
    classification(("a", "b")),
    ("m", "n"),
    ("spread", "members"),
)
FLOATS = ModelSignature("ensemble", Input((2, 3, 1), "float32"), classification(("a", "b")), ("m",))


def body(shape: list[int], datatype: str, raw: bytes) -> tuple[bytes, int]:
    tensor = {"name": "images", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + raw, len(head)


@pytest.mark.parametrize(("signature", "dtype"), [(BYTES, np.uint8), (FLOATS, np.float32)])
def test_raw_images_are_a_view_of_the_body(signature: ModelSignature, dtype: type) -> None:
    images = np.arange(12, dtype=dtype).reshape(2, 2, 3, 1)
    whole, length = body([2, 2, 3, 1], signature.datatype, images.tobytes())
    request = read_request(whole, length, signature)
    np.testing.assert_array_equal(request.images, images)
    assert np.shares_memory(request.images, np.frombuffer(whole, np.uint8))


@given(st.lists(st.floats(width=32), min_size=6, max_size=6))
def test_floats_pass_exactly_when_they_are_finite(numbers: list[float]) -> None:
    whole, length = body([1, 2, 3, 1], "FP32", np.array(numbers, np.float32).tobytes())
    if np.isfinite(numbers).all():
        np.testing.assert_array_equal(read_request(whole, length, FLOATS).images.ravel(), np.array(numbers, np.float32))
    else:
        with pytest.raises(HttpError, match="finite"):
            read_request(whole, length, FLOATS)


@given(st.lists(st.one_of(st.integers(-300, 600), st.floats(-10, 300)), min_size=6, max_size=6), st.booleans())
def test_floats_become_bytes_exactly_when_they_are_whole_and_in_range(numbers: list[float], nested: bool) -> None:
    data = np.reshape(numbers, (1, 2, 3, 1)).tolist() if nested else numbers
    tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "FP32", "data": data}
    text = json.dumps({"inputs": [tensor]}).encode()
    if 0 < max(map(abs, numbers)) <= 1:
        with pytest.raises(HttpError, match=r"range over|whole numbers"):
            read_request(text, None, BYTES)
    elif all(n == int(n) and 0 <= n <= 255 for n in numbers):
        assert read_request(text, None, BYTES).images.ravel().tolist() == numbers
    else:
        with pytest.raises(HttpError, match="whole numbers"):
            read_request(text, None, BYTES)


@pytest.mark.parametrize("form", ["raw", "json"])
def test_floats_of_another_range_than_that_trained_on_are_refused(form: str) -> None:
    trained = ModelSignature("ensemble", Input((2, 3, 1), "float32", (0.0, 1.0)), classification(("a", "b")), ("m",))
    for factor, says in ((1, None), (255, "the network was trained on 0 to 1")):
        images = np.linspace(0, factor, 6, dtype=np.float32)
        whole, length = body([1, 2, 3, 1], "FP32", images.tobytes())
        if form == "json":
            tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "FP32", "data": images.tolist()}
            whole, length = json.dumps({"inputs": [tensor]}).encode(), None
        if says is None:
            np.testing.assert_array_equal(read_request(whole, length, trained).images.ravel(), images)
            continue
        with pytest.raises(HttpError, match=says) as refused:
            read_request(whole, length, trained)
        assert refused.value.status == 400


def test_whole_numbers_of_json_are_floats_where_the_datatype_says_so() -> None:
    tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "FP32", "data": [0, 1, 0, 1, 1, 1]}
    trained = ModelSignature("ensemble", Input((2, 3, 1), "float32", (0.0, 1.0)), classification(("a", "b")), ("m",))
    for signature in (trained, FLOATS):
        found = read_request(json.dumps({"inputs": [tensor]}).encode(), None, signature)
        assert found.images.dtype == np.float32
    dark = tensor | {"datatype": "UINT8"}
    assert read_request(json.dumps({"inputs": [dark]}).encode(), None, BYTES).images.max() == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_tensor = st.fixed_dictionaries(
    {
        "name": st.just("images") | _json,
        "shape": st.just([1, 2, 3, 1]) | st.lists(st.integers(-2, 4), max_size=5) | _json,
        "datatype": st.sampled_from(["UINT8", "FP32", "BYTES"]) | _json,
    },
    optional={"data": st.lists(st.integers(0, 255), min_size=5, max_size=7) | _json, "parameters": _json},
)
_frame = st.fixed_dictionaries(
    {"inputs": st.lists(_tensor, max_size=2) | _json}, optional={"id": _json, "parameters": _json, "outputs": _json}
)


@settings(max_examples=400)
@given(_frame, st.none() | st.integers(-2, 300), st.binary(max_size=20))
def test_whatever_json_comes_is_answered_or_refused_in_one_line(frame: object, length: int | None, tail: bytes) -> None:
    refused_or_read(json.dumps(frame).encode() + tail, length)


@settings(max_examples=400)
@given(st.data())
def test_a_good_request_with_bytes_changed_is_answered_or_refused(data: st.DataObject) -> None:
    whole, length = body([1, 2, 3, 1], "UINT8", bytes(6))
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)) | st.just(len(broken)))
    refused_or_read(bytes(broken[:cut]), length)


def refused_or_read(whole: bytes, length: int | None) -> None:
    for signature in (BYTES, FLOATS):
        try:
            request = read_request(whole, length, signature)
        except HttpError as error:
            refusal = error
        else:
            assert request.images.shape[1:] == signature.input.shape
            assert str(request.images.dtype) == signature.input.dtype
            continue
        assert refusal.status == 400
        assert "\n" not in str(refusal)


@pytest.mark.parametrize("element", ["[],", "{},", '"",', "[[[]]],"])
def test_a_json_bomb_makes_no_more_memory_than_its_own_size(element: str) -> None:
    count = 300_000
    data = "[" + element * count + "0]"
    text = f'{{"inputs":[{{"name":"images","shape":[1,2,3,1],"datatype":"UINT8","data":{data}}}]}}'.encode()
    other = f'{{"inputs":[],"parameters":{{"a":{data}}}}}'.encode()
    for whole in (text, other):
        tracemalloc.start()
        with pytest.raises(HttpError):
            read_request(whole, None, BYTES)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * len(whole) + 100_000


def test_a_declared_shape_is_judged_before_anything_is_made_of_it() -> None:
    whole, length = body([1 << 40, 2, 3, 1], "UINT8", b"")
    tracemalloc.start()
    with pytest.raises(HttpError, match="must have 1 to"):
        read_request(whole, length, BYTES)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_strings_carry_their_length_in_bytes() -> None:
    assert strings_to_bytes(["a", "fü"]) == b"\x01\0\0\0a\x03\0\0\0f\xc3\xbc"


@given(st.text())
def test_a_message_is_one_printable_line(text: str) -> None:
    line = sanitize(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= 300


def test_fields_that_are_null_are_absent() -> None:
    tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": [1] * 6, "parameters": None}
    output = {"name": "probabilities", "parameters": {"classification": None, "binary_data": None}}
    plain = read_request(json.dumps({"inputs": [tensor]}).encode(), None, BYTES)
    for frame in (
        {"id": None, "parameters": None, "outputs": None},
        {"parameters": {"timeout": None, "binary_data_output": None}, "outputs": []},
    ):
        assert read_request(json.dumps({"inputs": [tensor], **frame}).encode(), None, BYTES).outputs == plain.outputs
    asked = read_request(json.dumps({"inputs": [tensor], "outputs": [output]}).encode(), None, BYTES).outputs
    assert [(o.name, o.binary, o.top) for o in asked] == [("probabilities", False, 0)]


def test_data_that_is_null_with_raw_bytes_is_absent() -> None:
    tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": None}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 6}}]}).encode()
    assert read_request(head + bytes(6), len(head), BYTES).images.shape == (1, 2, 3, 1)
    with pytest.raises(HttpError, match="neither data"):
        read_request(json.dumps({"inputs": [tensor]}).encode(), None, BYTES)


@pytest.mark.parametrize("nested", [True, False])
def test_long_json_is_read_as_short_json_is(nested: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30_000, 2, 3, 1))
    data = images.tolist() if nested else images.ravel().tolist()
    many = dataclasses.replace(BYTES, max_samples=1 << 20)
    tensor = {"name": "images", "shape": list(images.shape), "datatype": "UINT8", "data": data}
    text = json.dumps({"inputs": [tensor]}, indent=1 if nested else None).encode()
    assert len(text) > 2 * LONG
    np.testing.assert_array_equal(read_request(text, None, many).images, images)
    floats = dataclasses.replace(FLOATS, max_samples=1 << 20)
    halves = text.replace(b"UINT8", b"FP32").replace(b"[0,", b"[0.5,")
    assert read_request(halves, None, floats).images.dtype == np.float32


@pytest.mark.parametrize("wrong", ["true", "[1]", '"1"', "", "1 1", "nul", "{}", "1]"])
def test_long_json_of_anything_but_numbers_is_refused(wrong: str) -> None:
    many = dataclasses.replace(BYTES, max_samples=1 << 20)
    numbers = ",".join(["7"] * 60_000 + [wrong] + ["7"] * 59_999)
    head = '{"inputs": [{"name": "images", "shape": [20000, 2, 3, 1], "datatype": "UINT8", "data": ['
    with pytest.raises(HttpError):
        read_request(f"{head}{numbers}]}}]}}".encode(), None, many)


def long_frame(**more: Any) -> bytes:
    """Return a request with far more text of numbers than is decoded at once."""
    numbers = [7, 255] * 3 * 16384
    tensor = {"name": "images", "shape": [16384, 2, 3, 1], "datatype": "UINT8", "data": numbers}
    return json.dumps({"id": "x", **more, "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()


def test_a_long_request_is_read_as_a_short_one() -> None:
    request = read_request(long_frame(), None, BYTES)
    assert (request.id, request.images.shape) == ("x", (16384, 2, 3, 1))
    assert set(np.unique(request.images)) == {7, 255}
    assert request.outputs[0].binary


@pytest.mark.parametrize(
    "more",
    [
        {"outputs": [{"name": "label"}] * 40_000},
        {"parameters_": {f"p{i}": 1 for i in range(40_000)}},
        {"unused": [1] * 400_000},
    ],
)
def test_long_json_without_its_numbers_is_refused_undecoded(more: dict[str, Any]) -> None:
    with pytest.raises(HttpError, match="without its numbers"):
        read_request(long_frame(**more), None, BYTES)


def test_a_number_of_a_million_digits_is_refused() -> None:
    sent = long_frame().replace(b"255]", b"1" * 1_000_000 + b"]")
    with pytest.raises(HttpError, match="digits"):
        read_request(sent, None, BYTES)


def test_long_json_takes_about_its_own_memory_to_read() -> None:
    text = json.dumps([0] * (1 << 20)).encode()
    tracemalloc.start()
    _numbers(text, [1 << 20])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * len(text)


def test_a_piece_without_a_number_is_refused() -> None:
    """An empty element is counted by its comma, and the text around it fills a whole piece."""
    many = dataclasses.replace(BYTES, max_samples=1 << 20)
    numbers = "1," * 5 + " " * (LONG - 1) + ",1" * 24
    head = '{"inputs": [{"name": "images", "shape": [5, 2, 3, 1], "datatype": "UINT8", "data": ['
    with pytest.raises(HttpError, match="29 numbers, its shape requires 30"):
        read_request(f"{head}{numbers}]}}]}}".encode(), None, many)


def test_numbers_of_another_list_are_not_taken_for_the_inputs() -> None:
    """A long unused list called "data" precedes the input's data."""
    own = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": [0]}
    text = json.dumps({"other": {"data": [7] * LONG}, "inputs": [own]}).encode()
    with pytest.raises(HttpError, match="1 numbers, its shape requires 6"):
        read_request(text, None, BYTES)


def test_a_tensor_in_shared_memory_is_refused_by_name_and_nulls_are_not_set() -> None:
    tensor: dict[str, Any] = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": [0] * 6}
    tensor["parameters"] = {"shared_memory_region": None, "binary_data_size": None}
    assert read_request(json.dumps({"inputs": [tensor]}).encode(), None, BYTES).images.shape == (1, 2, 3, 1)
    tensor["parameters"] = {"shared_memory_region": "x"}
    with pytest.raises(HttpError, match=r"^Shared memory regions are not supported"):
        read_request(json.dumps({"inputs": [tensor]}).encode(), None, BYTES)


SERIES = ModelSignature("ensemble", Input((4, 1), "float32"), classification(("a", "b")), ("m",))


def series_frame(data: list[Any], shape: list[int]) -> bytes:
    return json.dumps({"inputs": [{"name": "images", "shape": shape, "datatype": "FP32", "data": data}]}).encode()


@pytest.mark.parametrize(
    "data", [[1, 2.5, None, None, 1, 2, 3, 4], [[[1], [2.5], [None], [None]], [[1], [2], [3], [4]]]]
)
def test_null_pads_series(data: list[Any]) -> None:
    found = read_request(series_frame(data, [2, 4, 1]), None, SERIES).images
    np.testing.assert_array_equal(found[..., 0], [[1, 2.5, np.nan, np.nan], [1, 2, 3, 4]])
    whole, length = body([2, 4, 1], "FP32", np.asarray(found).tobytes())
    np.testing.assert_array_equal(read_request(whole, length, SERIES).images, found)
    with pytest.raises(HttpError, match="must be numbers only"):
        read_request(series_frame([1, 2, 3, 4, 5, None], [1, 2, 3, 1]), None, FLOATS)


def test_null_pads_series_in_long_json() -> None:
    data = [[[1], [2], [None], [None]]] * 20_000
    found = read_request(series_frame(data, [20_000, 4, 1]), None, SERIES).images
    assert np.isnan(found[:, 2:]).all()
    np.testing.assert_array_equal(found[:, :2, 0], [[1, 2]] * 20_000)


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        ([1, None, 3, 4], [1, 4, 1], r"hold NaN before the end \(series 0\); NaN can only pad the end"),
        ([None] * 4, [1, 4, 1], r"hold no value \(series 0\)"),
        ([1, 2, 3, "4"], [1, 4, 1], "must be numbers only"),
        ([1, 2, None, "4"], [1, 4, 1], "must be numbers only"),
        ([1, 2, 3], [1, 3, 1], r"must be \[samples, 4, 1\]; pad shorter series at the end with NaN \(JSON: null\)"),
        ([1, 2, 3, 4, 5], [1, 5, 1], r"has shape \[1, 5, 1\], must be \[samples, 4, 1\]$"),
    ],
)
def test_series_that_do_not_fit_are_refused(data: list[Any], shape: list[int], message: str) -> None:
    with pytest.raises(HttpError, match=message) as refused:
        read_request(series_frame(data, shape), None, SERIES)
    assert refused.value.status == 400
