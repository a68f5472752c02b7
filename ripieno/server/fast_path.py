"""The short way of a plain request: one that is small, comes at once, and needs nothing but the engine's answer.

Theory of operation. Nearly all requests of a busy server are alike: an inference, its body here as soon as its headers,
and nothing but the engine to ask. For these most of a request's time in the server would be the machinery around it
(a task, an ASGI scope, messages, an asyncio future, timers). `Express` stands in the place of uvicorn's cycle of a
request and answers it from callbacks instead: decoded by the same codec, counted by the same admission and tally,
written by the same reply. Whatever is not plain is not begun here: `begin` says no, nothing has happened, and the
connection goes the ordinary way through `app.Door`, which knows every refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Protocol

import orjson

from ripieno.errors import EngineError
from ripieno.server import oip_decode
from ripieno.server.auth import is_authorized
from ripieno.server.http_errors import sanitize, timeout_error, without_paths
from ripieno.server.offload import AT_ONCE
from ripieno.server.oip_encode import size_of, write_response
from ripieno.server.signature import VERSION

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer
    from ripieno.server.app import InferenceApp

log = logging.getLogger("ripieno.server")

Headers = list[tuple[bytes, bytes]]
ORDINARY = frozenset({b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers that only the ordinary way understands."""
PLAIN = frozenset({"binary_data_output"})
"""Parameters that say nothing about when or by whom a request is to be answered."""
_STATUS = {200: b"HTTP/1.1 200 OK\r\n", 500: b"HTTP/1.1 500 Internal Server Error\r\n",
           504: b"HTTP/1.1 504 Gateway Timeout\r\n"}  # fmt: skip


class CallbackBatcher:
    """Brings what other threads finished into the event loop: all that comes at about one time by one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._came: deque[Callable[[], None]] = deque()
        self._told = False

    def put(self, what: Callable[[], None]) -> None:
        """Have `what` called in the loop; any thread."""
        self._came.append(what)
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._open)

    def _open(self) -> None:
        self._told = False  # first: what comes from here on is either found below or told again
        while self._came:
            try:
                self._came.popleft()()
            except Exception:  # one that goes wrong must not keep the others waiting
                log.exception("a mistake of ours")


class ConnectionProtocol(Protocol):
    """The connection, as a cycle needs it."""

    headers: Headers
    """of the request whose headers came last"""

    @property
    def default_headers(self) -> Headers:
        """What every answer carries."""
        ...

    def answered(self, content: bytes, keep_alive: bool) -> None:
        """Send a whole answer; the connection is free for the next request."""
        ...


class _NoopEvent:
    """Nobody awaits a cycle that is no task."""

    def set(self) -> None:
        """As of `asyncio.Event`."""


class FastPathCycle:
    """One request under way by the short way; has what uvicorn's protocol asks of the cycle of a request."""

    def __init__(self, door: InferenceApp, mailbox: CallbackBatcher, wire: ConnectionProtocol, model: str) -> None:
        self._door, self._mailbox, self._wire, self._model = door, mailbox, wire, door.models.by_name[model]
        self._headers = wire.headers  # the connection's own are soon those of the next request
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.message_event = _NoopEvent()
        self._future: Future[Answer] | None = None

    def try_start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Ask the engine. False, with nothing done, when the request is not plain or cannot be taken."""
        door, model, limits = self._door, self._model, self._door.limits
        headers = dict(self._headers)
        if door.traces is not None or log.isEnabledFor(logging.INFO):
            return False
        if not ORDINARY.isdisjoint(headers):
            return False
        if door.token is not None and not is_authorized(headers.get(b"authorization", b""), door.token):
            return False
        ticket = None
        try:
            body = bytes(self.body)
            length = oip_decode.read_header_length(headers.get(b"inference-header-content-length"))
            if (len(body) if length is None else length) > limits.json:
                return False
            request = oip_decode.read_request(body, length, model.signature)
            short = size_of(request, model.signature) <= min(AT_ONCE, limits.reply)
            if not short or not PLAIN.issuperset(request.parameters):
                return False
            ticket = door.admission.enter()
            ticket.hold(len(body))
            self._began = time.perf_counter()
            future = model.submit(request)
        except Exception:  # the ordinary way meets it again, and says what it is
            if ticket is not None:
                ticket.leave()
            return False
        self._ticket, self._request, self._future = ticket, request, future
        model.engine.users += 1
        self._late = loop.call_later(limits.timeout, self._give_up)
        future.add_done_callback(self._tell)
        return True

    def cancel(self) -> None:
        """The client has closed its connection: its request is given up."""
        if self._end() and self._future is not None:
            self._future.cancel()

    def _tell(self, _: Future[Answer]) -> None:
        self._mailbox.put(self._done)

    def _end(self) -> bool:
        """Give back what the request held, once."""
        if self.response_complete or self._future is None:
            return False
        self.response_complete = True
        self._late.cancel()
        self._ticket.leave()
        self._model.engine.users -= 1
        return True

    def _done(self) -> None:
        """The engine has answered, or failed; in the event loop."""
        if not self._end():
            return
        assert self._future is not None
        took = time.perf_counter() - self._began
        try:
            answer = self._future.result()
            content, length = write_response(self._request, answer, self._model.signature, VERSION)
        except (EngineError, CancelledError) as error:
            folder = self._model.engine.engine.bundle.path
            self._fail(500, without_paths(str(error), folder) or "The request was cancelled.", took)
        except Exception as error:
            log.exception("unhandled exception while answering a request")
            self._fail(500, f"Internal server error: {type(error).__name__}", took)
        else:
            self._model.stats.answered(len(self._request.images), took, answer.partial)
            kind = b"application/json" if length is None else b"application/octet-stream"
            extra = b"" if length is None else b"inference-header-content-length: %d\r\n" % length
            self._send(200, content, kind, extra)

    def _give_up(self) -> None:
        if self._end():
            assert self._future is not None
            self._future.cancel()
            timeout = self._door.limits.timeout
            self._fail(504, str(timeout_error(timeout)), timeout)

    def _fail(self, status: int, message: str, took: float) -> None:
        self._model.stats.failed(status, took)
        self._door.admission.refused[status] += 1
        said = sanitize(message)
        log.warning("%s", said, extra={"status": status})
        self._send(status, orjson.dumps({"error": said}), b"application/json")

    def _send(self, status: int, content: oip_decode.Buffer, kind: bytes, extra: bytes = b"") -> None:
        wire = self._wire
        name = self._door.name_of(self._headers).encode()
        head = [_STATUS[status], *[b"%s: %s\r\n" % pair for pair in wire.default_headers]]
        head.append(b"content-length: %d\r\nx-request-id: %s\r\ncontent-type: %s\r\n" % (len(content), name, kind))
        head.append(extra if self.keep_alive else extra + b"connection: close\r\n")
        wire.answered(b"".join([*head, b"\r\n", content]), self.keep_alive)
