"""Timer of data stalls: the time that a trainer had no batch to train on.

Theory of operation. On a CPU the clock measures it: the trainer waits for the batch it requests. On a GPU the clock
would measure the wait of the trainer's process, which runs ahead of the device. While it prepares a batch, the device
may still train on the one before; while it waits for the device, it does not wait for data. So both ends are recorded
as events in the device's own queue. The device reaches the first event when all earlier work is done, and the second
when the batch is available.
"""

from __future__ import annotations

import time
from typing import Any

import torch


class StallTimer:
    """Timer of the seconds between `begin` and `end` on the trainer's `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start: Any = None
        self._last: tuple[Any, Any] = (0.0, 0.0)
        self._stalls: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """Mark the request of a batch."""
        self._start = self._record()

    def end(self) -> None:
        """Mark the batch as available (on a GPU: its kernels are enqueued)."""
        self._last = self._start, self._record()
        self._stalls.append(self._last)

    def last(self) -> float:
        """Return the seconds of the last stall; a GPU must have finished its work."""
        return self._seconds(*self._last)

    def seconds(self) -> float:
        """Return the seconds of all stalls since the last call; a GPU must have finished its work."""
        stalls, self._stalls = self._stalls, []
        return sum((self._seconds(*stall) for stall in stalls), 0.0)

    def _record(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _seconds(self, start: Any, end: Any) -> float:
        return float(end - start if self._device.type != "cuda" else start.elapsed_time(end) / 1000)
