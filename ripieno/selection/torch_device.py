"""Cross-entropy of a mean on an accelerator, which holds the matrix of true-class probabilities.

The arithmetic is that of :mod:`ripieno.selection.out_of_core`, float32 with sums in double; the results agree within
1e-6 nats. The device is fast enough for one logarithm per sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError, error_summary, require
from ripieno.selection.out_of_core import lazy_lower_bounds
from ripieno.selection.tree import ParentBounds
from ripieno.tasks.metrics import FLOOR
from ripieno.types import Floats, Ints


class DeviceSum(NamedTuple):
    """Running sum (samples,) on the device over `members` members, with 1e-15 for each and for one more."""

    total: Any
    members: int


class DeviceCrossEntropy:
    """Objective over `rows`, one array (samples,) per member, kept on a torch `device` such as `cuda` or `cuda:1`.

    Raises SelectionError if torch has no such device or its memory is too small, MissingExtraError without torch.
    """

    submodular = True

    def __init__(self, rows: Sequence[NDArray[Any]], device: str) -> None:
        self._torch = require("torch")
        self.size, self.samples = len(rows), len(rows[0])
        half = all(row.dtype == np.float16 for row in rows)
        try:
            kind = self._torch.float16 if half else self._torch.float32
            self._truth = self._torch.empty((self.size, self.samples), dtype=kind, device=device)
            for target, row in zip(self._truth, rows, strict=True):
                target.copy_(self._torch.from_numpy(np.array(row, dtype=np.float16 if half else np.float32)))
        except (RuntimeError, AssertionError) as error:
            reason = error_summary(error)
            raise SelectionError(f"device {device!r} cannot hold the predictions ({reason}): pass cpu") from error

    def state(self, members: tuple[int, ...]) -> DeviceSum:
        """Return the sum of `members` in their order."""
        state = DeviceSum(
            self._torch.full((self.samples,), FLOOR, dtype=self._torch.float32, device=self._truth.device), 0
        )
        for member in members:
            state = self.extend(state, member)
        return state

    def extend(self, state: DeviceSum, member: int) -> DeviceSum:
        """Return the sum with one more member."""
        return DeviceSum(state.total + self._truth[member] + FLOOR, state.members + 1)

    def losses(self, state: DeviceSum, candidates: Ints) -> Floats:
        """Return the cross-entropy of the mean with each candidate."""
        logs = [(state.total + self._truth[int(c)]).log_().sum(dtype=self._torch.float64) for c in candidates]
        total = self._torch.stack(logs).cpu().numpy()
        losses: Floats = math.log(state.members + 1) - total / self.samples
        return losses

    def lower_bounds(self, state: DeviceSum, loss: float, above: ParentBounds | None) -> Floats:
        """Return the bounds from each member's gain in the smaller ensemble."""
        return lazy_lower_bounds(self.size, state.members, loss, above)

    def nbytes(self) -> int:
        """Return the bytes of a running sum."""
        return 4 * self.samples
