"""Mixed traffic for a server: clients of every kind, each answer compared with the right one; some disconnect midway.

HTTP is written by hand, so that a connection closed without an answer, or within it, is detected. Nothing is
retried implicitly: a 503 or 504 is counted, and the client continues with another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import random
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
from client import grpc_request, http_request, oip_body
from faults import TOLERANCE
from PIL import Image

from ripieno.data.prediction_inputs import load_image
from ripieno.server.proto import SERVICE, message
from ripieno.types import Input

PATIENCE = 120.0
"""Timeout in seconds, after which a request counts as lost; the server answers 504 after 30."""
SMALL, LARGE = (1, 1, 2, 4, 16), (64, 256, 1024)
"""Images per request."""
KINDS = (("PNG", 32, 32), ("JPEG", 300, 200), ("WEBP", 64, 64), ("JPEG", 1600, 1200))
"""Kinds of pictures: format, width, height."""
INFER = "/v2/models/ensemble/infer"
GRPC = {"RESOURCE_EXHAUSTED": "503", "DEADLINE_EXCEEDED": "504"}
"""gRPC statuses of a permitted refusal, with HTTP's code."""


@dataclass
class Known:
    """Images of the requests, and the right answers."""

    images: np.ndarray
    """(images, *shape); the last are those of `pictures`"""
    truths: list[np.ndarray]
    """(members, images, classes) of each bundle"""
    members: list[str]
    pictures: list[bytes] = field(default_factory=list)
    valid: frozenset[int] = frozenset({0})
    """bundles that may answer now"""

    def right(self, answer: np.ndarray, rows: np.ndarray, bundles: frozenset[int], members: Sequence[str]) -> bool:
        """Return whether `answer` is that of one of `bundles` about the images `rows`, from `members` of it."""
        asked = [self.members.index(member) for member in members]
        truths = [self.truths[b][asked][:, rows].mean(axis=0) for b in bundles]
        return any(answer.shape == t.shape and np.abs(answer - t).max() < TOLERANCE for t in truths)


def pictures(shown: np.ndarray, wanted: Input) -> tuple[list[bytes], np.ndarray]:
    """Return the images `shown` as files of several kinds and sizes, and each file as a sample of `wanted`."""
    files = []
    for image, (kind, *size) in zip(shown, itertools.cycle(KINDS), strict=False):
        file = io.BytesIO()
        Image.fromarray(image).resize(size).save(file, kind)
        files.append(file.getvalue())
    return files, np.stack([load_image(io.BytesIO(data), wanted) for data in files])


class UnansweredError(Exception):
    """A sent request got no answer, or an incomplete one."""


@dataclass
class Response:
    """An answer over HTTP; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A client's HTTP connection, persistent while the server keeps it open."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, part: float = 1.0) -> None:
        """Send the first `part` of a request. Raises ConnectionError if the server accepts no connections."""
        if self._streams is not None and self._streams[0].at_eof():  # the server closed the idle connection
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        self._streams[1].write(request[: max(1, int(len(request) * part))])

    async def answer(self) -> Response:
        """Read the answer. Raises UnansweredError if the server closes the connection before its end."""
        assert self._streams is not None
        reader = self._streams[0]
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            came = len(error.partial) if isinstance(error, asyncio.IncompleteReadError) else 0
            raise UnansweredError(f"{type(error).__name__} after {came} bytes") from None
        if headers.get("connection") == "close":
            self.close()
        return Response(int(first.split()[1]), headers, body)

    async def read(self, size: int) -> None:
        """Read at most `size` bytes of an answer. Raises UnansweredError if there are none."""
        assert self._streams is not None
        try:
            if not await self._streams[0].read(size):
                raise UnansweredError("closed without an answer")
        except OSError as error:
            raise UnansweredError(f"{type(error).__name__} before the answer") from None

    def close(self, reset: bool = False) -> None:
        """Close the connection; with `reset`, by a TCP reset."""
        if self._streams is not None:
            if reset:
                linger = struct.pack("ii", 1, 0)
                self._streams[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._streams[1].close()
        self._streams = None


class Traffic:
    """Clients of every kind, and the outcomes of their requests: `counts[kind][outcome]`.

    Outcomes: `right`, `wrong`, `lost`, `left` (the client disconnected on purpose), `turned away` (sent to a closed
    port), and any status but 200.
    """

    def __init__(self, url: str, grpc_address: str, known: Known, seed: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.host, self.port, self.grpc_address = host, int(port), grpc_address
        self.known = known
        self.dice = random.Random(seed)
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.errors: Counter[str] = Counter()
        self.longest: dict[str, float] = defaultdict(float)
        """seconds of the slowest request of each kind"""
        self.under_way = 0
        self._goes_on = True
        self.ending = False
        """whether SIGTERM was sent"""

    async def run(self, scale: int = 1) -> None:
        """Send requests until `stop`; wait for the last."""
        self._goes_on = True
        kinds: list[tuple[Callable[..., Awaitable[None]], int]] = [
            (self._json, 3), (self._binary, 4), (self._large, 2), (self._long_answer, 1), (self._member, 1),
            (self._partial, 1), (self._picture, 2), (self._form, 1), (self._grpc, 3), (self._grpc_large, 1),
            (self._grpc_cancelled, 2), (self._leaves_in_body, 2), (self._leaves_after_body, 2),
            (self._leaves_in_answer, 1), (self._probe, 1),
        ]  # fmt: skip
        async with grpc.aio.insecure_channel(self.grpc_address, [("grpc.max_receive_message_length", -1)]) as channel:
            self._infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            await asyncio.gather(*(self._client(kind) for kind, count in kinds for _ in range(count * scale)))

    def stop(self) -> None:
        """Let every client finish its current request."""
        self._goes_on = False

    def total(self, outcome: str) -> int:
        """Count the requests of every kind with this outcome."""
        return sum(counts[outcome] for counts in self.counts.values())

    def server_errors(self) -> dict[str, int]:
        """Count the statuses that no request may have."""
        seen: Counter[str] = sum(self.counts.values(), Counter())
        own = ("right", "wrong", "lost", "left", "turned away", "503", "504")
        return {status: count for status, count in seen.items() if status not in own}

    async def _client(self, ask: Callable[[Connection], Awaitable[str]]) -> None:
        """Run one client: a connection, and one request after the other."""
        connection, kind = Connection(self.host, self.port), ask.__name__.strip("_").replace("_", " ")
        while self._goes_on:
            began = time.monotonic()
            self.under_way += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    outcome = await ask(connection)
            except (UnansweredError, TimeoutError) as error:
                outcome = "lost"
                self.errors[f"{kind}: {type(error).__name__} {error} after {time.monotonic() - began:.1f} s"] += 1
                connection.close()
            except OSError as error:  # there was no connection and nothing was sent
                outcome = "turned away" if self.ending else "lost"
                if not self.ending:
                    self.errors[f"{kind}: {error}"] += 1
                connection.close()
            finally:
                self.under_way -= 1
            self.counts[kind][outcome] += 1
            self.longest[kind] = max(self.longest[kind], time.monotonic() - began)
            if outcome == "turned away":
                break
            if outcome in ("503", "504", "lost"):
                await asyncio.sleep(1.0)
            elif self.dice.random() < 0.1:
                connection.close()
            await asyncio.sleep(self.dice.random() if outcome == "left" else self.dice.choice((0, 0, 0.05)))
        connection.close()

    # requests

    def _draw(self, sizes: Sequence[int]) -> np.ndarray:
        """Draw the rows of a request's images; a long request wraps around."""
        size = self.dice.choice(sizes)
        return (self.dice.randrange(len(self.known.images)) + np.arange(size)) % len(self.known.images)

    def _body(self, rows: np.ndarray, parameters: dict | None = None) -> tuple[bytes, list[str]]:
        images = self.known.images[rows]
        if parameters is None:
            return oip_body(images)
        tensor = {"name": "images", "shape": images.shape, "datatype": "UINT8"}
        head = {"inputs": [{**tensor, "parameters": {"binary_data_size": images.nbytes}}], "parameters": parameters}
        text = json.dumps(head).encode()
        return text + images.tobytes(), [f"Inference-Header-Content-Length: {len(text)}"]

    async def _asked(self, connection: Connection, path: str, body: bytes, headers: list[str]) -> Response:
        await connection.send(http_request(self.host, path, body, headers))
        return await connection.answer()

    def _judged(self, rows: np.ndarray, bundles: frozenset[int], answer: np.ndarray, members: Sequence[str]) -> str:
        return "right" if self.known.right(answer, rows, bundles | self.known.valid, members) else "wrong"

    async def _tensor(
        self, connection: Connection, rows: np.ndarray, path: str, members: Sequence[str], **more: bool
    ) -> str:
        bundles = self.known.valid
        response = await self._asked(connection, path, *self._body(rows, {"binary_data_output": True, **more}))
        if response.status != 200:
            return self._refused(response)
        length = int(response.headers["inference-header-content-length"])
        head = json.loads(response.body[:length])
        first = head["outputs"][0]
        raw = response.body[length:][: first["parameters"]["binary_data_size"]]
        parameters = head.get("parameters", {})
        members = parameters["members"].split(",") if parameters.get("partial") else members
        answer = np.frombuffer(raw, "<f4").reshape(first["shape"])
        return self._judged(rows, bundles, answer, members)

    def _refused(self, response: Response) -> str:
        if response.status not in (503, 504):
            self.errors[f"{response.status} {response.body[:150]!r}"] += 1
        return str(response.status)

    # clients that wait for their answers

    async def _binary(self, connection: Connection) -> str:
        return await self._tensor(connection, self._draw(SMALL), INFER, self.known.members)

    async def _large(self, connection: Connection) -> str:
        return await self._tensor(connection, self._draw(LARGE), INFER, self.known.members)

    async def _member(self, connection: Connection) -> str:
        member = self.dice.choice(self.known.members)
        return await self._tensor(connection, self._draw(SMALL), f"/v2/models/{member}/infer", [member])

    async def _partial(self, connection: Connection) -> str:
        """Ask for a quick answer, possibly of some members only."""
        timeout = self.dice.choice((50_000, 500_000, 2_000_000))
        more = {"partial": True, "timeout": timeout}
        return await self._tensor(connection, self._draw(SMALL), INFER, self.known.members, **more)

    async def _json(self, connection: Connection) -> str:
        return await self._numbers(connection, self._draw(SMALL))

    async def _long_answer(self, connection: Connection) -> str:
        rows, bundles = self._draw(LARGE), self.known.valid
        raw, headers = self._body(rows, {})
        response = await self._asked(connection, INFER, raw, headers)
        return self._numbers_judged(response, rows, bundles)

    async def _numbers(self, connection: Connection, rows: np.ndarray) -> str:
        bundles = self.known.valid
        images = self.known.images[rows]
        data = images.tolist() if self.dice.random() < 0.5 else images.ravel().tolist()
        tensor = {"name": "images", "shape": images.shape, "datatype": "UINT8", "data": data}
        response = await self._asked(connection, INFER, json.dumps({"inputs": [tensor]}).encode(), [])
        return self._numbers_judged(response, rows, bundles)

    def _numbers_judged(self, response: Response, rows: np.ndarray, bundles: frozenset[int]) -> str:
        if response.status != 200:
            return self._refused(response)
        first = json.loads(response.body)["outputs"][0]
        return self._judged(rows, bundles, np.array(first["data"]).reshape(first["shape"]), self.known.members)

    async def _picture(self, connection: Connection) -> str:
        number = self.dice.randrange(len(self.known.pictures))
        return await self._shown(connection, [number], self.known.pictures[number], [])

    async def _form(self, connection: Connection) -> str:
        numbers = [self.dice.randrange(len(self.known.pictures)) for _ in range(3)]
        part = b'--b\r\nContent-Disposition: form-data; name="p"; filename="p%d"\r\n\r\n%s\r\n'
        body = b"".join(part % (i, self.known.pictures[i]) for i in numbers) + b"--b--\r\n"
        return await self._shown(connection, numbers, body, ["Content-Type: multipart/form-data; boundary=b"])

    async def _shown(self, connection: Connection, numbers: list[int], body: bytes, headers: list[str]) -> str:
        bundles, classes = self.known.valid, self.known.truths[0].shape[-1]
        rows = len(self.known.images) - len(self.known.pictures) + np.array(numbers)
        lines = [f"POST /predict?top={classes} HTTP/1.1", f"Host: {self.host}", *headers]
        request = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
        await connection.send(request)
        response = await connection.answer()
        if response.status != 200:
            return self._refused(response)
        predictions = [p["classes"] for p in json.loads(response.body)["predictions"]]
        answer = np.array([[p[f"class{i}"] for i in range(classes)] for p in predictions])
        return self._judged(rows, bundles, answer, self.known.members)

    async def _probe(self, connection: Connection) -> str:
        """Probe the server's liveness, which must never be refused."""
        await asyncio.sleep(0.2)
        request = f"GET /v2/health/live HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        await connection.send(request)
        status = (await connection.answer()).status
        return "right" if status == 200 else str(status)

    async def _grpc(self, _: Connection) -> str:
        return await self._called(self._draw(SMALL))

    async def _grpc_large(self, _: Connection) -> str:
        return await self._called(self._draw(LARGE))

    async def _called(self, rows: np.ndarray) -> str:
        bundles, sent_before = self.known.valid, not self.ending
        request = grpc_request("ensemble", self.known.images[rows], False)
        try:
            raw = await self._infer(request)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code == "UNAVAILABLE" and not sent_before:
                return "turned away"
            if code in ("UNAVAILABLE", "CANCELLED"):
                raise UnansweredError(f"{code} {error.details()}") from None
            if code not in GRPC:
                self.errors[f"{code} {error.details()}"[:200]] += 1
            return GRPC.get(code, code)
        answer = np.frombuffer(message("ModelInferResponse").FromString(raw).raw_output_contents[0], "<f4")
        return self._judged(rows, bundles, answer.reshape(len(rows), -1), self.known.members)

    # clients that disconnect

    async def _grpc_cancelled(self, _: Connection) -> str:
        rows = self._draw(LARGE)
        call = self._infer(grpc_request("ensemble", self.known.images[rows], False))
        await asyncio.sleep(self.dice.random() * 0.3)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call
        return "left"

    async def _leaves_in_body(self, connection: Connection) -> str:
        request = http_request(self.host, INFER, *self._body(self._draw(LARGE)))
        await connection.send(request, self.dice.random())
        await asyncio.sleep(self.dice.random() * 0.1)
        return self._left(connection)

    async def _leaves_after_body(self, connection: Connection) -> str:
        rows = self._draw(SMALL + LARGE)
        await connection.send(http_request(self.host, INFER, *self._body(rows)))
        await asyncio.sleep(self.dice.random() * 0.3)
        return self._left(connection)

    async def _leaves_in_answer(self, connection: Connection) -> str:
        raw, headers = self._body(self._draw(LARGE), {})
        await connection.send(http_request(self.host, INFER, raw, headers))
        await connection.read(1000)
        return self._left(connection)

    def _left(self, connection: Connection) -> str:
        connection.close(reset=self.dice.random() < 0.5)
        return "left"
