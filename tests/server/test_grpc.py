"""`tritonclient.grpc`, unchanged, sync and aio, over a real socket; and calls by hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from ripieno.errors import RipienoError
from ripieno.server import Limits, Running, start
from ripieno.server.proto import SERVICE, __main__, message, methods
from ripieno.types import Bundle
from tests.server.stand_in import CLASSES, MEMBERS, StandIn, direct_answers
from tests.server.wire import flight, soon


@pytest.fixture(scope="module")
def running(engine: StandIn) -> Iterator[Running]:
    with start(engine, grpc_port=0, limits=Limits(body=1 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(running.grpc) as client:
        yield client


def asked(images: NDArray[np.generic]) -> list[Any]:
    tensor = triton.InferInput("images", list(images.shape), {"uint8": "UINT8", "float32": "FP32"}[str(images.dtype)])
    tensor.set_data_from_numpy(images)
    return [tensor]


def test_the_shared_sequence_of_calls_is_answered(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ensemble")
    assert client.get_server_metadata().name == "ripieno"
    metadata = client.get_model_metadata("ensemble")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("images", "UINT8", [-1, 8, 8, 3])]
    config = client.get_model_config("ensemble").config
    assert (list(config.input[0].dims), config.input[0].data_type) == ([8, 8, 3], 2)
    assert [m.name for m in client.get_model_repository_index().models] == ["ensemble", *MEMBERS]
    before = client.get_inference_statistics("ensemble").model_stats[0].inference_count
    outputs = [triton.InferRequestedOutput(n) for n in ("probabilities", "label", "members", "spread")]
    result = client.infer("ensemble", asked(images), outputs=outputs, request_id="seven")
    each = direct_answers(bundle, images)
    np.testing.assert_allclose(result.as_numpy("probabilities"), each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(result.as_numpy("members"), each.transpose(1, 0, 2), atol=1e-6)
    assert [x.decode() for x in result.as_numpy("label")] == [CLASSES[i] for i in each.mean(axis=0).argmax(axis=1)]
    assert result.get_response().id == "seven"
    assert client.get_inference_statistics("ensemble").model_stats[0].inference_count == before + 5


def test_a_member_alone_and_float_images(
    client: triton.InferenceServerClient, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    said = client.infer(MEMBERS[1], asked(images.astype(np.float32))).as_numpy("probabilities")
    np.testing.assert_allclose(said, direct_answers(bundle, images)[1], atol=1e-6)


def test_the_aio_client_is_answered(running: Running, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    async def ask() -> NDArray[np.float32]:
        async with triton_aio.InferenceServerClient(running.grpc) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("ensemble", asked(images[i : i + 1])) for i in range(5)))
            return np.concatenate([r.as_numpy("probabilities") for r in results])

    np.testing.assert_allclose(asyncio.run(ask()), direct_answers(bundle, images).mean(axis=0), atol=1e-6)


def call(running: Running, **fields: Any) -> Any:
    """`ModelInfer` with these fields, by our own messages."""
    asked, answered = methods()["ModelInfer"]
    with grpc.insecure_channel(running.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", asked.SerializeToString, answered.FromString)
        return infer(asked(**{"model_name": "ensemble", **fields}), timeout=10)


def test_numbers_in_contents_are_read(running: Running, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [5, 8, 8, 3]}
    response = call(running, inputs=[{**tensor, "contents": {"uint_contents": images.ravel().tolist()}}])
    said = np.frombuffer(response.raw_output_contents[0], "<f4").reshape(5, 4)
    np.testing.assert_allclose(said, direct_answers(bundle, images).mean(axis=0), atol=1e-6)


ONE = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 3]}
MALFORMED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "another input": {"inputs": [{**ONE, "name": "x"}], "raw_input_contents": [bytes(192)]},
    "two raw contents": {"inputs": [ONE], "raw_input_contents": [bytes(192), b""]},
    "too few bytes": {"inputs": [ONE], "raw_input_contents": [bytes(191)]},
    "no contents": {"inputs": [ONE]},
    "too many numbers": {"inputs": [{**ONE, "contents": {"uint_contents": [1] * 193}}]},
    "too large numbers": {"inputs": [{**ONE, "contents": {"uint_contents": [256] * 192}}]},
    "numbers of another type": {"inputs": [{**ONE, "contents": {"fp32_contents": [1.0] * 192}}]},
    "NaN": {"inputs": [{**ONE, "datatype": "FP32", "contents": {"fp32_contents": [float("nan")] * 192}}]},
    "datatype": {"inputs": [{**ONE, "datatype": "BYTES"}], "raw_input_contents": [bytes(192)]},
    "rank": {"inputs": [{**ONE, "shape": [8, 8, 3]}], "raw_input_contents": [bytes(192)]},
    "huge rank": {"inputs": [{**ONE, "shape": [1] * 10000}], "raw_input_contents": [bytes(192)]},
    "huge shape": {"inputs": [{**ONE, "shape": [2**62, 8, 8, 3]}], "raw_input_contents": [bytes(192)]},
    "unknown output": {"inputs": [ONE], "raw_input_contents": [bytes(192)], "outputs": [{"name": "logits"}]},
    "many outputs": {"inputs": [ONE], "raw_input_contents": [bytes(192)], "outputs": [{"name": "label"}] * 1000},
    "timeout": {
        "inputs": [ONE],
        "raw_input_contents": [bytes(192)],
        "parameters": {"timeout": {"string_param": "soon"}},
    },
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_call_is_an_invalid_argument_in_one_line(running: Running, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(running, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(caught.value.details().splitlines()) == 1


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\n\xff", bytes(100)])
def test_bytes_that_are_no_message_are_an_invalid_argument(running: Running, raw: bytes) -> None:
    with grpc.insecure_channel(running.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(raw, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the bytes are no ModelInferRequest"


def test_bytes_take_their_place_before_they_become_a_message(engine: StandIn) -> None:
    asked, _ = methods()["ModelInfer"]
    sent = asked(model_name="ensemble", inputs=[ONE], raw_input_contents=[bytes(192)]).SerializeToString()
    with (
        start(engine, grpc_port=0, limits=Limits(held=2 * len(sent))) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        engine.gate.clear()
        try:
            first = infer.future(sent, timeout=10)
            assert soon(lambda: flight(running)["bytes"] == len(sent))
            with pytest.raises(grpc.RpcError) as caught:
                infer(b"\xff" * 2 * len(sent), timeout=10)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "requests under way hold" in caught.value.details()
        finally:
            engine.gate.set()
        assert first.result(10)


def test_other_refusals_have_their_status(
    running: Running, client: triton.InferenceServerClient, engine: StandIn, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nobody'") as caught:
        client.infer("nobody", asked(images))
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        client.infer("ensemble", asked(np.zeros((6000, 8, 8, 3), np.uint8)))
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("ensemble")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    engine.gate.clear()
    try:
        hurried = {"parameters": {"timeout": {"int64_param": 50_000}}}
        with pytest.raises(grpc.RpcError) as late:
            call(running, inputs=[ONE], raw_input_contents=[bytes(192)], **hurried)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(InferenceServerException) as caught:
            client.infer("ensemble", asked(images), client_timeout=0.1)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    finally:
        engine.gate.set()


def test_a_call_under_way_is_finished_when_the_server_stops(bundle: Bundle, images: NDArray[np.uint8]) -> None:
    engine = StandIn(bundle)
    engine.gate.clear()
    running = start(engine, grpc_port=0)
    with triton.InferenceServerClient(running.grpc) as client:
        client.is_server_live()
        answers: list[Any] = []
        client.async_infer("ensemble", asked(images), lambda result, error: answers.append(error or result))
        time.sleep(0.1)
        threading.Timer(0.3, engine.gate.set).start()
        running.stop()
        time.sleep(0.05)
        np.testing.assert_allclose(
            answers[0].as_numpy("probabilities"), direct_answers(bundle, images).mean(axis=0), atol=1e-6
        )
    engine.close()


def test_a_taken_grpc_port_is_one_line(running: Running, engine: StandIn) -> None:
    port = int(running.grpc.rpartition(":")[2])
    with pytest.raises(RipienoError, match=f"port {port} of 127.0.0.1 is in use"):
        start(engine, grpc_port=port)


def test_the_compiled_protocol_is_that_of_the_proto_file(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools, which compiles the protocol at development time")
    __main__.compile_to(tmp_path / "oip.desc")
    assert (tmp_path / "oip.desc").read_bytes() == (Path(__main__.__file__).parent / "oip.desc").read_bytes()


def test_the_messages_are_those_that_clients_send() -> None:
    from tritonclient.grpc import service_pb2

    theirs = service_pb2.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"xy"])
    theirs.inputs.add(name="images", datatype="UINT8", shape=[1, 2])
    theirs.parameters["timeout"].int64_param = 9
    ours = message("ModelInferRequest").FromString(theirs.SerializeToString())
    assert str(ours) == str(theirs)
