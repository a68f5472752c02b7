"""Cross-entropy of a mean over more samples than fit in memory.

Theory of operation. The members' true-class probabilities stay in place, usually in float16 files mapped into
memory, and are read block by block. Only one running sum, a float32 per sample, is kept. A task is a range of samples:
it returns the sum of logarithms for each candidate. These sums are added in the order of the ranges, so the result is
bit-identical for one thread, many threads, processes or machines. Within a block, which fits in the processor's cache:

- float16 becomes float32 by a shift of its bits (which drops the sign) and one multiplication. This is exact, also for
  subnormal numbers, and several times faster than a cast.
- 1e-15 is added to each probability instead of clipping the mean. The loss is then at most that of
  `metrics.cross_entropy`, and lower only where a mean is around 1e-15. With float32 sums it is within 1e-6 nats.
- Factors are multiplied in float32 as long as they cannot underflow, then up to 16 in double, then one logarithm is
  taken.
- The sum of logarithms is submodular: a member's gain falls as the ensemble grows. So the gain in a smaller ensemble
  bounds the current gain, and most candidates are not read again (lazy greedy, Minoux 1978).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ripieno.files import MapMode, first_map
from ripieno.resources import usable_cores
from ripieno.selection.tree import ParentBounds
from ripieno.tasks.metrics import FLOOR
from ripieno.types import Floats, Ints

BLOCK = 1 << 16
"""Samples of a block: its sum, a candidate and two products fit in a core's cache."""
TASK = 1 << 20
"""Samples of a task."""
FACTORS = 16
SCALE = np.float32(2.0**112)
"""Factor between the exponents of float16 and float32."""


class BlockPool(Protocol):
    """Any pool with an order-preserving `map`: an executor, `multiprocessing.Pool` or Ray's `Pool`."""

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterable[Any]:
        """Apply `function` to each of `items`."""
        ...


class PredictionRow(NamedTuple):
    """File location of one member's probabilities, which can be sent to another process."""

    path: str
    offset: int
    dtype: str
    samples: int
    modified: int
    """modification time of the file in ns, so that a replaced file is reopened"""


RowSource = NDArray[Any] | PredictionRow


def row_of(array: NDArray[Any]) -> RowSource:
    """Return a row that another process can open: the file of a mapped array, else the array itself."""
    base: Any = array
    while isinstance(base, np.memmap) and isinstance(base.base, np.memmap):
        base = base.base
    if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
        return array
    offset = base.offset + array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    path = Path(base.filename).resolve()
    return PredictionRow(str(path), offset, array.dtype.str, len(array), path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _open(row: PredictionRow) -> NDArray[Any]:
    def load(mode: MapMode | None) -> NDArray[Any]:
        if mode is None:
            return np.fromfile(row.path, np.dtype(row.dtype), row.samples, offset=row.offset)
        return np.memmap(row.path, np.dtype(row.dtype), mode, row.offset, (row.samples,))

    return first_map(load)


class BlockedCrossEntropy:
    """Objective over `rows`, one array (samples,) of true-class probabilities per member: float16, float32 or float64.

    `pool` computes ranges of samples in parallel; None: local threads, one per core. For a pool of processes, map the
    rows from files; otherwise they are copied to it. A state is the tuple of members; the latest running sum is kept.
    """

    submodular = True

    def __init__(self, rows: Sequence[NDArray[Any]], pool: BlockPool | None = None) -> None:
        self.size, self.samples = len(rows), len(rows[0])
        self._rows = rows
        self._pool = pool
        self._sums: dict[int, tuple[tuple[int, ...], NDArray[np.float32]]] = {}

    def state(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """Return the members."""
        return members

    def extend(self, state: tuple[int, ...], member: int) -> tuple[int, ...]:
        """Return the members with one more."""
        return (*state, member)

    def losses(self, state: tuple[int, ...], candidates: Ints) -> Floats:
        """Return the cross-entropy of the mean with each candidate."""
        ranges = [(start, min(start + TASK, self.samples)) for start in range(0, self.samples, TASK)]
        wanted = tuple(int(c) for c in candidates)
        if self._pool is None:
            with ThreadPoolExecutor(len(usable_cores())) as threads:
                parts: Iterable[Floats] = threads.map(partial(self._sum_range, state, wanted), ranges)
        else:
            parts = self._pool.map(partial(_sum_range, [row_of(row) for row in self._rows], state, wanted), ranges)
        total = np.zeros(len(wanted))
        for part in parts:
            total += part
        losses: Floats = math.log(len(state) + 1) - total / self.samples
        return losses

    def lower_bounds(self, state: tuple[int, ...], loss: float, above: ParentBounds | None) -> Floats:
        """Return the bounds from each member's gain in the smaller ensemble."""
        return lazy_lower_bounds(self.size, len(state), loss, above)

    def _sum_range(self, members: tuple[int, ...], candidates: tuple[int, ...], interval: tuple[int, int]) -> Floats:
        before, total = self._sums.get(interval[0], ((), None))
        if total is None or members[: len(before)] != before:
            before, total = (), _empty_sum(interval)
        _add(self._rows, members[len(before) :], interval[0], total)
        self._sums[interval[0]] = (members, total)
        return _sum_logs(self._rows, candidates, interval[0], total)

    def nbytes(self) -> int:
        """Return the bytes of a state."""
        return 8 * self.size


def lazy_lower_bounds(size: int, count: int, loss: float, above: ParentBounds | None) -> Floats:
    """Return lower bounds of the loss of `count` members plus each of `size` more, from gains in the parent `above`."""
    if above is None:
        return np.full(size, -1e300)
    gains = math.log1p(1 / (count - 1)) + above.loss - above.lower_bounds
    rounding = 2 * (count + 16) * 2.0**-24
    bounds: Floats = loss + math.log1p(1 / count) - gains - rounding
    return bounds


def _sum_range(
    sources: Sequence[RowSource], members: tuple[int, ...], candidates: tuple[int, ...], interval: tuple[int, int]
) -> Floats:
    """Compute one task in any thread or process; recompute the running sum, which reads the members again."""
    rows = [_open(source) if isinstance(source, PredictionRow) else source for source in sources]
    total = _empty_sum(interval)
    _add(rows, members, interval[0], total)
    return _sum_logs(rows, candidates, interval[0], total)


def _empty_sum(interval: tuple[int, int]) -> NDArray[np.float32]:
    """Return the running sum of no member over a task's samples, plus 1e-15 for the next candidate."""
    return np.full(interval[1] - interval[0], FLOOR, dtype=np.float32)


def _add(rows: Sequence[NDArray[Any]], members: Iterable[int], start: int, total: NDArray[np.float32]) -> None:
    scratch, bits = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.uint32)
    for member in members:
        for at in range(0, len(total), BLOCK):
            block = total[at : at + BLOCK]
            block += _read(rows[member][start + at : start + at + len(block)], scratch, bits)
            block += np.float32(FLOOR)


def _read(row: NDArray[Any], out: NDArray[np.float32], bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Convert `row` to float32 in `out`."""
    out = out[: len(row)]
    if row.dtype == np.float16:
        bits = bits[: len(row)]
        np.copyto(bits, row.view(np.uint16))
        np.left_shift(bits, 17, out=bits)
        np.right_shift(bits, 4, out=bits)
        return np.multiply(bits.view(np.float32), SCALE, out=out)
    np.copyto(out, row, casting="same_kind")
    return out


def _sum_logs(
    rows: Sequence[NDArray[Any]], candidates: Sequence[int], start: int, total: NDArray[np.float32]
) -> Floats:
    """Return the sum of log(total + t) per candidate over the samples from `start` that `total` covers."""
    scratch, bits = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.uint32)
    sums = np.zeros(len(candidates))
    for at in range(0, len(total), BLOCK):
        block = total[at : at + BLOCK]
        factors = _factors(float(block.min()))
        for position, candidate in enumerate(candidates):
            terms = _read(rows[candidate][start + at : start + at + len(block)], scratch, bits)
            terms += block
            sums[position] += _sum_log(terms, factors)
    return sums


def _factors(lowest: float) -> int:
    """Return the number of factors >= `lowest` (or 1e-15) that float32 can multiply, a power of two up to 8."""
    for factors in (8, 4):
        if lowest**factors > 1e-30:
            return factors
    return 2


def _sum_log(terms: NDArray[np.float32], factors: int) -> float:
    whole = len(terms) - len(terms) % FACTORS
    rest = float(np.log(terms[whole:].astype(np.float64)).sum())
    if not whole:
        return rest
    products = np.multiply.reduce(terms[:whole].reshape(factors, -1), axis=0)
    double = np.multiply.reduce(products.astype(np.float64).reshape(FACTORS // factors, -1), axis=0)
    return rest + float(np.log(double, out=double).sum())
