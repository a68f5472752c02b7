"""The one client of every server measured: HTTP by hand over asyncio, so that it takes little of the cores it shares.

`ask(url, load)` keeps `in_flight` requests under way on connections of their own for some seconds, and checks that
every answer has the right number of rows.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

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
class Seen:
    """What a client saw: images a second, milliseconds."""

    throughput: float
    p50: float
    p99: float


def oip_request(host: str, model: str, images: np.ndarray) -> bytes:
    """A binary request of the Open Inference Protocol v2 for the output `probabilities`."""
    datatype = {"uint8": "UINT8", "float32": "FP32"}[str(images.dtype)]
    raw = images.tobytes()
    tensor = {"name": "images", "shape": images.shape, "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    lines = [
        f"POST /v2/models/{model}/infer HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/octet-stream",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(raw)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + head + raw


async def _one(host: str, port: int, request: bytes, rows: bytes, until: float, taken: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (began := time.perf_counter()) < until:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = head.split(b"\ncontent-length: ", 1)[1].split(b"\r\n", 1)[0]
            body = await reader.readexactly(int(length))
            assert rows in body, body[:300]
            taken.append(time.perf_counter() - began)
    finally:
        writer.close()


async def _all(url: str, model: str, load: Load, images: np.ndarray, seconds: float) -> Seen:
    host, _, port = url.removeprefix("http://").partition(":")
    rows = f'"shape":[{load.samples},'.encode()
    requests = [oip_request(host, model, images[i : i + load.samples]) for i in range(load.in_flight)]
    taken: list[float] = []
    began = time.perf_counter()
    until = began + seconds
    await asyncio.gather(*(_one(host, int(port), request, rows, until, taken) for request in requests))
    passed = time.perf_counter() - began
    low, high = np.quantile(taken, [0.5, 0.99])
    return Seen(len(taken) * load.samples / passed, 1e3 * float(low), 1e3 * float(high))


def ask(url: str, load: Load, images: np.ndarray, seconds: float, model: str = "ensemble") -> Seen:
    """Keep the server busy for about `seconds`; answers that are none end the benchmark."""
    return uvloop.run(_all(url, model, load, images, seconds))
