"""Raw requests over a real socket: refusals, their messages, and that the server still serves afterwards."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.server import Limits, ServerHandle, start_in_thread
from ripieno.types import Bundle
from tests.server.stand_in import SHAPE, StandIn, direct_answers, write_small_bundle

INFER = "/v2/models/ensemble/infer"
SIZE = int(np.prod(SHAPE))
GOOD = {"name": "images", "shape": [1, *SHAPE], "datatype": "UINT8", "data": [7] * SIZE}


def one(**changes: Any) -> dict[str, Any]:
    """Return a request with these fields of its tensor changed (None: omitted)."""
    tensor = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    return {"inputs": [tensor]}


def binary(
    tensor: dict[str, Any], raw: bytes, length: int | str | None = None, **frame: Any
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a request with raw data."""
    tensor = {k: v for k, v in {**GOOD, "data": None, **tensor}.items() if v is not None}
    head = json.dumps({"inputs": [tensor], **frame}).encode()
    return head + raw, {"inference-header-content-length": str(len(head) if length is None else length)}


def raw(size: int) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": size}}


MALFORMED: dict[str, Any] = {
    "no body": b"",
    "no JSON": b"hello",
    "half JSON": b'{"inputs": [{"name"',
    "not UTF-8": b'{"inputs": [{"name": "\xff\xfe"}]}',
    "a list": [],
    "a number": 3,
    "null": None,
    "no inputs": {"id": "x"},
    "empty inputs": {"inputs": []},
    "inputs no list": {"inputs": {"name": "images"}},
    "two inputs": {"inputs": [GOOD, GOOD]},
    "another input": one(name="x"),
    "input without name": one(name=None),
    "input without shape": one(shape=None),
    "input without datatype": one(datatype=None),
    "input without data": one(data=None),
    "unknown datatype": one(datatype="INT32"),
    "no datatype of the protocol": one(datatype="; drop table"),
    "shape of strings": one(shape=["1", "8", "8", "3"]),
    "shape of halves": one(shape=[1.5, 8, 8, 3]),
    "negative shape": one(shape=[-1, *SHAPE]),
    "no samples": one(shape=[0, *SHAPE], data=[]),
    "rank 3": one(shape=[*SHAPE]),
    "rank 5": one(shape=[1, 1, *SHAPE]),
    "rank 1000": one(shape=[1] * 1000),
    "channels first": one(shape=[1, 3, 8, 8]),
    "huge shape": one(shape=[10**9, *SHAPE]),
    "shape beyond 64 bits": one(shape=[10**30, *SHAPE]),
    "shape that overflows when multiplied": one(shape=[2**62, *SHAPE]),
    "too few numbers": one(data=[1] * (SIZE - 1)),
    "too many numbers": one(data=[1] * (SIZE + 1)),
    "ragged": one(data=[[1] * (SIZE - 2), [1], [1]]),
    "strings": one(data=["1"] * SIZE),
    "one string": one(data="," * (SIZE - 1)),
    "nulls": one(data=[None] * SIZE),
    "booleans": one(data=[True] * SIZE),
    "objects": one(data=[{}] * SIZE),
    "nested wrongly": one(data=np.zeros((3, 8, 8), int).tolist()),
    "deep": ('{"inputs":[{"name":"images","shape":[1,8,8,3],"datatype":"UINT8","data":' + "[" * 100000).encode(),
    "deep parameters": ('{"inputs":[],"parameters":{"a":' + "[" * 100000).encode(),
    "over 255": one(data=[256] * SIZE),
    "below 0": one(data=[-1] * SIZE),
    "halves": one(datatype="FP32", data=[0.5] * SIZE),
    "NaN": b'{"inputs":[{"name":"images","shape":[1,8,8,3],"datatype":"FP32","data":[' + b"NaN," * 191 + b"NaN]}]}",
    "infinite": json.dumps(one(datatype="FP32")).replace("[7, 7", "[1e999, 7").encode(),
    "parameters no object": {**one(), "parameters": [1]},
    "nested parameter": {**one(), "parameters": {"a": {"b": 1}}},
    "id no string": {**one(), "id": 7},
    "timeout no number": {**one(), "parameters": {"timeout": "soon"}},
    "timeout endless": {**one(), "parameters": {"timeout": 10**400}},
    "classification endless": {**one(), "outputs": [{"name": "probabilities", "parameters": {"a": -(10**4000)}}]},
    "timeout below 0": {**one(), "parameters": {"timeout": -1}},
    "binary_data_output no boolean": {**one(), "parameters": {"binary_data_output": 1}},
    "unknown output": {**one(), "outputs": [{"name": "logits"}]},
    "output without name": {**one(), "outputs": [{}]},
    "outputs no list": {**one(), "outputs": {"name": "label"}},
    "a million outputs": {**one(), "outputs": [{"name": "label"}] * 10000},
    "binary_data no boolean": {**one(), "outputs": [{"name": "label", "parameters": {"binary_data": "yes"}}]},
    "classification of labels": {**one(), "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
    "negative classification": {**one(), "outputs": [{"name": "probabilities", "parameters": {"classification": -2}}]},
    "shared memory in": one(data=None, parameters={"shared_memory_region": "/etc/passwd"}),
    "shared memory out": {**one(), "outputs": [{"name": "label", "parameters": {"shared_memory_region": "x"}}]},
    "size without a header": one(data=None, **raw(SIZE)),
    "data and size": binary({"data": [1] * SIZE, **raw(SIZE)}, bytes(SIZE)),
    "raw data, no size": binary({}, bytes(SIZE)),
    "size too small": binary(raw(SIZE - 1), bytes(SIZE)),
    "size too large": binary(raw(SIZE + 1), bytes(SIZE)),
    "size negative": binary(raw(-SIZE), bytes(SIZE)),
    "size no number": binary({"parameters": {"binary_data_size": "192"}}, bytes(SIZE)),
    "size a boolean": binary({"parameters": {"binary_data_size": True}}, b"x"),
    "size that does not fit the shape": binary(raw(10), bytes(10)),
    "bytes sent as floats": binary({"datatype": "FP32", **raw(SIZE)}, bytes(SIZE)),
    "header longer than the body": binary(raw(SIZE), bytes(SIZE), 10**6),
    "header negative": binary(raw(SIZE), bytes(SIZE), "-5"),
    "header no number": binary(raw(SIZE), bytes(SIZE), "0x10"),
    "header huge": binary(raw(SIZE), bytes(SIZE), "9" * 400),
    "header cuts the JSON": binary(raw(SIZE), bytes(SIZE), 20),
    "raw NaN": binary({"datatype": "FP32", **raw(4 * SIZE)}, np.full(SIZE, np.nan, np.float32).tobytes()),
    "raw infinity": binary({"datatype": "FP32", **raw(4 * SIZE)}, np.full(SIZE, -np.inf, np.float32).tobytes()),
    "raw halves": binary({"datatype": "FP32", **raw(4 * SIZE)}, np.full(SIZE, 0.5, np.float32).tobytes()),
    "no whole sample": (bytes(SIZE + 1), {"inference-header-content-length": "0"}),
    "nothing raw": (b"", {"inference-header-content-length": "0"}),
    "no gzip": (json.dumps(one()).encode(), {"content-encoding": "gzip"}),
    "gzip and more": (gzip.compress(json.dumps(one()).encode()) + b"more", {"content-encoding": "gzip"}),
    "half gzip": (gzip.compress(json.dumps(one()).encode())[:-12], {"content-encoding": "gzip"}),
}


def is_one_line(response: httpx.Response) -> bool:
    error = response.json()["error"]
    return bool(error) and "\n" not in error and len(error) <= 300 and list(response.json()) == ["error"]


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_refused_with_one_line(http: httpx.Client, case: Any) -> None:
    body, headers = case if isinstance(case, tuple) else (case, {})
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post(INFER, content=content, headers=headers)
    assert response.status_code == 400, response.text
    assert is_one_line(response)
    assert http.post(INFER, json=one()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("GET", "/v2/models/..%2fensemble", 404),
        ("GET", "/v2/models/absent", 404),
        ("GET", "/v2/models/ensemble/versions/2", 404),
        ("POST", "/v2/models/" + "x" * 5000 + "/infer", 404),
        ("POST", "/v2/models/a%0Ab/infer", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2/models/ensemble", 405),
        ("GET", "/v2/repository/index", 405),
    ],
)
def test_what_is_not_there_is_said_in_json(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    assert is_one_line(response)
    assert ("allow" in response.headers) == (status == 405)


def test_the_interface_is_described(http: httpx.Client, bundle: Bundle) -> None:
    document = http.get("/openapi.json").json()
    infer = document["paths"]["/v2/models/{model}/infer"]
    assert infer["parameters"][0]["schema"]["enum"] == ["ensemble", *bundle.ensemble.members]
    for path, item in document["paths"].items():
        for method in set(item) - {"parameters"}:
            response = http.request(method, path.replace("{model}", "ensemble"))
            said = item[method]["responses"][str(response.status_code)]["content"]
            kind = response.headers["content-type"].partition(";")[0]
            assert kind in said, (method, path)
            schema = said[kind]["schema"]
            if kind == "application/json":
                named = schema.get("$ref", "").removeprefix("#/components/schemas/")
                schema = document["components"]["schemas"][named] if named else schema
                assert isinstance(response.json(), {"object": dict, "array": list}[schema["type"]]), (method, path)


@pytest.mark.parametrize("nested", [True, False])
def test_json_lists_may_be_flat_or_nested(
    http: httpx.Client, bundle: Bundle, images: NDArray[np.uint8], nested: bool
) -> None:
    data = images.tolist() if nested else images.ravel().tolist()
    response = http.post(INFER, json=one(shape=list(images.shape), data=data)).json()
    said = np.array(response["outputs"][0]["data"]).reshape(response["outputs"][0]["shape"])
    np.testing.assert_allclose(said, direct_answers(bundle, images).mean(axis=0), atol=1e-6)


def test_a_body_of_nothing_but_samples_is_read(http: httpx.Client, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    response = http.post(INFER, content=images.tobytes(), headers={"inference-header-content-length": "0"})
    length = int(response.headers["inference-header-content-length"])
    said = np.frombuffer(response.content[length : length + 80], "<f4").reshape(5, 4)
    np.testing.assert_allclose(said, direct_answers(bundle, images).mean(axis=0), atol=1e-6)


def test_a_failing_engine_is_500_with_its_cause_in_one_line(http: httpx.Client, engine: StandIn) -> None:
    engine.broken = True
    try:
        response = http.post(INFER, json=one())
    finally:
        engine.broken = False
    assert response.status_code == 500
    assert response.json()["error"] == "member 00000-e003 died three times: no memory"


def test_an_answer_without_all_members_says_so(http: httpx.Client, engine: StandIn) -> None:
    engine.partial = True
    try:
        response = http.post(INFER, json=one())
    finally:
        engine.partial = False
    assert response.json()["parameters"]["partial"] is True


def test_a_request_later_than_it_asked_for_is_504(http: httpx.Client, engine: StandIn) -> None:
    engine.gate.clear()
    try:
        response = http.post(INFER, json={**one(), "parameters": {"timeout": 50_000}})
    finally:
        engine.gate.set()
    assert response.status_code == 504
    assert "0.05 s" in response.json()["error"]


@pytest.fixture(scope="module")
def narrow(bundle: Bundle) -> Iterator[tuple[ServerHandle, StandIn]]:
    """Start a server with small limits."""
    limits = Limits(body=20_000, json=5_000, samples=8, requests=2, held=30_000, timeout=0.4, body_timeout=0.4)
    engine = StandIn(bundle)
    with start_in_thread(engine, limits=limits) as running:
        yield running, engine
    engine.close()


def test_a_declared_body_over_the_limit_is_refused_unread(narrow: tuple[ServerHandle, StandIn]) -> None:
    host, port = narrow[0].url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 20001\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 413"


def test_a_streamed_body_is_refused_at_the_limit(narrow: tuple[ServerHandle, StandIn]) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(40):
            sent += 10_000
            yield bytes(10_000)

    response = httpx.post(narrow[0].url + INFER, content=endless(), trust_env=False)
    assert response.status_code == 413
    assert "limit 20000" in response.json()["error"]


def test_a_client_that_sends_all_before_it_reads_gets_its_refusal(narrow: tuple[ServerHandle, StandIn]) -> None:
    host, port = narrow[0].url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n".encode())
        client.sendall(bytes(9_000_000))
        time.sleep(0.1)
        assert client.recv(12) == b"HTTP/1.1 413"


def test_long_json_is_refused_in_favour_of_raw_tensors(narrow: tuple[ServerHandle, StandIn]) -> None:
    response = httpx.post(narrow[0].url + INFER, content=b" " * 6000, trust_env=False)
    assert response.status_code == 413
    assert "binary tensors" in response.json()["error"]


def test_a_body_that_unpacks_beyond_the_limit_is_refused(narrow: tuple[ServerHandle, StandIn]) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    response = httpx.post(
        narrow[0].url + INFER, content=bomb[:19_000], headers={"content-encoding": "gzip"}, trust_env=False
    )
    assert response.status_code == 413


def test_too_many_samples_are_refused(narrow: tuple[ServerHandle, StandIn]) -> None:
    response = httpx.post(narrow[0].url + INFER, json=one(shape=[9, *SHAPE], data=[1]), trust_env=False)
    assert response.status_code == 400
    assert "1 to 8" in response.json()["error"]


def test_a_body_that_does_not_come_is_408(narrow: tuple[ServerHandle, StandIn]) -> None:
    host, port = narrow[0].url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert client.recv(12) == b"HTTP/1.1 408"


def test_no_more_requests_are_taken_than_the_limit(narrow: tuple[ServerHandle, StandIn]) -> None:
    running, engine = narrow
    engine.gate.clear()
    try:
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(httpx.post, running.url + INFER, json=one(), trust_env=False) for _ in range(2)]
            time.sleep(0.25)
            response = httpx.post(running.url + INFER, json=one(), trust_env=False)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert {w.result().status_code for w in waiting} == {504}
    finally:
        engine.gate.set()
    assert httpx.post(running.url + INFER, json=one(), trust_env=False).status_code == 200


def test_a_client_that_leaves_gives_its_place_back(narrow: tuple[ServerHandle, StandIn]) -> None:
    host, port = narrow[0].url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    time.sleep(0.05)
    assert httpx.post(narrow[0].url + INFER, json=one(), trust_env=False).status_code == 200


def test_float_bundles_take_floats_only(tmp_path: Any) -> None:
    bundle = write_small_bundle(tmp_path, dtype="float32")
    images = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    engine = StandIn(bundle)
    with start_in_thread(engine) as running:
        body, headers = binary({"shape": [2, *SHAPE], "datatype": "FP32", **raw(8 * SIZE)}, images.tobytes(), id="xy")
        response = httpx.post(running.url + INFER, content=body, headers=headers, trust_env=False).json()
        np.testing.assert_allclose(
            np.reshape(response["outputs"][0]["data"], (2, 4)), direct_answers(bundle, images).mean(axis=0), atol=1e-6
        )
        refused = httpx.post(running.url + INFER, json=one(), trust_env=False)
        assert "must be FP32" in refused.json()["error"]
        huge = httpx.post(running.url + INFER, json=one(datatype="FP32", data=[1e300] * SIZE), trust_env=False)
        assert "finite" in huge.json()["error"]
    engine.close()


DOCUMENTS = ("", "/models/ensemble", "/models/ensemble/config", "/models/ensemble/stats", "/models/stats", "/nowhere")
PATHS = ("/", "/metrics", "/openapi.json", "/overview", "/v2/health/live", *(f"/v2{path}" for path in DOCUMENTS))


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_id_of_its_request_once(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers={"x-request-id": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"]


def test_all_members_of_a_gzip_body_are_read(http: httpx.Client) -> None:
    text = json.dumps(one()).encode()
    packed = gzip.compress(text[:40]) + gzip.compress(text[40:41]) + gzip.compress(b"") + gzip.compress(text[41:])
    assert http.post(INFER, content=packed, headers={"content-encoding": "gzip"}).status_code == 200


def test_an_answer_too_long_is_refused_before_the_engine_is_asked(engine: StandIn, images: NDArray[np.uint8]) -> None:
    many = np.zeros((400, *SHAPE), np.uint8)
    asked = {"name": "probabilities", "parameters": {"classification": 4}}
    tensor = {"name": "images", "shape": list(many.shape), "datatype": "UINT8"}
    with start_in_thread(engine, limits=Limits(reply=40_000)) as running:
        for outputs, status in (([asked], 413), ([{"name": "probabilities"}], 200)):
            head = json.dumps(
                {"inputs": [{**tensor, "parameters": {"binary_data_size": many.size}}], "outputs": outputs}
            )
            headers = {"inference-header-content-length": str(len(head))}
            answer = httpx.post(
                running.url + INFER, content=head.encode() + many.tobytes(), headers=headers, trust_env=False
            )
            assert answer.status_code == status, answer.text[:200]


def test_long_answers_are_written_as_short_ones_are(engine: StandIn) -> None:
    many = np.random.default_rng(0).integers(0, 256, (9000, *SHAPE), np.uint8)
    outputs = [
        {"name": "probabilities"},
        {"name": "label"},
        {"name": "probabilities", "parameters": {"classification": 2}},
    ]
    tensor = {"name": "images", "shape": list(many.shape), "datatype": "UINT8"}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": many.size}}], "outputs": outputs})
    with start_in_thread(engine) as running:
        headers = {"inference-header-content-length": str(len(head))}
        answer = httpx.post(
            running.url + INFER, content=head.encode() + many.tobytes(), headers=headers, trust_env=False, timeout=60
        ).json()
    expected = direct_answers(engine.bundle, many).mean(axis=0)
    probabilities, labels, best = (output["data"] for output in answer["outputs"])
    np.testing.assert_allclose(np.reshape(probabilities, expected.shape), expected, atol=1e-5)
    assert labels == [engine.bundle.classes[i] for i in expected.argmax(axis=1)]
    assert len(best) == 2 * len(many)
    assert best[0].endswith(labels[0])
