"""Mixed-integer programs by SciPy's `milp`: no output, a time limit, and memory limits exact to the byte.

Theory of operation. HiGHS lets a row be exceeded by a millionth, 16 kB on a GPU of 16 GB. Members that exceed a device
by less would be placed on it. So the solution's bytes on each device are summed again as integers. If they exceed
the memory, a *cover* is added and the program is solved again. Its columns are those that do not fit together,
and all that are at least as large as the largest of them; it allows at most one fewer than the solution had.

Imported only when needed, since SciPy is slow to import.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from ripieno.types import Floats

_silent = threading.Lock()


@dataclass(frozen=True)
class CapacityConstraint:
    """Memory limit of a device: its columns, the bytes of each, and the bytes available."""

    columns: Sequence[int]
    sizes: Sequence[int]
    bytes: int

    def cover(self, x: Floats) -> tuple[list[int], int] | None:
        """Return columns and the maximum number of them to select, if those selected in `x` do not fit; else None."""
        inside = {c: size for c, size in zip(self.columns, self.sizes, strict=True) if x[c] > 0.5}
        if not inside or sum(inside.values()) <= self.bytes:
            return None
        largest = max(inside.values())
        columns = [c for c, size in zip(self.columns, self.sizes, strict=True) if c in inside or size >= largest]
        return columns, len(inside) - 1


class ConstraintRows:
    """Constraints `row . x <= limit`, built entry by entry."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, float]] = []
        self._limits: list[float] = []

    def add(self, terms: Iterable[tuple[int, float]], limit: float) -> None:
        """Add a constraint; `terms` are (column, value)."""
        row = len(self._limits)
        self._entries += [(row, column, value) for column, value in terms]
        self._limits.append(limit)

    def constraint(self, columns: int) -> LinearConstraint:
        """Return all constraints, for `milp`."""
        row, column, value = zip(*self._entries, strict=True)
        matrix = coo_array((value, (row, column)), shape=(len(self._limits), columns)).tocsr()
        return LinearConstraint(matrix, -np.inf, np.array(self._limits))


@dataclass(frozen=True)
class Solution:
    """The best `x` found in time, or None; `bound` is a lower bound of the objective."""

    x: Floats | None
    bound: float | None
    infeasible: bool


def solve(
    objective: Floats,
    whole: Floats,
    lower: Floats,
    upper: Floats,
    rows: ConstraintRows,
    rooms: Sequence[CapacityConstraint],
    seconds: float,
    gap: float = 0.0,
) -> Solution:
    """Minimise `objective . x` within `rows` and `rooms` for at most `seconds`; `whole` marks (1) integer columns."""
    finish, bound = time.monotonic() + seconds, None
    while (left := finish - time.monotonic()) > 0:
        with silence_solver():
            result: Any = milp(
                objective,
                integrality=whole,
                bounds=Bounds(lower, upper),
                constraints=rows.constraint(len(objective)),
                options={"time_limit": left, "mip_rel_gap": gap},
            )
        if result.status == 2:
            return Solution(None, bound, True)
        # a relaxed program has no separate bound: its optimum is the bound
        dual = getattr(result, "mip_dual_bound", None) if whole.any() else result.fun
        bound = bound if dual is None or not np.isfinite(dual) else float(dual)
        if result.x is None:
            break
        covers = [cover for room in rooms if (cover := room.cover(result.x))] if whole.any() else []
        if not covers:
            return Solution(result.x, bound, False)
        for columns, most in covers:
            rows.add([(c, 1.0) for c in columns], float(most))
    return Solution(None, bound, False)


@contextlib.contextmanager
def silence_solver() -> Iterator[None]:
    """Discard what HiGHS prints despite its options; meanwhile standard output of other threads is discarded too."""
    if sys.stdout is None:  # there is no standard output
        yield
        return
    libc = ctypes.CDLL(None)
    with _silent, open(os.devnull, "wb") as nowhere:
        sys.stdout.flush()
        libc.fflush(None)
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            libc.fflush(None)  # otherwise C would write its buffer later, to the restored output
            os.dup2(kept, 1)
            os.close(kept)
