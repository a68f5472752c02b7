"""Reading of gRPC messages within the memory limit of all bodies.

gRPC reports the length of a message only once it has arrived completely. An unread call holds no more than a window of
some KiB, so only few messages are read at once: FREE in any case, because most are small and have already arrived, and
more only while the longest allowed message would still fit. Turns rotate over connections, not over calls. A slow
sender yields to waiting calls, and its connection is served last from then on.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Any

from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Admission, Permit

FREE = 2
"""Messages that are read at once without room for the longest; they are counted when they have arrived."""
LOOK = 0.02
"""Seconds between two checks for room."""
SLOW = 2.0
"""Seconds that a sender may take while other calls wait."""
REMEMBERED = 1024
"""Number of slow connections that are remembered."""


@dataclass
class _Read:
    """A read in progress."""

    permit: Permit
    task: asyncio.Future[Any] | None = None
    began: float = field(default_factory=time.monotonic)


class MessageReader:
    """Reader of the messages of calls, at least `free` at once; belongs to one event loop.

    A sender must yield after `slow` seconds while other calls wait.
    """

    def __init__(self, admission: Admission, free: int = FREE, slow: float = SLOW) -> None:
        self._admission = admission
        self._free = free
        self._slow = slow
        self._reads: list[_Read] = []
        self._waiting: OrderedDict[str, deque[tuple[Permit, asyncio.Future[_Read]]]] = OrderedDict()
        """waiting calls by connection, the next connection first"""
        self._slow_peers: OrderedDict[str, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: Any, permit: Permit) -> bytes:
        """Read the message of a call; `permit` counts its bytes. Raises HttpError as `next`, or 400 without one."""
        if (message := await self.next(context, permit)) is None:
            raise bad_request("The call has no message. Send one.")
        return message

    async def next(self, context: Any, permit: Permit) -> bytes | None:
        """Read the next message of a call, None at its end; `permit` counts its bytes instead of earlier messages'.

        Raises HttpError: 503 when there is no room in time, 408 when the client is too slow.
        """
        limits, peer = self._admission.limits, context.peer()
        read = await self._turn(peer, permit)
        read.task = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait([read.task], timeout=limits.body_timeout)
            if not read.task.done() or read.task.cancelled():
                self._note_slow(peer)
                raise HttpError(
                    408,
                    f"Request timeout: the message did not arrive within {limits.body_timeout:g} s, "
                    "or other calls needed its memory.",
                )
            message = read.task.result()
        finally:
            read.task.cancel()
            self._end(read)
        if not isinstance(message, bytes):  # the end of the stream
            return None
        permit.hold(len(message))
        return message

    async def _turn(self, peer: str, permit: Permit) -> _Read:
        """Wait until a call may be read. Raises HttpError (503) on a timeout."""
        if not self._waiting and (read := self._begin(permit)):
            return read
        turn: asyncio.Future[_Read] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append((permit, turn))
        self._check()
        try:
            await asyncio.wait([turn], timeout=self._admission.limits.body_timeout)
            if turn.done():
                return turn.result()
        except asyncio.CancelledError:  # the call has ended: release a turn that it was given
            if turn.done():
                self._end(turn.result())
            raise
        finally:
            self._leave(peer, permit, turn)
        raise HttpError(503, f"Too many bytes in flight ({self._admission.held}). Retry later.", 1)

    def _begin(self, permit: Permit) -> _Read | None:
        """Start a read if there is room; `permit` counts the longest message if that fits.

        The same room stays free for requests that have arrived: a message that may never arrive must not cause their
        refusal.
        """
        admission = self._admission
        if admission.held + 2 * admission.limits.body <= admission.limits.held:
            permit.settle(admission.limits.body)
        elif sum(not read.permit.held for read in self._reads) >= self._free:
            return None
        self._reads.append(_Read(permit))
        return self._reads[-1]

    def _end(self, read: _Read) -> None:
        self._reads.remove(read)
        read.permit.settle(0)
        self._check()

    def _leave(self, peer: str, permit: Permit, turn: asyncio.Future[_Read]) -> None:
        waiting = self._waiting.get(peer)
        if waiting and (permit, turn) in waiting:
            waiting.remove((permit, turn))
            if not waiting:
                del self._waiting[peer]

    def _check(self) -> None:
        """Start the reads of waiting calls; without room, cancel the reads of slow senders."""
        while self._waiting:
            peer = next((one for one in self._waiting if one not in self._slow_peers), None) or next(
                iter(self._waiting)
            )
            permit, turn = self._waiting[peer][0]
            if (read := self._begin(permit)) is None:
                break
            self._leave(peer, permit, turn)
            if peer in self._waiting:
                self._waiting.move_to_end(peer)
            turn.set_result(read)
        if self._waiting:
            slow = time.monotonic() - self._slow
            for read in self._reads[: sum(map(len, self._waiting.values()))]:
                if read.task and read.began < slow:
                    read.task.cancel()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LOOK, self._check_again)

    def _check_again(self) -> None:
        self._timer = None
        self._check()

    def _note_slow(self, peer: str) -> None:
        self._slow_peers[peer] = None
        if len(self._slow_peers) > REMEMBERED:
            self._slow_peers.popitem(last=False)
