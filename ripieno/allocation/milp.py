"""Mixed-integer programs as ours need them: SciPy's `milp`, silent, within its time, memory counted to the byte.

Theory of operation. HiGHS lets a row be exceeded by a millionth, which is 16 kB of a card of 16 GB: members that miss a
device by less would be placed on it. So what a solution puts into each device is added up again, in whole bytes. Where
it is too much, a *cover* is added to the program and it is solved again: of the columns that do not fit together, and
all that are as large as the largest of them, at most one fewer than there were may be taken.

Imported only when it is needed, for it brings SciPy.
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
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

Array = NDArray[np.float64]
_silent = threading.Lock()


@dataclass(frozen=True)
class CapacityConstraint:
    """A device to be filled: the columns that may be put into it, the bytes each takes, and the bytes there are."""

    columns: Sequence[int]
    sizes: Sequence[int]
    bytes: int

    def cover(self, x: Array) -> tuple[list[int], int] | None:
        """Columns, and how many of them may be taken, where those that `x` takes do not fit together."""
        inside = {c: size for c, size in zip(self.columns, self.sizes, strict=True) if x[c] > 0.5}
        if not inside or sum(inside.values()) <= self.bytes:
            return None
        largest = max(inside.values())
        columns = [c for c, size in zip(self.columns, self.sizes, strict=True) if c in inside or size >= largest]
        return columns, len(inside) - 1


class ConstraintRows:
    """Constraints `row . x <= limit`, gathered entry by entry."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, float]] = []
        self._limits: list[float] = []

    def add(self, terms: Iterable[tuple[int, float]], limit: float) -> None:
        """One more: `terms` are (column, value)."""
        row = len(self._limits)
        self._entries += [(row, column, value) for column, value in terms]
        self._limits.append(limit)

    def constraint(self, columns: int) -> LinearConstraint:
        """All of them, for `milp`."""
        row, column, value = zip(*self._entries, strict=True)
        matrix = coo_array((value, (row, column)), shape=(len(self._limits), columns)).tocsr()
        return LinearConstraint(matrix, -np.inf, np.array(self._limits))


@dataclass(frozen=True)
class Solution:
    """The best `x` found in time, None when there is none; `bound` is what no x is below, of the objective."""

    x: Array | None
    bound: float | None
    infeasible: bool


def solve(
    objective: Array,
    whole: Array,
    lower: Array,
    upper: Array,
    rows: ConstraintRows,
    rooms: Sequence[CapacityConstraint],
    seconds: float,
    gap: float = 0.0,
) -> Solution:
    """Minimise `objective . x` within `rows` and `rooms`, `whole` columns (1) being whole, for at most `seconds`."""
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
        # a relaxed program has no bound beside its optimum
        found = getattr(result, "mip_dual_bound", None) if whole.any() else result.fun
        bound = bound if found is None or not np.isfinite(found) else float(found)
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
    """Nothing that HiGHS prints past its own options (they only turn its log off) is seen, on either output.

    Python's own standard output of other threads is not seen either, as long as a program is solved.
    """
    if sys.stdout is None:  # there is nowhere to print to
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
            libc.fflush(None)  # or C's own buffer would be written later, to where it was going
            os.dup2(kept, 1)
            os.close(kept)
