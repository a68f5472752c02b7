"""Clock in Unix seconds that the user cannot set: the process's start time plus the monotonic clock.

A search reads this clock in several processes. A worker on the same machine adopts the driver's `origin`, because all
processes of a machine share one monotonic clock. A worker on another machine adopts it with every job.
"""

from __future__ import annotations

import time

_origin = time.time() - time.monotonic()


def now() -> float:
    """Return Unix seconds; differences are real seconds, even when the system clock is changed."""
    return _origin + time.monotonic()


def origin() -> float:
    """Return the offset that `now` adds to the monotonic clock."""
    return _origin


def follow(origin: float) -> None:
    """Adopt the `origin` of another process."""
    global _origin
    _origin = origin
