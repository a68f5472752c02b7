"""Validation of durations that a user passes."""

from __future__ import annotations

import math
from typing import cast

from ripieno.errors import RipienoError

LONGEST = 1e8
"""Largest duration in seconds, three years: waits and timers of the operating system overflow far above it."""


def check_duration(
    value: object, name: str, *, zero: bool = False, unit: float = 1.0, error: type[RipienoError] = RipienoError
) -> float:
    """Return `value` as a float, a duration in units of `unit` seconds (3600, 60, 1 or 1e-6); `zero` allows 0.

    Raises `error` when it is not a number, not finite, negative, or longer than `LONGEST` seconds. The message calls
    the value `name`.
    """
    try:
        number = math.nan if isinstance(value, bool | str) else float(cast(float, value))
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if (number >= 0 if zero else number > 0) and number * unit <= LONGEST:
        return number
    least = "0 or more" if zero else "more than 0"
    what = f"{value:g}" if isinstance(value, float) else repr(value)[:40]
    words = {1e-6: "microseconds", 1.0: "seconds", 60.0: "minutes", 3600.0: "hours"}[unit]
    raise error(f"{name} {what} must be a number of {words}, {least} and at most {LONGEST / unit:.6g}")
