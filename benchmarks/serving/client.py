"""The common client of all measured servers: written by hand over asyncio, to use little of the shared cores.

`Client(images, expected)` is a process of its own. Its `ask(server, load, seconds)` keeps `in_flight` requests
outstanding on separate connections, and compares every answer with the expected one: a wrong one ends the benchmark.

Protocols: `oip` (Open Inference Protocol v2 over HTTP, raw tensors), `raw` (HTTP, only samples in and numbers out),
`grpc` (the protocol over gRPC, raw tensors), `grpc-bytes` (the same, with each image and its answer as one element of
bytes).
"""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import uvloop

PATIENCE = 30.0
"""Grace period of a load in seconds: every request must be answered by then."""


@dataclass(frozen=True)
class Load:
    """Requests of `samples` images each, `in_flight` at once."""

    samples: int
    in_flight: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.samples}-image x {self.in_flight}"


LOADS = (Load(1, 1), Load(1, 8), Load(1, 64), Load(64, 4))
"""Loads of the project's figures."""


@dataclass(frozen=True)
class Server:
    """Address of a server, and the tolerance of its answers."""

    address: str
    """host:port"""
    protocol: str = "oip"
    path: str = "/v2/models/ensemble/infer"
    within: float = 1e-4


@dataclass(frozen=True)
class Seen:
    """Result of a load: images per second, milliseconds, and the largest difference from the expected answer."""

    throughput: float
    p50: float
    p99: float
    worst: float = 0.0


class WrongAnswerError(Exception):
    """An answer differs from the expected one, or is missing."""


@dataclass
class Judge:
    """Comparison of answers with the expected ones; bytes seen before are accepted at almost no cost."""

    within: float
    worst: float = 0.0
    known: dict[int, set[bytes]] = field(default_factory=dict)

    def check(self, first: int, expected: np.ndarray, raw: bytes) -> None:
        """Check `raw`, float32 numbers: the answer to the images from `first` on."""
        known = self.known.setdefault(first, set())
        if raw in known:
            return
        if len(raw) != expected.nbytes:
            raise WrongAnswerError(f"The answer has {len(raw)} bytes of numbers, expected {expected.nbytes}")
        off = float(np.abs(np.frombuffer(raw, "<f4") - expected.reshape(-1)).max())
        if not off <= self.within:
            raise WrongAnswerError(f"an answer is off by {off:.2g}")
        self.worst = max(self.worst, off)
        if len(known) < 256:
            known.add(raw)


def oip_request(host: str, model: str, images: np.ndarray) -> bytes:
    """Return a binary request of the Open Inference Protocol v2 for the output `probabilities`."""
    return http_request(host, f"/v2/models/{model}/infer", *oip_body(images))


def oip_body(images: np.ndarray) -> tuple[bytes, list[str]]:
    """Return body and headers of a binary request."""
    datatype = {"uint8": "UINT8", "float32": "FP32"}[str(images.dtype)]
    raw = images.tobytes()
    tensor = {"name": "images", "shape": images.shape, "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    return head + raw, [f"Inference-Header-Content-Length: {len(head)}"]


def http_request(host: str, path: str, body: bytes, headers: list[str]) -> bytes:
    """Return a POST request as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/octet-stream",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


Take = Callable[[bytes, float], bool]
"""Function of an answer and the time of its request; returns whether to send one more."""


class Asker(asyncio.Protocol):
    """A connection that repeats its request for as long as `take` asks for one more."""

    def __init__(self, request: bytes, take: Take) -> None:
        self._request, self._take = request, take
        self._came, self._start, self._wanted = b"", 0, 0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take a whole answer, then send the request again."""
        came = self._came + data if self._came else data
        if not self._wanted:
            self._start = came.find(b"\r\n\r\n") + 4
            if self._start < 4:
                self._came = came
                return
            head = came[: self._start].lower()
            if b"\ncontent-length: " not in head:
                self._end(WrongAnswerError(f"{came[:15].decode(errors='replace')}, of unknown length"))
                return
            self._wanted = self._start + int(head.split(b"\ncontent-length: ", 1)[1].split(b"\r", 1)[0])
        if len(came) < self._wanted:
            self._came = came
            return
        try:
            if not came.startswith(b"HTTP/1.1 200"):
                raise WrongAnswerError(came[:15].decode(errors="replace") + came[self._start :][:200].decode())
            more = self._take(came[self._start : self._wanted], self._sent)
        except WrongAnswerError as error:
            self._end(error)
            return
        self._came, self._wanted = b"", 0
        if more:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the lost connection."""
        self._end(exc or WrongAnswerError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error) if error else self.over.set_result(None)
        self._transport.close()


async def ask_http(server: Server, requests: list[bytes], takes: list[Take]) -> None:
    """Send each request on its own connection."""
    host, _, port = server.address.partition(":")
    loop = asyncio.get_running_loop()
    pairs = zip(requests, takes, strict=True)
    made = [loop.create_connection(functools.partial(Asker, *pair), host, int(port)) for pair in pairs]
    await asyncio.gather(*(asker.over for _, asker in await asyncio.gather(*made)))


async def ask_grpc(server: Server, requests: list[bytes], takes: list[Take]) -> None:
    """Send the requests over one channel, from bytes made once."""
    import grpc.aio

    from ripieno.server.proto import SERVICE, message

    answer = message("ModelInferResponse")
    async with grpc.aio.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)]) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")

        async def one(request: bytes, take: Take) -> None:
            more = True
            while more:
                sent = time.perf_counter()
                response = answer.FromString(await infer(request))
                raw = response.raw_output_contents
                more = take(raw[0] if raw else b"".join(response.outputs[0].contents.bytes_contents), sent)

        await asyncio.gather(*(one(*pair) for pair in zip(requests, takes, strict=True)))


def grpc_request(model: str, images: np.ndarray, elements: bool) -> bytes:
    """Return a protobuf with the images as raw bytes; with `elements`, one element of bytes per image."""
    from ripieno.server.proto import message

    request = message("ModelInferRequest")(model_name=model)
    request.outputs.add(name="probabilities")
    if elements:
        tensor = request.inputs.add(name="images", datatype="BYTES", shape=[len(images), 1])
        tensor.contents.bytes_contents.extend(image.tobytes() for image in images)
    else:
        request.inputs.add(name="images", datatype="UINT8", shape=images.shape)
        request.raw_input_contents.append(images.tobytes())
    return request.SerializeToString()


def requests_of(server: Server, batches: list[np.ndarray]) -> list[bytes]:
    """Return each of `batches` as a request of the server's protocol."""
    if server.protocol.startswith("grpc"):
        return [grpc_request("ensemble", images, server.protocol == "grpc-bytes") for images in batches]
    made = [oip_body(images) if server.protocol == "oip" else (images.tobytes(), []) for images in batches]
    return [http_request(server.address, server.path, *one) for one in made]


async def _all(server: Server, load: Load, images: np.ndarray, expected: np.ndarray, seconds: float) -> Seen:
    judge, taken = Judge(server.within), list[float]()
    firsts = [i % (len(images) - load.samples + 1) for i in range(load.in_flight)]
    requests = requests_of(server, [images[i : i + load.samples] for i in firsts])

    def taker(first: int) -> Take:
        """Return a `Take` that records the latency of each answer and checks it."""
        right = expected[first : first + load.samples]

        def take(body: bytes, sent: float) -> bool:
            now = time.perf_counter()
            taken.append(now - sent)
            # raw tensors come last in an answer
            judge.check(first, right, body[-right.nbytes :])
            return now < until

        return take

    ask = ask_grpc if server.protocol.startswith("grpc") else ask_http
    began = time.perf_counter()
    until = began + seconds
    async with asyncio.timeout(seconds + PATIENCE):
        await ask(server, requests, [taker(first) for first in firsts])
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
    """A client process; `expected` (samples, classes) are the right answers to `images`."""

    def __init__(self, images: np.ndarray, expected: np.ndarray) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_process, args=(theirs, images, expected), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, server: Server, load: Load, seconds: float) -> Seen:
        """Keep the server busy for about `seconds`. Raises WrongAnswerError on a missing or wrong answer."""
        self._pipe.send((server, load, seconds))
        result = self._pipe.recv()
        if isinstance(result, str):
            raise WrongAnswerError(result)
        return result

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()
