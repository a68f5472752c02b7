"""Listening socket that counts connections from their acceptance on, including TLS handshakes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

from ripieno.server.connection import Connection
from ripieno.server.limits import PROBES, Limits, OpenConnections

log = logging.getLogger("ripieno.server")

REFUSING = 32
"""Maximum connections that are refused at the same time; more wait to be accepted."""
PAUSE = 1.0
"""Seconds without accepting when no file descriptors are left."""
SHUTDOWN_SECONDS = 1.0
"""Maximum seconds of the TLS shutdown of a connection."""


class Listener:
    """Acceptor of connections, with TLS if `tls` is given; `make` creates a protocol from the open connections."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[int], Connection],
        opened: OpenConnections,
        limits: Limits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = listening
        self._make, self._opened, self._limits, self._tls = make, opened, limits, tls
        self._tasks: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self.is_serving():
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        # a refused connection keeps its descriptor until it is closed
        while len(self._opened) <= self._opened.most + PROBES + REFUSING:
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("cannot accept connections: %s", error)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(PAUSE, self._listen)
                return
            if self._tls is not None and len(self._opened) >= self._opened.most + PROBES:
                accepted.close()  # a refusal would need a handshake
                continue
            accepted.setblocking(False)
            protocol = self._make(len(self._opened))
            self._opened.beginning.add(protocol)
            task = self._loop.create_task(self._connect(accepted, protocol))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, accepted: socket.socket, protocol: Connection) -> None:
        """Connect the protocol to the socket; a client with a slow handshake is disconnected."""
        more: dict[str, Any] = {}
        if self._tls is not None:
            seconds = self._limits.header_seconds(protocol.beyond)
            more = {"ssl": self._tls, "ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": SHUTDOWN_SECONDS}
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **more)
        except (OSError, ssl.SSLError) as error:  # it disconnected, or its handshake failed
            log.debug("connection failed: %s", error)
            accepted.close()
        finally:
            self._opened.beginning.discard(protocol)

    def is_serving(self) -> bool:
        """Return whether connections are accepted."""
        return self._socket.fileno() >= 0

    async def finish(self, seconds: float) -> None:
        """Accept the waiting connections, then close: otherwise they would be reset, and their requests lost.

        Waits at most `seconds` for handshakes.
        """
        self._accept()
        self.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def close(self) -> None:
        """Stop accepting connections."""
        if self.is_serving():
            self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Return at once: nothing remains to be closed."""
