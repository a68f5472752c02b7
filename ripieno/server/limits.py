"""How much a server takes on at once, and the counting that holds it to that. Pure: no sockets, no clocks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from ripieno.durations import check_duration
from ripieno.server.http_errors import HttpError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; sizes in bytes, times in seconds."""

    body: int = 64 * MIB
    """longest body of a request"""
    json: int = 16 * MIB
    """longest JSON within it, and over gRPC what is no raw contents: they grow when parsed, raw tensors do not"""
    headers: int = 64 * 1024
    """longest headers of a request"""
    reply: int = 128 * MIB
    """longest answer, about: what its outputs take"""
    samples: int = 65536
    """samples in one request"""
    requests: int = 1024
    """requests under way at once, waiting ones included; one more is answered 503"""
    held: int = 256 * MIB
    """bytes of bodies under way at once; likewise"""
    connections: int = 1024
    """open at once; one more is answered 503"""
    pictures: int = 256
    """pictures in one upload"""
    pixels: int = 50_000_000
    """pixels of one picture: they are unpacked before they are made small"""
    timeout: float = 30.0
    """longest wait for an answer, then 504; a request may ask for less"""
    body_timeout: float = 30.0
    """longest a client may take over sending a body, then 408; who takes in no answer for as long is cut"""
    header_timeout: float = 10.0
    """longest a client may take over sending a request's headers, then 408"""
    keep_alive: float = 75.0
    """longest an idle connection is kept"""
    grace: float = 30.0
    """longest a stopping server waits for requests under way"""

    def __post_init__(self) -> None:
        for name in ("timeout", "body_timeout", "header_timeout", "keep_alive", "grace"):
            check_duration(getattr(self, name), name, zero=name in ("keep_alive", "grace"))

    def header_seconds(self, beyond: bool) -> float:
        """How long a client may take over its headers; one `beyond` the limit of connections has a part of it."""
        return self.header_timeout * PROBE_SHARE if beyond else self.header_timeout


RESERVED = 256
"""File descriptors that are no client's: workers, files, those of connections that are just being refused."""


def within_descriptors(limits: Limits, descriptors: int, protocols: int) -> Limits:
    """`limits` with as many connections as `descriptors` suffice for; each of `protocols` ports takes so many."""
    most = max(8, (descriptors - RESERVED) // protocols)
    return limits if limits.connections <= most else dataclasses.replace(limits, connections=most)


PROBES = 64
"""Connections beyond the limit that may ask for the server's health, and nothing else."""
PROBE_SHARE = 0.1
"""Part of the usual time in which they must do so."""


CROSSING = 0.5
"""Seconds that a stopping server still answers new requests on its connections: they may have been sent before."""

PATIENCE, LEAST_RATE = 30.0, 1 << 18
"""Seconds, and bytes a second beyond them, in which a client must take in its answer."""


def taking_seconds(size: int) -> float:
    """How long a client may take over an answer of `size` bytes: it is held in memory meanwhile."""
    return PATIENCE + size / LEAST_RATE


class OpenConnections:
    """Counts the connections that are open, those in the middle of their TLS handshake included."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.beginning: set[object] = set()
        """accepted, some in the middle of their handshake"""
        self.begun: set[object] = set()

    def __len__(self) -> int:
        return len(self.beginning) + len(self.begun)


class Admission:
    """Counts requests under way and the bytes they hold; refuses with 503 what would be too many."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.held = 0
        self.refused: Counter[int] = Counter()
        """refusals by status"""

    def enter(self) -> Permit:
        """Count one more request, for as long as the ticket's `with` block runs."""
        if self.requests >= self.limits.requests:
            raise HttpError(503, f"{self.requests} requests are under way, as many as are taken: try again", 1)
        self.requests += 1
        return Permit(self)


class Permit:
    """One request's place among those under way."""

    __slots__ = ("admission", "held")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.held = 0

    def check(self, size: int) -> None:
        """Raise as `hold` would for `size` bytes, without counting them: what is declared may never come."""
        limits = self.admission.limits
        if size > limits.body:
            raise HttpError(413, f"the body has {size} bytes or more, at most {limits.body} are taken: send less")
        self._check_room(size - self.held)

    def hold(self, size: int) -> None:
        """Count `size` bytes in all for this request (not more than were counted before: nothing happens).

        Raises RefusedError: 413 over the limit of one body, 503 over that of all.
        """
        self.check(size)
        if size > self.held:
            self.settle(size)

    def expect(self, size: int) -> None:
        """Count `size` more bytes, those of the answer. Raises RefusedError (503) over the limit of all requests."""
        self._check_room(size)
        self.settle(self.held + size)

    def settle(self, size: int) -> None:
        """Count `size` bytes instead of what was counted so far."""
        self.admission.held += size - self.held
        self.held = size

    def _check_room(self, more: int) -> None:
        """Raise RefusedError (503) when `more` bytes are too many; what a request alone holds is not."""
        admission = self.admission
        if more > 0 and admission.held + more > admission.limits.held and admission.held > self.held:
            raise HttpError(503, f"requests under way hold {admission.held} bytes: try again", 1)

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the place back."""
        self.admission.requests -= 1
        self.admission.held -= self.held
        self.held = 0
