"""Raw sockets, for requests that client libraries do not send."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import httpx

from ripieno.server import ServerHandle


def connect(running: ServerHandle) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def all_of(client: socket.socket) -> bytes:
    """Receive data until the server closes the connection."""
    said = b""
    while chunk := client.recv(65536):
        said += chunk
    return said


def flight(running: ServerHandle) -> dict[str, float]:
    """Return the requests and bytes in flight."""
    said: dict[str, float] = httpx.get(running.url + "/overview", trust_env=False).json()["flight"]
    return said


def refused(running: ServerHandle) -> dict[str, int]:
    """Return the error counts by status."""
    said: dict[str, int] = httpx.get(running.url + "/overview", trust_env=False).json()["flight"]["refused"]
    return said


def soon(condition: Callable[[], bool]) -> bool:
    """Return whether `condition` becomes true within some seconds."""
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()
