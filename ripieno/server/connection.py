"""uvicorn's HTTP connection with limits: idle clients, long headers and surplus connections are cut off.

Plain requests take the fast path, see `fast_path`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ripieno.server.event_loop import CallbackBatcher
from ripieno.server.fast_path import FastPathCycle
from ripieno.server.limits import PROBES, Limits

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

PARSED, PARSED_OF_BODY = 4096, 16384
"""Bytes that are parsed at once: pipelined requests stay unparsed while an earlier one is processed."""
HEADER_BYTES = 32
"""Memory overhead of a header in addition to its name and value."""
LEAST_READ = 1 << 16
"""Bytes of responses that a client must read within `Limits.body_timeout`."""
SMALL = 256 << 10
"""Maximum body of a request on the fast path."""
SOON = 0.1
"""Seconds within which that body must arrive."""
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(:\d*)?", re.ASCII)
"""A host name or address with an optional port (RFC 3986, 3.2.2)."""
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
"""Scheme and host at the start of a request target in absolute form, as sent to proxies."""


class HeaderCoalescingTransport:
    """A transport that sends a response's head with the first part of its body: one system call instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.sent = 0
        """bytes handed to the transport"""
        # methods that every request calls are looked up once
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, or buffer it if it is the head of a response (except 1xx, which have no body).

        Data for a closed connection is discarded.
        """
        if self.is_closing():
            return
        self.sent += len(data)
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(data)

    def send(self, data: bytes) -> None:
        """Send `data` without buffering."""
        if not self.is_closing():
            self.sent += len(data)
            self._transport.write(data)

    def flush(self) -> None:
        """Send a buffered head without a body, as in the response to HEAD."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send the buffered head, then close."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """One client's connection. `make_connection_class` sets `limits` and `inference_app`."""

    limits = Limits()
    inference_app: InferenceApp
    others = 0
    """connections that were open when it was accepted"""

    @property
    def beyond(self) -> bool:
        """True for a connection over the limit, which may only query the server's health."""
        return self.others >= self.limits.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first request's headers, or refuse a surplus connection."""
        self._coalescing = HeaderCoalescingTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", self._coalescing))
        self.inference_app.opened.beginning.discard(self)
        self.inference_app.opened.begun.add(self)
        self._header_bytes = 0
        self._unread: bytes | memoryview = b""
        self._header_timer: asyncio.TimerHandle | None = None
        self._complete, self._in_head = True, False
        self._reparse: bytes | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._pending: FastPathCycle | None = None
        self._fallback_timer: asyncio.TimerHandle | None = None
        if self.inference_app.callbacks is None:
            self.inference_app.callbacks = CallbackBatcher(self.loop)
        if self.others >= self.limits.connections + PROBES:
            self._refuse_connection()
        else:
            self._expect_headers()

    def _refuse_connection(self) -> None:
        self._cut(503, f"Too many connections (limit {self.limits.connections}). Retry later.", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and the request of the disconnected client."""
        self.inference_app.opened.begun.discard(self)
        self._unread = b""
        self._cancel_header_timer()
        for timer in (self._read_timer, self._fallback_timer):
            if timer is not None:
                timer.cancel()
        if isinstance(self.cycle, FastPathCycle):
            self.cycle.cancel()
        elif self.cycle is not None and not self.cycle.response_complete:
            for cancel in self.cycle.scope["state"].get("on_disconnect", ()):
                cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Reset the state for a new request."""
        super().on_message_begin()
        self._header_bytes, self._complete, self._in_head = 0, False, True

    def on_url(self, url: bytes) -> None:
        """Count the target as part of the headers."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value) + HEADER_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request unless it was cut off; from here on the application enforces the timeouts."""
        self._in_head = False
        self._cancel_header_timer()
        if self.transport.is_closing() or self.parser.should_upgrade():
            return
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._cut(400, f"The request has {len(hosts)} Host headers; HTTP/1.1 requires one (RFC 9112, 3.2).")
            return
        if hosts and not _HOST.fullmatch(hosts[0]):
            self._cut(400, "The Host header is not a valid host name or address.")
            return
        self.url = _origin_form(self.url)
        if self.beyond:
            if not self.url.startswith(b"/v2/health/"):
                self._refuse_connection()
                return
            super().on_headers_complete()
            self.cycle.keep_alive = False
            return
        model = self.inference_app.models.by_path.get(self.url)
        if model is None or not self._may_be_plain():
            super().on_headers_complete()
        else:
            assert self.inference_app.callbacks is not None
            self._past, self._pending = (
                self.cycle,
                FastPathCycle(self.inference_app, self.inference_app.callbacks, self, model),
            )
            self.cycle = cast("Any", self._pending)
        if self.inference_app.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Handle the end of a request; stop its timer if it was answered already."""
        if self.parser.should_upgrade():
            return
        self._complete = True
        # a large body has paused reading, and a disconnect would go unnoticed
        if not self.pipeline:
            self.flow.resume_reading()
        if self._pending is not None:
            if self._pending.try_start(self.loop):
                self._take_pending()
            else:
                self._fall_back_to_asgi()
        if self.cycle.response_complete:
            self._cancel_header_timer()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse received data; buffer pipelined requests and pause reading."""
        if self._unread:
            self._unread = b"".join((self._unread, data))
            self.flow.pause_reading()
            return
        self._unread = data
        self._feed()

    def _feed(self) -> None:
        """Parse buffered data in pieces until a request must wait for an earlier one."""
        left = memoryview(self._unread)
        while left and not self.pipeline and not self.transport.is_closing():
            size = PARSED if self._complete or self._in_head else PARSED_OF_BODY
            part, left = left[:size], left[size:]
            self._parse(bytes(part))
        self._unread = b"" if self.transport.is_closing() else left
        if self._unread:
            self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        """Parse `data` and start timers for an incomplete request: for its headers, and for a body on the fast path."""
        self._reparse = data
        while (part := self._reparse) is not None:  # a request to upgrade the protocol is parsed again
            self._data, self._reparse = part, None
            super().data_received(part)
        self._data = b""
        if self._in_head and self._header_timer is None and not self.transport.is_closing():
            self._expect_headers()
        if self._pending is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            if self._fallback_timer is None:
                self._fallback_timer = self.loop.call_later(SOON, self._fall_back_to_asgi)
        if self._idle() and self.timeout_keep_alive_task is None and self._header_timer is None:
            # uvicorn stops its timer at any data: an empty line, or the end of a body that was not awaited
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def finish(self) -> None:
        """Close the connection after the response in progress, if any."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.shutdown()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore a protocol upgrade, as RFC 9110 (7.8) allows: parse the request again without it.

        The parser stops after the head of such a request and delivers no body. uvicorn calls this method where it
        catches that.
        """
        raised = sys.exc_info()[1]
        assert isinstance(raised, httptools.HttpParserUpgrade)
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._cut(405, "Method not allowed: CONNECT. This server is not a proxy.")
            return
        head = [method + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(v for v in map(bytes.strip, value.split(b",")) if v.lower() != b"upgrade")
            if name != b"upgrade":
                head.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._reparse = b"\r\n".join(head) + b"\r\n\r\n" + self._data[raised.args[0] :]

    def _idle(self) -> bool:
        """Return whether the last request is complete and answered, and no other has begun."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self._complete and not self.transport.is_closing()

    def _may_be_plain(self) -> bool:
        """Return whether the head of the request allows the fast path."""
        parser = self.parser
        free = self.cycle is None or self.cycle.response_complete
        lasting = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        if not free or not lasting or parser.get_method() != b"POST":
            return False
        if self.expect_100_continue or self.flow.write_paused:
            return False
        size = next((value for name, value in self.headers if name == b"content-length"), b"")
        return size.isdigit() and len(size) < 9 and int(size) <= SMALL

    def _fall_back_to_asgi(self) -> None:
        """Restart a request as uvicorn does, with the received part of its body."""
        early = self._take_pending()
        if self.transport.is_closing():
            return
        self.cycle = self._past
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and early.keep_alive
        self.cycle.body += early.body
        self.cycle.message_event.set()

    def _take_pending(self) -> FastPathCycle:
        """Return the fast path's pending request and clear it: the path of the request is now decided."""
        early, self._pending = self._pending, None
        assert early is not None
        if self._fallback_timer is not None:
            self._fallback_timer.cancel()
            self._fallback_timer = None
        return early

    def answered(self, content: bytes, keep_alive: bool) -> None:
        """Send a complete response; the connection is free for the next request."""
        self._coalescing.send(content)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Flush the response and start the timer within which the client must read it."""
        self._coalescing.flush()
        super().on_response_complete()
        if self._unread:
            self.flow.pause_reading()
            self.loop.call_soon(self._feed)
        if not self._complete and self.cycle.response_complete and self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_timeout, self.transport.close)
        if self._read_timer is None and self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        """Pause as uvicorn does, and start the timer within which the client must read the buffered data."""
        super().pause_writing()
        if self._read_timer is None:
            self._expect_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP in the format of every other error."""
        if not self.transport.is_closing():
            self._cut(400, msg)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.limits.headers and not self.transport.is_closing():
            self._cut(431, f"Request headers too large (limit {self.limits.headers} bytes).")

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_seconds(self.beyond), self._too_slow)

    def _expect_reading(self) -> None:
        before = self._coalescing.sent - self.transport.get_write_buffer_size()
        self._read_timer = self.loop.call_later(self.limits.body_timeout, self._check_reading, before)

    def _check_reading(self, before: int) -> None:
        """Cut off a client that reads its responses too slowly, because they occupy memory meanwhile."""
        self._read_timer = None
        buffered = self.transport.get_write_buffer_size()
        if buffered and self._coalescing.sent - buffered - before < LEAST_READ:
            self.transport.abort()
        elif buffered:
            self._expect_reading()

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if self.transport.is_closing():
            return
        if self.beyond:
            self._refuse_connection()
        else:
            self._cut(408, f"Request timeout: no complete request within {self.limits.header_timeout:g} s.")

    def _cut(self, status: int, message: str, header: str = "") -> None:
        """Send an error for a request that never started, and close the connection."""
        self.inference_app.admission.refused[status] += 1
        content = f'{{"error":"{message}"}}'
        head = (
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
            f"x-request-id: {self.inference_app.name_of(() if self._complete else self.headers)}\r\n{header}\r\n"
        )
        self.transport.write(STATUS_LINE[status] + (head + content).encode())
        self.transport.close()


def _origin_form(target: bytes) -> bytes:
    """Return `target` without the scheme and host of the absolute form, as sent to proxies (RFC 9112, 3.2.2)."""
    if (authority := _AUTHORITY.match(target)) is None:
        return target
    rest = target[authority.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def make_connection_class(limits: Limits, inference_app: InferenceApp) -> type[Connection]:
    """Return the connection class that enforces `limits` on the clients of `inference_app`."""
    attributes: dict[str, Any] = {"limits": limits, "inference_app": inference_app}
    return type("BoundedConnection", (Connection,), attributes)
