"""Reading of request bodies within their limits, as they arrive."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits, Permit
from ripieno.server.oip_decode import read_header_length

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 << 20
PIECE = 1 << 20
"""Bytes of an encoded body that are decompressed at a time."""
SLICE = 4096
"""Bytes of an encoded body that are read at a time."""
MOST_CODINGS = 3
"""Limit on the content codings of a body, applied one over another."""


async def read_body(
    scope: Scope, receive: Receive, permit: Permit, limits: Limits
) -> tuple[bytes | bytearray, int | None]:
    """Read the whole body; return it with the length of its JSON when raw tensors follow (None without that header).

    Sets `scope["body_read"]` once the body has arrived completely.

    Raises HttpError: 413 as soon as the declared or the received length exceeds a limit, 408 on a timeout, 415 or 501
    for an unsupported encoding.
    """
    headers = dict(scope["headers"])
    header_length = read_header_length(headers.get(b"inference-header-content-length"))
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) < 20:
        permit.check(int(declared))
    codings = _codings(scope["headers"], b"content-encoding")
    _check_codings(codings, _codings(scope["headers"], b"transfer-encoding"))
    body = await _whole(receive, permit, limits)
    scope["body_read"] = True
    for coding in reversed(codings):
        body = await _decoded(body, coding, permit)
    return body, header_length


async def _whole(receive: Receive, permit: Permit, limits: Limits) -> bytes | bytearray:
    """Receive the body. The timeout covers its first part too, which may never arrive.

    The body grows in place: joining its chunks at the end would take twice its memory and block the event loop.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                permit.hold(len(body) + len(chunk))
                if not more and not body:
                    return chunk
                body += chunk
    except TimeoutError:
        raise HttpError(408, f"Request timeout: the body did not arrive within {limits.body_timeout:g} s.") from None
    return body


def _codings(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return the codings in all lines of the header `name`, in the order in which they were applied."""
    values = b",".join(value for key, value in headers if key == name).lower()
    return [coding for coding in map(bytes.strip, values.split(b",")) if coding not in (b"", b"identity")]


def _check_codings(content: Sequence[bytes], transfer: Sequence[bytes]) -> None:
    """Raise HttpError for unsupported codings: 415 for content codings, 501 for transfer codings."""
    for coding in content:
        if coding.removeprefix(b"x-") not in (b"gzip", b"deflate"):
            name = coding[:20].decode("latin-1")
            raise HttpError(415, f"Unsupported content-encoding {name!r}. Use gzip, deflate or none.")
    if len(content) > MOST_CODINGS:
        raise HttpError(415, f"The body has {len(content)} content-encodings (limit {MOST_CODINGS}).")
    if transfer not in ([], [b"chunked"]):
        names = b", ".join(transfer)[:40].decode("latin-1")
        raise HttpError(501, f"Unsupported transfer-encoding {names!r}. Use chunked or none.")


async def _decoded(body: bytes | bytearray, coding: bytes, permit: Permit) -> bytearray:
    """Remove one content coding from `body`; stop and refuse when the decompressed size exceeds the limit.

    Another thread decompresses it in pieces; `permit` counts each piece before the next.
    """
    unpacked = bytearray()
    unpacking = _unpacked(body, coding.removeprefix(b"x-").decode(), min(PIECE, permit.admission.limits.body + 1))
    while (piece := await asyncio.to_thread(next, unpacking, None)) is not None:
        permit.hold(len(unpacked) + len(piece))
        unpacked += piece
    return unpacked


def _unpacked(body: bytes | bytearray, name: str, most: int) -> Iterator[bytes]:
    """Decompress `body` in pieces of up to twice `most` bytes. Raises HttpError (400) when it is invalid.

    A gzip body may have several members (RFC 1952, 2.2): their contents are joined; zeros may follow each. Deflate is
    accepted with zlib's frame or, as some clients send it, without.
    """
    bits = zlib.MAX_WBITS | 16 if name == "gzip" else zlib.MAX_WBITS if _has_frame(body) else -zlib.MAX_WBITS
    unpack = zlib.decompressobj(bits)
    pieces: list[bytes] = []
    size = 0
    # small slices, because zlib copies everything that follows the end of a member
    for at in range(0, len(body), SLICE):
        rest, out = body[at : at + SLICE], b""
        while rest or len(out) == most:  # after a full piece the decompressor may hold more
            if unpack.eof:
                if not (rest := rest.lstrip(b"\0")):
                    break
                if name != "gzip":
                    raise bad_request(f"Extra bytes follow the end of the {name} body.")
                unpack = zlib.decompressobj(bits)
            try:
                out = unpack.decompress(rest, most)
            except zlib.error:
                raise bad_request(f"The content-encoding is {name}, but the body is not valid {name}.") from None
            rest = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            pieces.append(out)
            size += len(out)
            if size >= most:
                yield b"".join(pieces)
                pieces, size = [], 0
    if not unpack.eof:
        raise bad_request(f"The {name} body is truncated.")
    yield b"".join(pieces)


def _has_frame(body: bytes | bytearray) -> bool:
    """Return whether deflated bytes begin with zlib's two header bytes (RFC 1950, 2.2)."""
    return body[:1] != b"" and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


async def drain_body(receive: Receive) -> None:
    """Read and discard the rest of a refused body, within limits, so that the client can read the response.

    Closing a socket with unread bytes resets the connection, and the response is lost.
    """
    size = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while size <= LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
