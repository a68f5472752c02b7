"""Reading gRPC messages within the memory of all bodies.

gRPC says how long a message is only when it is here whole. A call that is not read holds no more than a window of some
KiB, so few messages are read at once: FREE whatever is held, for most are small and here already, and others only when
the longest that is allowed would still fit. Connections are served in turn, not their calls; a client that takes long
over sending gives way to those that wait, and its connection is served last from then on.
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
"""Messages that are read at once without room for the longest; they are counted when they are here."""
LOOK = 0.02
"""Seconds between two looks for room."""
SLOW = 2.0
"""Seconds that a sender may take while others wait."""
REMEMBERED = 1024
"""Connections that gave way and are remembered for it."""


@dataclass
class _Read:
    """A message that is being read."""

    ticket: Permit
    task: asyncio.Future[Any] | None = None
    began: float = field(default_factory=time.monotonic)


class MessageReader:
    """Reads the one message of each call, at least `free` at once; belongs to one event loop.

    A sender gives way after `slow` seconds when others wait.
    """

    def __init__(self, admission: Admission, free: int = FREE, slow: float = SLOW) -> None:
        self._admission = admission
        self._free = free
        self._slow = slow
        self._reads: list[_Read] = []
        self._waiting: OrderedDict[str, deque[tuple[Permit, asyncio.Future[_Read]]]] = OrderedDict()
        """those that wait, by connection; the connection whose turn is next comes first"""
        self._gave_way: OrderedDict[str, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: Any, ticket: Permit) -> bytes:
        """The message of a call; `ticket` counts its bytes. Raises RefusedError as `next`, or 400 without a message."""
        if (message := await self.next(context, ticket)) is None:
            raise bad_request("The call brings no message.")
        return message

    async def next(self, context: Any, ticket: Permit) -> bytes | None:
        """The next message of a call, None at its end; `ticket` counts its bytes, and no longer those before it.

        Raises RefusedError: 503 when there is no room in time, 408 when the client takes too long.
        """
        limits, peer = self._admission.limits, context.peer()
        read = await self._turn(peer, ticket)
        read.task = asyncio.ensure_future(context.read())
        try:
            await asyncio.wait([read.task], timeout=limits.body_timeout)
            if not read.task.done() or read.task.cancelled():
                self._note_slow(peer)
                raise HttpError(408, f"The message did not arrive within {limits.body_timeout:g} s, or gave way.")
            message = read.task.result()
        finally:
            read.task.cancel()
            self._end(read)
        if not isinstance(message, bytes):  # the end of the stream
            return None
        ticket.hold(len(message))
        return message

    async def _turn(self, peer: str, ticket: Permit) -> _Read:
        """The place of a call among the reads, once there is one. Raises RefusedError (503) when it takes too long."""
        if not self._waiting and (read := self._begin(ticket)):
            return read
        turn: asyncio.Future[_Read] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append((ticket, turn))
        self._look()
        try:
            await asyncio.wait([turn], timeout=self._admission.limits.body_timeout)
            if turn.done():
                return turn.result()
        except asyncio.CancelledError:  # the call has ended
            if turn.done():
                self._end(turn.result())
            raise
        finally:
            self._leave(peer, ticket, turn)
        raise HttpError(503, f"requests under way hold {self._admission.held} bytes: try again", 1)

    def _begin(self, ticket: Permit) -> _Read | None:
        """A place for a read, if there is one; `ticket` counts the longest message if there is room for that.

        As much is left to those whose bytes are here: what may never come must not have them refused.
        """
        admission = self._admission
        if admission.held + 2 * admission.limits.body <= admission.limits.held:
            ticket.settle(admission.limits.body)
        elif sum(not read.ticket.held for read in self._reads) >= self._free:
            return None
        self._reads.append(_Read(ticket))
        return self._reads[-1]

    def _end(self, read: _Read) -> None:
        self._reads.remove(read)
        read.ticket.settle(0)
        self._look()

    def _leave(self, peer: str, ticket: Permit, turn: asyncio.Future[_Read]) -> None:
        waiting = self._waiting.get(peer)
        if waiting and (ticket, turn) in waiting:
            waiting.remove((ticket, turn))
            if not waiting:
                del self._waiting[peer]

    def _look(self) -> None:
        """Give places to those that wait; where there is none, have slow senders make one."""
        while self._waiting:
            peer = next((one for one in self._waiting if one not in self._gave_way), None) or next(iter(self._waiting))
            ticket, turn = self._waiting[peer][0]
            if (read := self._begin(ticket)) is None:
                break
            self._leave(peer, ticket, turn)
            if peer in self._waiting:
                self._waiting.move_to_end(peer)
            turn.set_result(read)
        if self._waiting:
            slow = time.monotonic() - self._slow
            for read in self._reads[: sum(map(len, self._waiting.values()))]:
                if read.task and read.began < slow:
                    read.task.cancel()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LOOK, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._look()

    def _note_slow(self, peer: str) -> None:
        self._gave_way[peer] = None
        if len(self._gave_way) > REMEMBERED:
            self._gave_way.popitem(last=False)
