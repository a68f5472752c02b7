"""Reading a request's body within its limits, as it arrives."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from ripieno.server.codec import read_header_length
from ripieno.server.limits import Limits, Ticket
from ripieno.server.refusal import RefusedError, bad

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 << 20
PIECE = 1 << 20
"""Bytes that an encoded body unpacks to at a time."""


async def read_body(
    scope: Scope, receive: Receive, ticket: Ticket, limits: Limits, json: bool = True
) -> tuple[bytes, int | None]:
    """The whole body, and the length of its JSON head when raw tensors follow (None without that header).

    `scope["body_read"]` is set when nothing of it is left to come; `json` False leaves out the bound on JSON.

    Raises RefusedError: 413 as soon as the declared or the arrived length is over a limit, 408 when it takes too long,
    415 for an encoding that is not offered.
    """
    headers = dict(scope["headers"])
    header_length = read_header_length(headers.get(b"inference-header-content-length"))
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) < 20:
        ticket.hold(int(declared))
    body = await _whole(receive, ticket, limits)
    scope["body_read"] = True
    body = await _decoded(body, headers.get(b"content-encoding", b"").lower(), ticket)
    json_length = len(body) if header_length is None else min(header_length, len(body))
    if json and json_length > limits.json:
        raise RefusedError(
            413, f"the JSON has {json_length} bytes, at most {limits.json} are read: send binary tensors"
        )
    return body, header_length


async def _whole(receive: Receive, ticket: Ticket, limits: Limits) -> bytes:
    """The body, as it comes. The first of it is waited for no longer than the rest: it may never come."""
    chunks: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(limits.body_timeout):
            while more:
                message = await receive()
                chunks.append(_chunk(message))
                size += len(chunks[-1])
                ticket.hold(size)
                more = message.get("more_body", False)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {limits.body_timeout:g} s") from None
    return b"".join(chunks)


def _chunk(message: Mapping[str, object]) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk = message.get("body", b"")
    assert isinstance(chunk, bytes)
    return chunk


async def _decoded(body: bytes, encoding: bytes, ticket: Ticket) -> bytes:
    """`body` without its content encoding; a body that unpacks to more than the limit is refused, not unpacked.

    A gzip body may have several members (RFC 1952, 2.2): what they unpack to is joined. Pieces are unpacked in another
    thread, each counted by `ticket` before the next.
    """
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise RefusedError(415, f"content-encoding {encoding[:20]!r} is not read: send gzip, deflate or none")
    pieces: list[bytes] = []
    size, rest, unpack = 0, body, _unpacker(encoding)
    piece = min(PIECE, ticket.admission.limits.body + 1)
    try:
        while rest:
            pieces.append(await asyncio.to_thread(unpack.decompress, rest, piece))
            size += len(pieces[-1])
            ticket.hold(size)
            rest = unpack.unconsumed_tail
            if unpack.eof and (rest := unpack.unused_data):
                if encoding != b"gzip":
                    raise bad(f"{len(rest)} bytes follow the end of the {encoding.decode()} body")
                unpack = _unpacker(encoding)
            elif not pieces[-1]:
                break
    except zlib.error:
        raise bad(f"the body is not {encoding.decode()} as its content-encoding says") from None
    if not unpack.eof:
        raise bad(f"the {encoding.decode()} body ends too early")
    return b"".join(pieces)


def _unpacker(encoding: bytes) -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == b"gzip" else 0))


async def linger(receive: Receive) -> None:
    """Take in what a refused client still sends, within bounds, so that it can read its answer.

    Closing a socket with unread bytes resets the connection, and the answer is lost with it.
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
