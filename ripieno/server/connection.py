"""uvicorn's HTTP connection with bounds: silence, long headers and too many connections are cut.

Plain requests go the short way, see `express`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ripieno.server.fast_path import CallbackBatcher, FastPathCycle, Headers
from ripieno.server.limits import PROBES, Limits

if TYPE_CHECKING:
    from ripieno.server.app import InferenceApp

PARSED, PARSED_OF_BODY = 4096, 16384
"""Bytes that are parsed at once: requests sent ahead stay bytes while one before them is answered."""
HEADER_BYTES = 32
"""What a header takes beside its name and value."""
LEAST_READ = 1 << 16
"""Bytes of its answers that a client must take in the time it may take over sending a body."""
SMALL = 256 << 10
"""Longest body of a request that may go the short way."""
SOON = 0.1
"""Seconds within which it must be there."""
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(:\d*)?", re.ASCII)
"""A name or an address, perhaps with a port (RFC 3986, 3.2.2)."""
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
"""What a request's target begins with when it is sent as to a proxy."""


class HeaderCoalescingTransport:
    """A transport that sends a response's head together with the first of its body: one system call instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.sent = 0
        """bytes handed to the transport"""
        # what is called for every request is looked up once
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it if it is the head of an answer (1xx are sent at once: no body follows them).

        What is said to a client that was cut goes nowhere.
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
        """Send `data`, of which nothing is to be kept."""
        if not self.is_closing():
            self.sent += len(data)
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows, as the answer to HEAD."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is kept, then close."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """One client's connection. `limits` and `door` are set by `bounded`."""

    limits = Limits()
    door: InferenceApp
    others = 0
    """connections that were open when it was accepted"""

    @property
    def beyond(self) -> bool:
        """Whether it is one too many, which may only ask for the server's health."""
        return self.others >= self.limits.connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse a connection too many; expect the first request's headers in time."""
        self._coalescing = HeaderCoalescingTransport(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", self._coalescing))
        self.door.opened.beginning.discard(self)
        self.door.opened.begun.add(self)
        self._header_bytes = 0
        self._unread: bytes | memoryview = b""
        self._header_timer: asyncio.TimerHandle | None = None
        self._whole, self._in_head = True, False
        self._again: bytes | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._early: FastPathCycle | None = None
        self._soon: asyncio.TimerHandle | None = None
        if self.door.mailbox is None:
            self.door.mailbox = CallbackBatcher(self.loop)
        if self.others >= self.limits.connections + PROBES:
            self._refuse_connection()
        else:
            self._expect_headers()

    def _refuse_connection(self) -> None:
        self._cut(503, f"{self.limits.connections} connections are open, as many as are taken", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer, and the request that nobody waits for any more."""
        self.door.opened.begun.discard(self)
        self._unread = b""
        self._cancel_header_timer()
        for timer in (self._reading, self._soon):
            if timer is not None:
                timer.cancel()
        if isinstance(self.cycle, FastPathCycle):
            self.cycle.cancel()
        elif self.cycle is not None and not self.cycle.response_complete:
            for leave in self.cycle.scope["state"].get("leaving", ()):
                leave()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins: its headers must come in time."""
        super().on_message_begin()
        self._header_bytes, self._whole, self._in_head = 0, False, True

    def on_url(self, url: bytes) -> None:
        """Count the target among the headers."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(len(name) + len(value) + HEADER_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """From here on the application watches over the time; a request that was cut is not begun."""
        self._in_head = False
        self._cancel_header_timer()
        if self.transport.is_closing() or self.parser.should_upgrade():
            return
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            self._cut(400, f"The request has {len(hosts)} Host headers; HTTP/1.1 requires one (RFC 9112, 3.2).")
            return
        if hosts and not _HOST.fullmatch(hosts[0]):
            self._cut(400, "The Host header is no host name or address.")
            return
        self.url = _origin_form(self.url)
        if self.beyond:
            if not self.url.startswith(b"/v2/health/"):
                self._refuse_connection()
                return
            super().on_headers_complete()
            self.cycle.keep_alive = False
            return
        model = self.door.models.by_path.get(self.url)
        if model is None or not self._may_be_plain():
            super().on_headers_complete()
        else:
            assert self.door.mailbox is not None
            self._past, self._early = self.cycle, FastPathCycle(self.door, self.door.mailbox, self, model)
            self.cycle = cast("Any", self._early)
        if self.door.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """A request is here whole; one that was answered before need not be waited for any more."""
        if self.parser.should_upgrade():
            return
        self._whole = True
        # a body of some size has paused the reading, and a client that leaves would not be seen
        if not self.pipeline:
            self.flow.resume_reading()
        if self._early is not None:
            if self._early.try_start(self.loop):
                self._take_pending()
            else:
                self._fall_back_to_asgi()
        if self.cycle.response_complete:
            self._cancel_header_timer()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Take in what comes; what is sent ahead of an answer waits, and no more is read."""
        if self._unread:
            self._unread = b"".join((self._unread, data))
            self.flow.pause_reading()
            return
        self._unread = data
        self._feed()

    def _feed(self) -> None:
        """Parse what has come, piece by piece, until a request waits for the answer to one before it."""
        left = memoryview(self._unread)
        while left and not self.pipeline and not self.transport.is_closing():
            size = PARSED if self._whole or self._in_head else PARSED_OF_BODY
            part, left = left[:size], left[size:]
            self._parse(bytes(part))
        self._unread = b"" if self.transport.is_closing() else left
        if self._unread:
            self.flow.pause_reading()

    def _parse(self, data: bytes) -> None:
        """What is not whole yet is watched: headers must come in time, and a body soon to go the short way."""
        self._again = data
        while (part := self._again) is not None:  # a request that asks for another protocol is parsed again
            self._data, self._again = part, None
            super().data_received(part)
        self._data = b""
        if self._in_head and self._header_timer is None and not self.transport.is_closing():
            self._expect_headers()
        if self._early is not None and not self.transport.is_closing():
            self.flow.resume_reading()
            if self._soon is None:
                self._soon = self.loop.call_later(SOON, self._fall_back_to_asgi)
        if self._idle() and self.timeout_keep_alive_task is None and self._header_timer is None:
            # uvicorn stops its timer at whatever comes: an empty line, the last of a body that nobody waited for
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def finish(self) -> None:
        """Close the connection after the answer that is under way, if there is one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.shutdown()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore an upgrade to another protocol, as RFC 9110 (7.8) allows: parse the request again without it.

        The parser ends at the head of such a request and gives no body. Called by uvicorn where it catches that.
        """
        raised = sys.exc_info()[1]
        assert isinstance(raised, httptools.HttpParserUpgrade)
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._cut(405, "CONNECT is not answered: this server is no proxy")
            return
        head = [method + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(v for v in map(bytes.strip, value.split(b",")) if v.lower() != b"upgrade")
            if name != b"upgrade":
                head.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self._again = b"\r\n".join(head) + b"\r\n\r\n" + self._data[raised.args[0] :]

    def _idle(self) -> bool:
        """Whether the last request is here whole and answered, and no other has begun."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self._whole and not self.transport.is_closing()

    def _may_be_plain(self) -> bool:
        """Whether the request could go the short way, by what is known from its head."""
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
        """Begin a request anew as uvicorn does, with what has come of its body."""
        early = self._take_pending()
        if self.transport.is_closing():
            return
        self.cycle = self._past
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and early.keep_alive
        self.cycle.body += early.body
        self.cycle.message_event.set()

    def _take_pending(self) -> FastPathCycle:
        """The request that could go the short way; from now on it goes there, or does not."""
        early, self._early = self._early, None
        assert early is not None
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        return early

    @property
    def default_headers(self) -> Headers:
        """What every answer carries."""
        return self.server_state.default_headers

    def answered(self, content: bytes, keep_alive: bool) -> None:
        """Send a whole answer; the connection is free for the next request."""
        self._coalescing.send(content)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """An answer is given; nothing of it may be kept back, and it must be taken in time."""
        self._coalescing.flush()
        super().on_response_complete()
        if self._unread:
            self.flow.pause_reading()
            self.loop.call_soon(self._feed)
        if not self._whole and self.cycle.response_complete and self._header_timer is None:
            self._header_timer = self.loop.call_later(self.limits.header_timeout, self.transport.close)
        if self._reading is None and self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        """As uvicorn does, and watch that what is kept back is taken in time."""
        super().pause_writing()
        if self._reading is None:
            self._expect_reading()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as every other mistake."""
        if not self.transport.is_closing():
            self._cut(400, msg)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.limits.headers and not self.transport.is_closing():
            self._cut(431, f"the headers have more than {self.limits.headers} bytes")

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_seconds(self.beyond), self._too_slow)

    def _expect_reading(self) -> None:
        before = self._coalescing.sent - self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.limits.body_timeout, self._look_at_reading, before)

    def _look_at_reading(self, before: int) -> None:
        """Cut a client that takes its answers drop by drop, or not at all: they lie in our memory meanwhile."""
        self._reading = None
        kept = self.transport.get_write_buffer_size()
        if kept and self._coalescing.sent - kept - before < LEAST_READ:
            self.transport.abort()
        elif kept:
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
            self._cut(408, f"no whole request came within {self.limits.header_timeout:g} s")

    def _cut(self, status: int, message: str, header: str = "") -> None:
        """Refuse what never becomes a request, and close."""
        self.door.admission.refused[status] += 1
        content = f'{{"error":"{message}"}}'
        head = (
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
            f"x-request-id: {self.door.name_of(() if self._whole else self.headers)}\r\n{header}\r\n"
        )
        self.transport.write(STATUS_LINE[status] + (head + content).encode())
        self.transport.close()


def _origin_form(target: bytes) -> bytes:
    """`target` without the scheme and host that it begins with when it is sent as to a proxy (RFC 9112, 3.2.2)."""
    if (authority := _AUTHORITY.match(target)) is None:
        return target
    rest = target[authority.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def make_connection_class(limits: Limits, door: InferenceApp) -> type[Connection]:
    """The connection class that holds clients of `door` to `limits`."""
    attributes: dict[str, Any] = {"limits": limits, "door": door}
    return type("BoundedConnection", (Connection,), attributes)
