"""Fast path for small inference requests: answered in protocol callbacks, without a task or an ASGI scope.

Theory of operation. Nearly all requests of a busy server are alike: an inference that needs only the engine, with a
body that arrives together with the headers. For these, most of the time in the server would be overhead (a task, an
ASGI scope, messages, an asyncio future, timers). `FastPathCycle` replaces uvicorn's request cycle and answers from
callbacks instead. It uses the same decoder, admission, statistics and encoder. It does not start any other request:
`try_start` returns False without side effects, and the connection passes the request to `app.InferenceApp`, which
handles every error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Protocol

import orjson

from ripieno.errors import EngineError
from ripieno.server import oip_decode
from ripieno.server.auth import is_authorized
from ripieno.server.http_errors import sanitize, timeout_error, without_paths
from ripieno.server.loop_callbacks import CallbackBatcher
from ripieno.server.offload import AT_ONCE
from ripieno.server.oip_encode import size_of, write_response
from ripieno.server.signature import VERSION

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer
    from ripieno.server.app import InferenceApp

log = logging.getLogger("ripieno.server")

Headers = list[tuple[bytes, bytes]]
ORDINARY = frozenset({b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers that only the ASGI path handles."""
PLAIN = frozenset({"binary_data_output"})
"""Parameters that change neither the timing of a request nor the members that predict."""
_STATUS = {200: b"HTTP/1.1 200 OK\r\n", 500: b"HTTP/1.1 500 Internal Server Error\r\n",
           504: b"HTTP/1.1 504 Gateway Timeout\r\n"}  # fmt: skip


class ConnectionProtocol(Protocol):
    """Interface of a connection that a cycle needs."""

    headers: Headers
    """of the last request with complete headers"""

    @property
    def default_headers(self) -> Headers:
        """Headers of every response."""
        ...

    def answered(self, content: bytes, keep_alive: bool) -> None:
        """Send a complete response; the connection is free for the next request."""
        ...


class _NoopEvent:
    """Event without effect: nothing awaits a cycle without a task."""

    def set(self) -> None:
        """Do nothing; same signature as `asyncio.Event.set`."""


class FastPathCycle:
    """One in-flight request on the fast path; has the attributes that uvicorn's protocol needs of a request cycle."""

    def __init__(
        self, app: InferenceApp, callbacks: CallbackBatcher, connection: ConnectionProtocol, model: str
    ) -> None:
        self._app, self._callbacks, self._connection = app, callbacks, connection
        self._model = app.models.by_name[model]
        self._headers = connection.headers  # the connection soon replaces them by those of the next request
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.message_event = _NoopEvent()
        self._future: Future[Answer] | None = None

    def try_start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Submit the request to the engine; return False without side effects when it needs the ASGI path."""
        app, model, limits = self._app, self._model, self._app.limits
        headers = dict(self._headers)
        if app.traces is not None or log.isEnabledFor(logging.INFO):
            return False
        if not ORDINARY.isdisjoint(headers):
            return False
        if app.token is not None and not is_authorized(headers.get(b"authorization", b""), app.token):
            return False
        permit = None
        try:
            body = bytes(self.body)
            length = oip_decode.read_header_length(headers.get(b"inference-header-content-length"))
            if (len(body) if length is None else length) > limits.json:
                return False
            request = oip_decode.read_request(body, length, model.signature)
            short = size_of(request, model.signature) <= min(AT_ONCE, limits.reply)
            if not short or not PLAIN.issuperset(request.parameters):
                return False
            permit = app.admission.enter()
            permit.hold(len(body))
            self._began = time.perf_counter()
            future = model.submit(request)
        except Exception:  # the ASGI path meets the same error and reports it
            if permit is not None:
                permit.leave()
            return False
        self._ticket, self._request, self._future = permit, request, future
        model.engine.users += 1
        self._timeout_timer = loop.call_later(limits.timeout, self._time_out)
        future.add_done_callback(self._schedule_done)
        return True

    def cancel(self) -> None:
        """Cancel the request of a client that has disconnected."""
        if self._end() and self._future is not None:
            self._future.cancel()

    def _schedule_done(self, _: Future[Answer]) -> None:
        self._callbacks.put(self._done)

    def _end(self) -> bool:
        """Release the request's resources, once."""
        if self.response_complete or self._future is None:
            return False
        self.response_complete = True
        self._timeout_timer.cancel()
        self._ticket.leave()
        self._model.engine.users -= 1
        return True

    def _done(self) -> None:
        """Send the engine's result or error; runs in the event loop."""
        if not self._end():
            return
        assert self._future is not None
        seconds = time.perf_counter() - self._began
        try:
            answer = self._future.result()
            content, length = write_response(self._request, answer, self._model.signature, VERSION)
        except (EngineError, CancelledError) as error:
            folder = self._model.engine.engine.bundle.path
            self._fail(500, without_paths(str(error), folder) or "The request was cancelled.", seconds)
        except Exception as error:
            log.exception("unhandled exception while answering a request")
            self._fail(500, f"Internal server error: {type(error).__name__}", seconds)
        else:
            self._model.stats.answered(len(self._request.images), seconds, answer.partial)
            kind = b"application/json" if length is None else b"application/octet-stream"
            extra = b"" if length is None else b"inference-header-content-length: %d\r\n" % length
            self._send(200, content, kind, extra)

    def _time_out(self) -> None:
        if self._end():
            assert self._future is not None
            self._future.cancel()
            timeout = self._app.limits.timeout
            self._fail(504, str(timeout_error(timeout)), timeout)

    def _fail(self, status: int, message: str, seconds: float) -> None:
        self._model.stats.failed(status, seconds)
        self._app.admission.refused[status] += 1
        line = sanitize(message)
        log.warning("%s", line, extra={"status": status})
        self._send(status, orjson.dumps({"error": line}), b"application/json")

    def _send(self, status: int, content: oip_decode.Buffer, kind: bytes, extra: bytes = b"") -> None:
        connection = self._connection
        name = self._app.name_of(self._headers).encode()
        head = [_STATUS[status], *[b"%s: %s\r\n" % pair for pair in connection.default_headers]]
        head.append(b"content-length: %d\r\nx-request-id: %s\r\ncontent-type: %s\r\n" % (len(content), name, kind))
        head.append(extra if self.keep_alive else extra + b"connection: close\r\n")
        connection.answered(b"".join([*head, b"\r\n", content]), self.keep_alive)
