"""How long a trainer had no batch to train on.

Theory of operation. On a CPU the clock says it: who asks for a batch waits for it. On a GPU the clock would say how
long the trainer's process waited, and that runs ahead of the device: while it prepares a batch the device may still
train on the one before, and where it waits for the device it does not wait for data. So both ends are marked in the
device's own queue. The first mark is passed when it has done all that it was given, the second when the batch is there.
"""

from __future__ import annotations

import time
from typing import Any

import torch


class StallTimer:
    """Seconds between `begin` and `end`, as the trainer's `device` sees them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun: Any = None
        self._last: tuple[Any, Any] = (0.0, 0.0)
        self._spans: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        """A batch is asked for."""
        self._begun = self._mark()

    def end(self) -> None:
        """It is there, or on a GPU: all that makes it is in the queue."""
        self._last = self._begun, self._mark()
        self._spans.append(self._last)

    def last(self) -> float:
        """The last wait; a GPU must have done its work."""
        return self._seconds(*self._last)

    def seconds(self) -> float:
        """All waits since the last call; a GPU must have done its work."""
        spans, self._spans = self._spans, []
        return sum((self._seconds(begun, ended) for begun, ended in spans), 0.0)

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _seconds(self, begun: Any, ended: Any) -> float:
        return float(ended - begun if self._device.type != "cuda" else begun.elapsed_time(ended) / 1000)
