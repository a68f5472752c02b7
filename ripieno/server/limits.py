"""Limits of a server, and the counters that enforce them. Pure: no sockets, no clocks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from ripieno.config import Count, CountOrZero, Seconds, SecondsOrZero, check_fields
from ripieno.server.http_errors import HttpError

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    body: Count = 64 * MIB
    """maximum body of a request, bytes"""
    json: Count = 16 * MIB
    """maximum JSON in a body, bytes (it grows when parsed); gRPC: all but raw contents"""
    headers: Count = 64 * 1024
    """maximum headers of a request, bytes"""
    reply: Count = 128 * MIB
    """maximum response, approximately: the size of its outputs, bytes"""
    samples: Count = 65536
    """maximum samples in one request"""
    requests: Count = 1024
    """maximum concurrent requests, including waiting ones; more are answered 503"""
    held: CountOrZero = 256 * MIB
    """maximum size of all concurrent bodies, bytes; more are answered 503"""
    connections: Count = 1024
    """maximum open connections; more are answered 503"""
    pictures: Count = 256
    """maximum pictures in one upload"""
    pixels: Count = 50_000_000
    """maximum pixels of one picture: all are decoded before it is resized"""
    timeout: Seconds = 30.0
    """maximum wait for an answer, seconds, then 504; a request may set less"""
    body_timeout: Seconds = 30.0
    """maximum time to send a body, seconds, then 408; also to read a response"""
    header_timeout: Seconds = 10.0
    """maximum time to send the headers of a request, seconds, then 408"""
    keep_alive: SecondsOrZero = 75.0
    """maximum idle time of a connection, seconds"""
    grace: SecondsOrZero = 30.0
    """maximum wait of a stopping server for requests in flight, seconds"""

    def __post_init__(self) -> None:
        check_fields(self)

    def header_seconds(self, beyond: bool) -> float:
        """Return the seconds in which a client must send its headers; fewer for a connection `beyond` the limit."""
        return self.header_timeout * PROBE_SHARE if beyond else self.header_timeout


RESERVED = 256
"""File descriptors that are not for clients: workers, files, connections that are being refused."""


def within_descriptors(limits: Limits, descriptors: int, protocols: int) -> Limits:
    """Return `limits` with at most the connections that `descriptors` allow on each of `protocols` ports."""
    most = max(8, (descriptors - RESERVED) // protocols)
    return limits if limits.connections <= most else dataclasses.replace(limits, connections=most)


PROBES = 64
"""Connections beyond the limit that may query the server's health, and nothing else."""
PROBE_SHARE = 0.1
"""Share of `header_timeout` for these connections."""


CROSSING = 0.5
"""Seconds for which a stopping server still answers new requests: they may have been sent before it stopped."""

PATIENCE, LEAST_RATE = 30.0, 1 << 18
"""Seconds to read a response, plus its size at this minimum rate in bytes per second."""


def taking_seconds(size: int) -> float:
    """Return the seconds in which a client must read a response of `size` bytes, which occupies memory meanwhile."""
    return PATIENCE + size / LEAST_RATE


class OpenConnections:
    """Counter of open connections, including those in their TLS handshake."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.beginning: set[object] = set()
        """accepted, perhaps still in their handshake"""
        self.begun: set[object] = set()

    def __len__(self) -> int:
        return len(self.beginning) + len(self.begun)


class Admission:
    """Counter of requests in flight and their bytes; refuses requests over the limits with 503."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.held = 0
        self.refused: Counter[int] = Counter()
        """error responses by status"""

    def enter(self) -> Permit:
        """Count one more request while the permit's `with` block runs. Raises HttpError (503) over the limit."""
        if self.requests >= self.limits.requests:
            raise HttpError(503, f"Too many concurrent requests (limit {self.limits.requests}). Retry later.", 1)
        self.requests += 1
        return Permit(self)


class Permit:
    """Admission of one request; holds its share of the counters."""

    __slots__ = ("admission", "held")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.held = 0

    def check(self, size: int) -> None:
        """Raise as `hold` would for `size` bytes, without counting them: declared bytes may never arrive."""
        limits = self.admission.limits
        if size > limits.body:
            raise HttpError(413, f"The body has at least {size} bytes (limit {limits.body}). Send fewer samples.")
        self._check_room(size - self.held)

    def hold(self, size: int) -> None:
        """Count `size` bytes in total for this request; a smaller size than before changes nothing.

        Raises HttpError: 413 over the limit of one body, 503 over the limit of all.
        """
        self.check(size)
        if size > self.held:
            self.settle(size)

    def expect(self, size: int) -> None:
        """Count `size` more bytes for the response. Raises HttpError (503) over the limit of all requests."""
        self._check_room(size)
        self.settle(self.held + size)

    def settle(self, size: int) -> None:
        """Replace the counted bytes of this request by `size`."""
        self.admission.held += size - self.held
        self.held = size

    def _check_room(self, more: int) -> None:
        """Raise HttpError (503) when `more` bytes exceed the limit, except for a request that is alone."""
        admission = self.admission
        if more > 0 and admission.held + more > admission.limits.held and admission.held > self.held:
            raise HttpError(503, f"Too many bytes in flight ({admission.held}). Retry later.", 1)

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Release the permit."""
        self.admission.requests -= 1
        self.admission.held -= self.held
        self.held = 0
