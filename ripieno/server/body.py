"""Reading a request's body within its limits, as it arrives."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits, Permit
from ripieno.server.oip_decode import read_header_length

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 << 20
PIECE = 1 << 20
"""Bytes that an encoded body unpacks to at a time."""
SLICE = 4096
"""Bytes of an encoded body that are read at a time."""
MOST_CODINGS = 3
"""Content codings, one over another, that a body may have."""


async def read_body(
    scope: Scope, receive: Receive, ticket: Permit, limits: Limits, json: bool = True
) -> tuple[bytes | bytearray, int | None]:
    """The whole body, and the length of its JSON head when raw tensors follow (None without that header).

    `scope["body_read"]` is set when nothing of it is left to come; `json` False leaves out the bound on JSON.

    Raises RefusedError: 413 as soon as the declared or the arrived length is over a limit, 408 when it takes too long,
    415 or 501 for an encoding that is not read.
    """
    headers = dict(scope["headers"])
    header_length = read_header_length(headers.get(b"inference-header-content-length"))
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and len(declared) < 20:
        ticket.check(int(declared))
    codings = _codings(scope["headers"], b"content-encoding")
    _check_codings(codings, _codings(scope["headers"], b"transfer-encoding"))
    body = await _whole(receive, ticket, limits)
    scope["body_read"] = True
    for coding in reversed(codings):
        body = await _decoded(body, coding, ticket)
    json_length = len(body) if header_length is None else min(header_length, len(body))
    if json and json_length > limits.json:
        raise HttpError(413, f"the JSON has {json_length} bytes, at most {limits.json} are read: send binary tensors")
    return body, header_length


async def _whole(receive: Receive, ticket: Permit, limits: Limits) -> bytes | bytearray:
    """The body, as it comes. The first of it is waited for no longer than the rest: it may never come.

    It grows in place: joined at its end, it would take twice its memory and, when long, hold up the event loop.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            more = True
            while more:
                message = await receive()
                chunk = _chunk(message)
                more = message.get("more_body", False)
                ticket.hold(len(body) + len(chunk))
                if not more and not body:
                    return chunk
                body += chunk
    except TimeoutError:
        raise HttpError(408, f"the body did not arrive within {limits.body_timeout:g} s") from None
    return body


def _chunk(message: Mapping[str, object]) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk = message.get("body", b"")
    assert isinstance(chunk, bytes)
    return chunk


def _codings(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The codings that the lines of the header `name` list, in the order in which they were applied."""
    said = b",".join(value for key, value in headers if key == name).lower()
    return [coding for coding in map(bytes.strip, said.split(b",")) if coding not in (b"", b"identity")]


def _check_codings(content: Sequence[bytes], transfer: Sequence[bytes]) -> None:
    """Raise RefusedError for codings that are not read: 415 for those of the content, 501 for those of the transfer."""
    for coding in content:
        if coding.removeprefix(b"x-") not in (b"gzip", b"deflate"):
            said = coding[:20].decode("latin-1")
            raise HttpError(415, f"content-encoding {said!r} is not read: send gzip, deflate or none")
    if len(content) > MOST_CODINGS:
        raise HttpError(415, f"The body has {len(content)} content-encodings, at most {MOST_CODINGS} are read.")
    if transfer not in ([], [b"chunked"]):
        said = b", ".join(transfer)[:40].decode("latin-1")
        raise HttpError(501, f"transfer-encoding {said!r} is not read: send chunked or none")


async def _decoded(body: bytes | bytearray, coding: bytes, ticket: Permit) -> bytearray:
    """`body` without its content coding; a body that unpacks to more than the limit is refused, not unpacked.

    Pieces are unpacked in another thread, each counted by `ticket` before the next.
    """
    unpacked = bytearray()
    unpacking = _unpacked(body, coding.removeprefix(b"x-").decode(), min(PIECE, ticket.admission.limits.body + 1))
    while (piece := await asyncio.to_thread(next, unpacking, None)) is not None:
        ticket.hold(len(unpacked) + len(piece))
        unpacked += piece
    return unpacked


def _unpacked(body: bytes | bytearray, name: str, most: int) -> Iterator[bytes]:
    """What `body` unpacks to, in pieces of up to twice `most` bytes. Raises RefusedError (400) when it is broken.

    A gzip body may have several members (RFC 1952, 2.2): what they unpack to is joined; zeros may follow each. Deflate
    is read with zlib's frame or, as some clients send it, without.
    """
    bits = zlib.MAX_WBITS | 16 if name == "gzip" else zlib.MAX_WBITS if _has_frame(body) else -zlib.MAX_WBITS
    unpack = zlib.decompressobj(bits)
    made: list[bytes] = []
    size = 0
    # by small slices: whatever follows the end of a member is copied
    for at in range(0, len(body), SLICE):
        rest, out = body[at : at + SLICE], b""
        while rest or len(out) == most:  # after a full piece more may lie in the unpacker
            if unpack.eof:
                if not (rest := rest.lstrip(b"\0")):
                    break
                if name != "gzip":
                    raise bad_request(f"bytes follow the end of the {name} body")
                unpack = zlib.decompressobj(bits)
            try:
                out = unpack.decompress(rest, most)
            except zlib.error:
                raise bad_request(f"the body is not {name} as its content-encoding says") from None
            rest = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
            made.append(out)
            size += len(out)
            if size >= most:
                yield b"".join(made)
                made, size = [], 0
    if not unpack.eof:
        raise bad_request(f"the {name} body ends too early")
    yield b"".join(made)


def _has_frame(body: bytes | bytearray) -> bool:
    """Whether deflated bytes begin with zlib's two bytes (RFC 1950, 2.2)."""
    return body[:1] != b"" and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0


async def drain_body(receive: Receive) -> None:
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
