"""Reading gRPC messages within the memory of all bodies.

gRPC says how long a message is only when it is here whole. A call that is not read holds no more than a window of some
KiB, so messages are read only when the longest that is allowed would still fit, and a client that takes long over
sending gives way to those that wait.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ripieno.server.limits import Admission, Ticket
from ripieno.server.refusal import RefusedError, bad

LOOK = 0.005
"""Seconds between two looks for room."""
PATIENCE = 1.0
"""Seconds that a call waits for room before the slowest sender gives way."""
SLOW = 2.0
"""Seconds that a sender may take while others wait."""


class MessageReader:
    """Reads the one message of each call; belongs to one event loop."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._turn = asyncio.Lock()
        self._reading: dict[asyncio.Task[Any], float] = {}
        """when each message that is being read was begun, oldest first"""

    async def read(self, context: Any, ticket: Ticket) -> bytes:
        """The message of a call; `ticket` counts its bytes.

        Raises RefusedError: 503 when there is no room in time, 408 when the client takes too long, 400 when it ends
        without a message.
        """
        limits = self._admission.limits
        async with self._turn:
            await self._wait_for_room(ticket)
        reading = asyncio.ensure_future(context.read())
        self._reading[reading] = time.monotonic()
        try:
            await asyncio.wait([reading], timeout=limits.body_timeout)
            if not reading.done() or reading.cancelled():
                raise RefusedError(408, f"The message did not arrive within {limits.body_timeout:g} s, or gave way.")
            message = reading.result()
        finally:
            del self._reading[reading]
            reading.cancel()
            ticket.settle(0)
        if not isinstance(message, bytes):  # the end of the stream
            raise bad("The call brings no message.")
        ticket.hold(len(message))
        return message

    async def _wait_for_room(self, ticket: Ticket) -> None:
        """Count the longest message that is allowed for `ticket`, once there is room for it."""
        limits = self._admission.limits
        began = time.monotonic()
        while self._admission.held and self._admission.held + limits.body > limits.held:
            waited = time.monotonic() - began
            if waited > limits.body_timeout:
                raise RefusedError(503, f"requests under way hold {self._admission.held} bytes: try again", 1)
            slowest = next(iter(self._reading), None)
            if waited > PATIENCE and slowest and time.monotonic() - self._reading[slowest] > SLOW:
                slowest.cancel()
            await asyncio.sleep(LOOK)
        ticket.settle(limits.body)
