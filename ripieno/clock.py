"""Unix seconds that nobody can set: the time at the start of the process, counted on by the monotonic clock.

A search reads this clock in several processes. A worker on the same machine takes over the driver's `origin`, for all
processes of a machine share one monotonic clock. A worker on another machine takes it over with every job.
"""

from __future__ import annotations

import time

_origin = time.time() - time.monotonic()


def now() -> float:
    """Return Unix seconds; differences of them are real seconds, whatever is done to the system's clock."""
    return _origin + time.monotonic()


def origin() -> float:
    """Return what `now` adds to the monotonic clock."""
    return _origin


def follow(origin: float) -> None:
    """Let this process count from another's `origin`."""
    global _origin
    _origin = origin
