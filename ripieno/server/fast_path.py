"""Fast path for small inference requests: answered in protocol callbacks, without a task or an ASGI scope.

Theory of operation. Nearly all requests of a busy server are alike: an inference that needs only the engine, with a
body that arrives together with the headers. For these, most of the time in the server would be overhead (a task, an
ASGI scope, messages, an asyncio future, timers). `FastPathCycle` replaces uvicorn's request cycle and answers from
callbacks instead, in the same steps: `check_token`, `Admission`, `Model` and `write_response`. It does not start any
other request: `try_start` returns False without side effects, and the connection passes the request to
`app.InferenceApp`, which handles every error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import orjson

from ripieno.errors import EngineError
from ripieno.server import oip_decode
from ripieno.server.auth import check_token
from ripieno.server.event_loop import AT_ONCE, CallbackBatcher
from ripieno.server.limits import Permit
from ripieno.server.oip_encode import write_response
from ripieno.server.signature import VERSION

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp
    from ripieno.server.connection import Connection

log = logging.getLogger("ripieno.server")

ORDINARY = frozenset({b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"})
"""Headers that only the ASGI path handles."""
PLAIN = frozenset({"binary_data_output", "coverage"})
"""Parameters that do not change the timing of a request; `submit` reads none of them."""
_UNUSED_EVENT = asyncio.Event()
"""Set by uvicorn when data arrives: nothing awaits a cycle without a task."""
_STATUS = {200: b"HTTP/1.1 200 OK\r\n", 500: b"HTTP/1.1 500 Internal Server Error\r\n",
           504: b"HTTP/1.1 504 Gateway Timeout\r\n"}  # fmt: skip


class FastPathCycle:
    """One in-flight request on the fast path; has the attributes that uvicorn's protocol needs of a request cycle."""

    def __init__(self, app: InferenceApp, callbacks: CallbackBatcher, connection: Connection, model: str) -> None:
        self._app, self._callbacks, self._connection = app, callbacks, connection
        self._model = app.models.by_name[model]
        self._headers = connection.headers  # the connection soon replaces them by those of the next request
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = False
        self.message_event = _UNUSED_EVENT
        self._permit: Permit | None = None
        """held once the request is submitted"""

    def try_start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Submit the request to the engine; return False without side effects when it needs the ASGI path."""
        app, model, headers = self._app, self._model, dict(self._headers)
        if app.traces is not None or log.isEnabledFor(logging.INFO) or not ORDINARY.isdisjoint(headers):
            return False
        permit = None
        try:
            check_token(headers.get(b"authorization", b""), app.token)
            body = bytes(self.body)
            length = oip_decode.read_header_length(headers.get(b"inference-header-content-length"))
            self._request, size = model.prepare(body, length, app.limits)
            if size > AT_ONCE or not PLAIN.issuperset(self._request.parameters):
                return False
            permit = app.admission.enter()
            permit.hold(len(body))
            self._began = time.perf_counter()
            self._future = model.submit(self._request, app.limits.timeout)
        except Exception:  # the ASGI path meets the same error and reports it
            if permit is not None:
                permit.leave()
            return False
        self._permit = permit
        model.engine.users += 1
        self._id = app.name_of(self._headers)
        self._timeout_timer = loop.call_later(app.limits.timeout, self._time_out)
        self._future.add_done_callback(lambda _: self._callbacks.put(self._done))
        return True

    def cancel(self) -> None:
        """Cancel the request of a client that has disconnected."""
        if self._end():
            self._future.cancel()

    def _end(self) -> bool:
        """Release what the request holds, once; return whether this call did."""
        if self.response_complete or self._permit is None:
            return False
        self.response_complete = True
        self._timeout_timer.cancel()
        self._permit.leave()
        self._model.engine.users -= 1
        return True

    def _done(self) -> None:
        """Send the engine's result or error; runs in the event loop."""
        if not self._end():
            return
        seconds = time.perf_counter() - self._began
        try:
            answer = self._future.result()
            content, length = write_response(self._request, answer, self._model.signature, VERSION)
        except Exception as error:
            if not isinstance(error, (EngineError, CancelledError)):
                log.exception("unhandled exception while answering a request", extra={"request": self._id})
            self._fail(error)
        else:
            self._model.stats.answered(len(self._request.images), seconds, answer.partial)
            self._model.watch(self._request, answer, self._id)
            self._model.stats.unseen.update(self._model.unseen(self._request))
            self._model.stats.abstained.update(self._model.abstained(self._request, answer))
            kind = b"application/json" if length is None else b"application/octet-stream"
            extra = b"" if length is None else b"inference-header-content-length: %d\r\n" % length
            self._send(200, content, kind, extra)

    def _time_out(self) -> None:
        if self._end():
            self._future.cancel()
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        refusal = self._model.failed(error, self._app.limits.timeout, self._began)
        self._app.note_error(refusal, self._id)
        self._send(refusal.status, orjson.dumps({"error": str(refusal)}), b"application/json")

    def _send(self, status: int, content: oip_decode.Buffer, kind: bytes, extra: bytes = b"") -> None:
        connection, name = self._connection, self._id.encode()
        head = [_STATUS[status], *[b"%s: %s\r\n" % pair for pair in connection.server_state.default_headers]]
        head.append(b"content-length: %d\r\nx-request-id: %s\r\ncontent-type: %s\r\n" % (len(content), name, kind))
        head.append(extra if self.keep_alive else extra + b"connection: close\r\n")
        connection.answered(b"".join([*head, b"\r\n", content]), self.keep_alive)
