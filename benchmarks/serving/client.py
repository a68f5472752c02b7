"""The one client of every server measured: by hand over asyncio, so that it takes little of the cores it shares.

`Client(images, expected)` is a process of its own. Its `ask(server, load, seconds)` keeps `in_flight` requests under
way on connections of their own, and compares every answer with the expected one: a wrong one ends the benchmark.

Protocols: `oip` (Open Inference Protocol v2 over HTTP, raw tensors), `raw` (HTTP, samples in and numbers out, nothing
else), `grpc` (the protocol over gRPC, raw tensors), `grpc-bytes` (the same, each image and its answer an element of
bytes).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import uvloop


@dataclass(frozen=True)
class Load:
    """Requests of `samples` images each, `in_flight` at once."""

    samples: int
    in_flight: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.samples}-image x {self.in_flight}"


LOADS = (Load(1, 1), Load(1, 8), Load(1, 64), Load(64, 4))
"""Those of the project's figures."""


@dataclass(frozen=True)
class Server:
    """Where a server answers, and how far from the expected its answers may be."""

    address: str
    """host:port"""
    protocol: str = "oip"
    path: str = "/v2/models/ensemble/infer"
    within: float = 1e-4


@dataclass(frozen=True)
class Seen:
    """What a client saw: images a second, milliseconds, and the worst difference from the expected."""

    throughput: float
    p50: float
    p99: float
    worst: float = 0.0


Call = Callable[[], Awaitable[bytes]]
"""Sends the same request once more, gives the body of the answer."""


class WrongAnswerError(Exception):
    """What came is not the expected answer."""


@dataclass
class Judge:
    """Compares answers with the expected; those seen before are known by their bytes, which costs nearly nothing."""

    within: float
    worst: float = 0.0
    known: dict[int, set[bytes]] = field(default_factory=dict)

    def check(self, first: int, expected: np.ndarray, raw: bytes) -> None:
        """`raw` are float32 numbers, the answer to the images from `first` on."""
        known = self.known.setdefault(first, set())
        if raw in known:
            return
        if len(raw) != expected.nbytes:
            raise WrongAnswerError(f"{len(raw)} bytes of numbers instead of {expected.nbytes}")
        off = float(np.abs(np.frombuffer(raw, "<f4") - expected.reshape(-1)).max())
        if not off <= self.within:
            raise WrongAnswerError(f"an answer is off by {off:.2g}")
        self.worst = max(self.worst, off)
        if len(known) < 256:
            known.add(raw)


def oip_request(host: str, model: str, images: np.ndarray) -> bytes:
    """A binary request of the Open Inference Protocol v2 for the output `probabilities`."""
    return http_request(host, f"/v2/models/{model}/infer", *oip_body(images))


def oip_body(images: np.ndarray) -> tuple[bytes, list[str]]:
    """Body and headers of a binary request."""
    datatype = {"uint8": "UINT8", "float32": "FP32"}[str(images.dtype)]
    raw = images.tobytes()
    tensor = {"name": "images", "shape": images.shape, "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    return head + raw, [f"Inference-Header-Content-Length: {len(head)}"]


def http_request(host: str, path: str, body: bytes, headers: list[str]) -> bytes:
    """A POST as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/octet-stream",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def http_calls(address: str, requests: list[bytes]) -> AsyncIterator[list[Call]]:
    """A connection for each request; a connection that was closed is opened again."""
    host, _, port = address.partition(":")
    opened: list[asyncio.StreamWriter] = []

    async def connect(request: bytes) -> Call:
        reader, writer = await asyncio.open_connection(host, int(port))
        opened.append(writer)

        async def call() -> bytes:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
            if not head.startswith(b"http/1.1 200"):
                raise WrongAnswerError(f"{head.splitlines()[0].decode()}: {body[:300]!r}")
            return body

        return call

    try:
        yield [await connect(request) for request in requests]
    finally:
        for writer in opened:
            writer.close()


@asynccontextmanager
async def grpc_calls(address: str, requests: list[bytes]) -> AsyncIterator[list[Call]]:
    """Calls over one channel, of bytes made once."""
    import grpc.aio

    from ripieno.server.proto import SERVICE, message

    answer = message("ModelInferResponse")
    async with grpc.aio.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

        def caller(request: bytes) -> Call:
            async def call() -> bytes:
                said = answer.FromString(await infer(request))
                if said.raw_output_contents:
                    return said.raw_output_contents[0]
                return b"".join(said.outputs[0].contents.bytes_contents)

            return call

        yield [caller(request) for request in requests]


def grpc_request(model: str, images: np.ndarray, elements: bool) -> bytes:
    """A protobuf with the images as raw bytes, or each as one of the `elements` of a tensor of bytes."""
    from ripieno.server.proto import message

    asked = message("ModelInferRequest")(model_name=model)
    asked.outputs.add(name="probabilities")
    if elements:
        tensor = asked.inputs.add(name="images", datatype="BYTES", shape=[len(images), 1])
        tensor.contents.bytes_contents.extend(image.tobytes() for image in images)
    else:
        asked.inputs.add(name="images", datatype="UINT8", shape=images.shape)
        asked.raw_input_contents.append(images.tobytes())
    return asked.SerializeToString()


def calls_of(server: Server, batches: list[np.ndarray]) -> object:
    """The calls that send each of `batches` to a server."""
    if server.protocol.startswith("grpc"):
        elements = server.protocol == "grpc-bytes"
        return grpc_calls(server.address, [grpc_request("ensemble", images, elements) for images in batches])
    made = [oip_body(images) if server.protocol == "oip" else (images.tobytes(), []) for images in batches]
    return http_calls(server.address, [http_request(server.address, server.path, *one) for one in made])


async def _all(server: Server, load: Load, images: np.ndarray, expected: np.ndarray, seconds: float) -> Seen:
    judge, taken = Judge(server.within), list[float]()
    firsts = [i % (len(images) - load.samples + 1) for i in range(load.in_flight)]

    async def one(call: Call, first: int) -> None:
        right = expected[first : first + load.samples]
        start = began
        while not taken or start < until:
            start = time.perf_counter()
            body = await call()
            taken.append(time.perf_counter() - start)
            # raw tensors come last in an answer
            judge.check(first, right, body[-right.nbytes :])

    async with calls_of(server, [images[i : i + load.samples] for i in firsts]) as calls:
        began = time.perf_counter()
        until = began + seconds
        await asyncio.gather(*(one(call, first) for call, first in zip(calls, firsts, strict=True)))
        passed = time.perf_counter() - began
    low, high = np.quantile(taken, [0.5, 0.99])
    return Seen(len(taken) * load.samples / passed, 1e3 * float(low), 1e3 * float(high), judge.worst)


def _process(pipe: Connection, images: np.ndarray, expected: np.ndarray) -> None:
    try:
        while True:
            server, load, seconds = pipe.recv()
            try:
                pipe.send(uvloop.run(_all(server, load, images, expected, seconds)))
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {error}"[:300])
    except EOFError:
        pass


class Client:
    """A process that asks; `expected` (samples, classes) are the right answers to `images`."""

    def __init__(self, images: np.ndarray, expected: np.ndarray) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_process, args=(theirs, images, expected), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, server: Server, load: Load, seconds: float) -> Seen:
        """Keep the server busy for about `seconds`. Raises WrongAnswerError on an answer that is none or wrong."""
        self._pipe.send((server, load, seconds))
        said = self._pipe.recv()
        if isinstance(said, str):
            raise WrongAnswerError(said)
        return said

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()
