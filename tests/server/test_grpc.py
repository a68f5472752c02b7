"""`tritonclient.grpc`, unchanged, sync and aio, over a real socket; and calls by hand."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
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
from ripieno.server import Limits, ServerHandle, start_in_thread
from ripieno.server.proto import SERVICE, __main__, message, methods
from ripieno.types import Bundle
from tests.server.stand_in import CLASSES, MEMBERS, StandIn, direct_answers
from tests.server.wire import flight, soon


@pytest.fixture(scope="module")
def running(engine: StandIn) -> Iterator[ServerHandle]:
    with start_in_thread(engine, grpc_port=0, limits=Limits(body=1 << 20)) as running:
        yield running


@pytest.fixture(scope="module")
def client(running: ServerHandle) -> Iterator[triton.InferenceServerClient]:
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


def test_the_aio_client_is_answered(running: ServerHandle, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    async def ask() -> NDArray[np.float32]:
        async with triton_aio.InferenceServerClient(running.grpc) as client:
            assert await client.is_server_ready()
            results = await asyncio.gather(*(client.infer("ensemble", asked(images[i : i + 1])) for i in range(5)))
            return np.concatenate([r.as_numpy("probabilities") for r in results])

    np.testing.assert_allclose(asyncio.run(ask()), direct_answers(bundle, images).mean(axis=0), atol=1e-6)


def call(running: ServerHandle, **fields: Any) -> Any:
    """Call `ModelInfer` with these fields, with ripieno's message classes."""
    asked, answered = methods()["ModelInfer"]
    with grpc.insecure_channel(running.grpc) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", asked.SerializeToString, answered.FromString)
        return infer(asked(**{"model_name": "ensemble", **fields}), timeout=10)


def test_numbers_in_contents_are_read(running: ServerHandle, bundle: Bundle, images: NDArray[np.uint8]) -> None:
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
def test_a_malformed_call_is_an_invalid_argument_in_one_line(running: ServerHandle, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(running, **fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(caught.value.details().splitlines()) == 1


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\n\xff", bytes(100)])
def test_bytes_that_are_no_message_are_an_invalid_argument(running: ServerHandle, raw: bytes) -> None:
    with grpc.insecure_channel(running.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(raw, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "The message is not a valid ModelInferRequest."


def test_a_small_message_is_read_while_there_is_no_room_for_the_longest(
    engine: StandIn, images: NDArray[np.uint8]
) -> None:
    asked_for, _ = methods()["ModelInfer"]
    sent = asked_for(model_name="ensemble", inputs=[ONE], raw_input_contents=[bytes(192)]).SerializeToString()
    with (
        start_in_thread(engine, grpc_port=0, limits=Limits(body=4000, held=4000)) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        engine.gate.clear()
        try:
            calls = [infer.future(sent, timeout=10) for _ in range(3)]
            assert soon(lambda: flight(running)["bytes"] > 3 * len(sent)), "all three messages and their answers"
        finally:
            engine.gate.set()
        for call in calls:
            call.result(10)


def test_messages_together_hold_no_more_than_is_allowed(engine: StandIn) -> None:
    asked_for, _ = methods()["ModelInfer"]
    sent = asked_for(model_name="ensemble", inputs=[ONE], raw_input_contents=[bytes(192)]).SerializeToString()
    with (
        start_in_thread(engine, grpc_port=0, limits=Limits(body=4000, held=2 * len(sent))) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        engine.gate.clear()
        try:
            first = infer.future(sent, timeout=10)
            assert soon(lambda: flight(running)["bytes"] > len(sent))
            with pytest.raises(grpc.RpcError) as caught:
                infer(sent, timeout=10)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "Too many bytes in flight" in caught.value.details()
        finally:
            engine.gate.set()
        first.result(10)


def test_other_refusals_have_their_status(
    running: ServerHandle, client: triton.InferenceServerClient, engine: StandIn, images: NDArray[np.uint8]
) -> None:
    with pytest.raises(InferenceServerException, match="Not found: model 'absent'") as caught:
        client.infer("absent", asked(images))
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
    running = start_in_thread(engine, grpc_port=0)
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


def test_calls_that_have_come_but_not_begun_are_answered_when_the_server_stops(
    bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    with start_in_thread(StandIn(bundle), grpc_port=0) as running, triton.InferenceServerClient(running.grpc) as client:
        client.is_server_live()
        loop = running._server._loop
        assert loop is not None
        loop.call_soon_threadsafe(time.sleep, 0.7)
        time.sleep(0.1)
        said: list[Any] = []
        for _ in range(20):
            client.async_infer("ensemble", asked(images), lambda result, error: said.append(error or result))
        time.sleep(0.1)
        running._server.stop()
        assert soon(lambda: len(said) == 20)
        assert [s for s in said if isinstance(s, Exception)] == []


def test_a_server_that_stops_for_a_while_refuses_new_calls_as_unavailable(
    bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    engine = StandIn(bundle)
    engine.gate.clear()
    with start_in_thread(engine, grpc_port=0) as running, triton.InferenceServerClient(running.grpc) as client:
        said: list[Any] = []
        client.async_infer("ensemble", asked(images), lambda result, error: said.append(error or result))
        time.sleep(0.2)
        running._server.stop()
        time.sleep(1.0)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("ensemble", asked(images))
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        engine.gate.set()
        assert soon(lambda: bool(said))
        assert not isinstance(said[0], Exception)


def test_a_taken_grpc_port_is_one_line(running: ServerHandle, engine: StandIn) -> None:
    port = int(running.grpc.rpartition(":")[2])
    with pytest.raises(RipienoError, match=f"Cannot bind 127.0.0.1:{port}: address in use"):
        start_in_thread(engine, grpc_port=port)


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


def resident() -> int:
    """Return the resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS"))


SENDER = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", -1)])
call = channel.unary_unary(sys.argv[2])
calls = [call.future(bytes(48 << 20), timeout=60) for _ in range(8)]
print(*sorted({c.code().name for c in calls}))
"""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{SERVICE}/ModelInfer", "UNAUTHENTICATED"),
        (f"/{SERVICE}/ServerLive", "OK"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "UNAUTHENTICATED"),
        ("/grpc.health.v1.Health/Check", "INVALID_ARGUMENT"),
    ],
)
def test_large_messages_without_a_token_take_no_memory(engine: StandIn, path: str, status: str) -> None:
    """Health checks are read one by one, because they contain the name of a service."""
    with start_in_thread(engine, grpc_port=0, token="secret") as running:
        before = resident()
        arguments = [sys.executable, "-c", SENDER, running.grpc, path]
        sender = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        most = before
        while sender.poll() is None:
            most = max(most, resident())
            time.sleep(0.01)
        assert sender.communicate()[0].split() == [status]
        assert most - before < (300 if "Health" in path else 150)


def begin_calls(slow: socket.socket, count: int) -> None:
    """Start calls over raw HTTP/2 and never complete their messages."""
    path = b"/inference.GRPCInferenceService/ModelInfer"
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    block = b"".join(b"\x00" + bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in fields)
    begun = b"\x00" + (1 << 19).to_bytes(4, "big") + b"x"

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, b"")]
    for stream in range(1, 2 * count, 2):
        sent += [frame(1, 4, stream, block), frame(0, 0, stream, begun)]
    slow.sendall(b"".join(sent))


def test_messages_that_never_end_give_way_to_those_of_another_connection(
    engine: StandIn, images: NDArray[np.uint8]
) -> None:
    limits = Limits(body=1 << 20, held=4 << 20, body_timeout=20)
    with start_in_thread(engine, grpc_port=0, limits=limits) as running:
        host, port = running.grpc.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            begin_calls(slow, 80)
            assert soon(lambda: flight(running)["requests"] == 80)
            assert flight(running)["bytes"] == 3 << 20, "that of one more message is left to those that are here"
            began = time.monotonic()
            with triton.InferenceServerClient(running.grpc) as client:
                for _ in range(3):
                    client.infer("ensemble", asked(images))
            assert time.monotonic() - began < 8


def test_connections_have_a_limit(engine: StandIn) -> None:
    with start_in_thread(engine, grpc_port=0, limits=Limits(connections=3)) as running:
        host, port = running.grpc.split(":")
        clients = [socket.create_connection((host, int(port)), timeout=5) for _ in range(5)]
        assert [len(client.recv(9)) for client in clients] == [9, 9, 9, 0, 0], "settings, or the end"
        for client in clients:
            client.close()


def health_of(channel: grpc.Channel, service: str) -> str:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    asked = health_pb2.HealthCheckRequest(service=service)
    try:
        status = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10).status
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def test_health_is_reported_of_the_server_and_of_each_model_without_a_token(bundle: Bundle) -> None:
    engine = StandIn(bundle)
    with (
        start_in_thread(engine, grpc_port=0, token="secret") as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        asked = ("", SERVICE, "ensemble", MEMBERS[0], "absent")
        assert [health_of(channel, name) for name in asked] == [*["SERVING"] * 4, "NOT_FOUND"]
        engine.close()
        assert [health_of(channel, name) for name in asked] == [*["NOT_SERVING"] * 4, "NOT_FOUND"]


def test_every_call_has_an_id_in_its_trailing_metadata(engine: StandIn) -> None:
    """It does so for every outcome, also for unknown methods."""
    paths = {
        f"/{SERVICE}/ServerLive": "OK",
        f"/{SERVICE}/ServerMetadata": "UNAUTHENTICATED",
        "/grpc.health.v1.Health/Check": "OK",
        f"/{SERVICE}/ModelStreamInfer": "UNIMPLEMENTED",
        "/some.Other/Service": "UNIMPLEMENTED",
    }
    with (
        start_in_thread(engine, grpc_port=0, token="secret") as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        for path, code in paths.items():
            call = channel.unary_unary(path).future(b"", metadata=(("x-request-id", "mine"),), timeout=10)
            assert call.code().name == code
            assert dict(call.trailing_metadata())["x-request-id"] == "mine"
        call = channel.unary_unary(f"/{SERVICE}/ServerLive").future(b"", timeout=10)
        assert dict(call.trailing_metadata())["x-request-id"]


def test_grpc_listens_where_http_does(engine: StandIn) -> None:
    """A name resolves to one address for both protocols: gRPC would listen on all."""
    with start_in_thread(engine, host="localhost", grpc_port=0) as running:
        port = int(running.grpc.rsplit(":", 1)[1])
        for host in ("127.0.0.1", "::1"):
            there = []
            for number in (port, int(running.url.rsplit(":", 1)[1])):
                with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
                    there.append(client.connect_ex((host, number)) == 0)
            assert there[0] == there[1]


@pytest.mark.parametrize("service", ["", "absent"])
def test_a_health_watcher_does_not_delay_the_shutdown(bundle: Bundle, service: str) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with start_in_thread(StandIn(bundle), grpc_port=0) as running, grpc.insecure_channel(running.grpc) as channel:
        seen = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
        next(seen)
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 5


def test_health_is_watched_until_the_server_stops(bundle: Bundle) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with start_in_thread(StandIn(bundle), grpc_port=0) as running, grpc.insecure_channel(running.grpc) as channel:
        seen = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        states = health_pb2.HealthCheckResponse.ServingStatus
        assert next(seen).status == states.SERVING
        running._server.stop()
        assert next(seen).status == states.NOT_SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_the_services_are_listed_for_clients_that_carry_the_token(engine: StandIn, version: str) -> None:
    from grpc_reflection.v1alpha import reflection_pb2

    def ask(**metadata: str) -> Any:
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        return list(call(iter(requests), metadata=tuple(metadata.items()), timeout=10))

    with (
        start_in_thread(engine, grpc_port=0, token="secret") as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        services, files = ask(authorization="Bearer secret")
        assert SERVICE in [service.name for service in services.list_services_response.service]
        assert any(b"ModelInfer" in file for file in files.file_descriptor_response.file_descriptor_proto)
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
