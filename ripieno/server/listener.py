"""The listening socket: connections are counted from the moment they are accepted, TLS handshakes included."""

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
"""Connections that are being refused at once; more wait to be accepted."""
PAUSE = 1.0
"""Seconds without accepting when there are no file descriptors left."""
GOODBYE = 1.0
"""Seconds that the end of an encrypted connection may take."""


class Listener:
    """Accepts connections for protocols that `make` makes, given how many are open; encrypted where `tls` is given."""

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
        # a refused connection has its descriptor until it is closed
        while len(self._opened) <= self._opened.most + PROBES + REFUSING:
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("No connection can be accepted: %s", error)
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
        """Hand over a connection; a client that takes long over its handshake is cut."""
        more: dict[str, Any] = {}
        if self._tls is not None:
            seconds = self._limits.header_seconds(protocol.beyond)
            more = {"ssl": self._tls, "ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": GOODBYE}
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **more)
        except (OSError, ssl.SSLError) as error:  # it left, or does not speak TLS as we do
            log.debug("A connection was given up: %s", error)
            accepted.close()
        finally:
            self._opened.beginning.discard(protocol)

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._socket.fileno() >= 0

    async def finish(self, seconds: float) -> None:
        """Accept the connections that wait, then close: they would be reset, and the requests they brought lost.

        Handshakes are waited for as long as `seconds`.
        """
        self._accept()
        self.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def close(self) -> None:
        """Accept no more."""
        if self.is_serving():
            self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Return at once: nothing is left to close."""
