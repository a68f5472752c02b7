"""Operations on rows of tables of which a policy chooses, each with a magnitude from 0 to 1 for every row.

At magnitude m, 0 changes nothing:

    noise  normal noise with a deviation of m / 2 is added to each number, after the map of its column to a normal
           distribution by the quantiles of the training rows; the result is mapped back
    swap   each column takes the value of another training row with a probability of m / 2 (Bahri et al. 2022); a
           column of several values, such as a date, or of a category, moves as a whole

Noise is thus in units of a column's spread however skewed it is, and a value that many rows share, such as 0, mostly
stays. Missing numbers stay missing under noise. Categories and dates have no noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ripieno.data.blocks import select_rows
from ripieno.data.dataset import spread_rows
from ripieno.data.image_operations import Groups
from ripieno.types import Dataset, column_places

NOISE, SWAP = 0.5, 0.5
"""Strengths at magnitude 1."""
KNOTS = 65
"""Points of a column's distribution between which its map is linear."""
ROWS, VALUES = 20_000, 20_000_000
"""Training rows, and values of them, that are kept, at most."""
_LEAST = 2.0**-24
"""Least uniform number that becomes a normal one."""
FARTHEST = 3.0
"""Deviations of the outermost knots; smaller and larger numbers are moved as these."""


@dataclass(frozen=True, eq=False)
class TableColumns:
    """Columns of a table and some of its training rows, on one device, as operations need them."""

    rows: Tensor
    """(rows, values) float32, NaN where a number is missing"""
    groups: Tensor
    """(values,) number of the column that each value belongs to"""
    numbers: Tensor
    """positions of values that take noise"""
    knots: Tensor
    """(numbers, KNOTS) quantiles of these values, at equal steps of a normal distribution"""

    @property
    def columns(self) -> int:
        """Number of columns."""
        return int(self.groups.max()) + 1

    def to(self, device: torch.device) -> TableColumns:
        """Return the columns on `device`."""
        return TableColumns(*(t.to(device) for t in (self.rows, self.groups, self.numbers, self.knots)))


def table_columns(rows: Tensor, groups: list[int], numbers: list[int]) -> TableColumns:
    """Return the columns of training `rows` (rows, values): see `TableColumns`."""
    steps = torch.linspace(-FARTHEST, FARTHEST, KNOTS, dtype=torch.float64)
    shares = torch.special.ndtr(steps)
    knots = torch.zeros(len(numbers), KNOTS)
    for place, number in enumerate(numbers):
        known = rows[:, number][~rows[:, number].isnan()].double()
        if len(known):
            knots[place] = torch.quantile(known, shares).float()
    return TableColumns(rows, torch.tensor(groups), torch.tensor(numbers, dtype=torch.int64), knots)


def columns_of(dataset: Dataset) -> TableColumns:
    """Return the columns of a table `dataset`, with at most `ROWS` of its training rows."""
    groups, numbers = column_groups(dataset)
    most = min(ROWS, max(1, VALUES // len(groups)))
    rows = select_rows(dataset.inputs, spread_rows(dataset.rows("train"), most))
    return table_columns(torch.from_numpy(rows.astype("float32")), groups, numbers)


def column_groups(dataset: Dataset) -> tuple[list[int], list[int]]:
    """Return the column of each value of a row, and the positions of numbers; without columns all are numbers."""
    if not dataset.columns:
        positions = list(range(dataset.inputs.shape[1]))
        return positions, positions
    groups: list[int] = []
    numbers: list[int] = []
    for column, (of, place) in enumerate(column_places(dataset.columns)):
        groups += [column] * of.width
        if of.kind == "number":
            numbers += range(place.start, place.stop)
    return groups, numbers


def noise(table: TableColumns, inputs: Tensor, magnitudes: Tensor, normal: Tensor) -> Tensor:
    """Return rows (samples, values) whose numbers have noise; `normal` (samples, numbers) is standard."""
    if not len(table.numbers):
        return inputs
    values = inputs[:, table.numbers].T.contiguous()  # (numbers, samples)
    missing = values.isnan()
    known = values.nan_to_num()
    low, high = table.knots[:, :1], table.knots[:, -1:]
    inside = known.clamp(low, high)
    # a value of several knots is the middle of them
    right = torch.searchsorted(table.knots, inside, right=True)
    left = torch.searchsorted(table.knots, inside)
    below = (right - 1).clamp(0, KNOTS - 2)
    start, end = table.knots.gather(1, below), table.knots.gather(1, below + 1)
    share = (inside - start) / (end - start).clamp(min=torch.finfo(torch.float32).tiny)
    place = torch.where(right - left > 1, (left + right - 1) / 2, below + share.clamp(0, 1))
    step = 2 * FARTHEST / (KNOTS - 1)
    moved = (place + (NOISE / step) * magnitudes * normal.T).clamp(0, KNOTS - 1)
    found = known + _at(table.knots, moved) - _at(table.knots, place)  # so that no noise is no change, to the bit
    changed = inputs.clone()
    changed[:, table.numbers] = torch.where(missing, values, found).T
    return changed


def _at(knots: Tensor, places: Tensor) -> Tensor:
    """Return the values at `places` (numbers, samples), 0..KNOTS - 1, between the knots of each number."""
    below = places.floor().clamp(max=KNOTS - 2)
    before, after = knots.gather(1, below.long()), knots.gather(1, below.long() + 1)
    return before + (after - before) * (places - below)


def swap(table: TableColumns, inputs: Tensor, magnitudes: Tensor, draws: Tensor) -> Tensor:
    """Return rows (samples, values), some columns of which are those of another training row.

    `draws` (samples, 1 + columns) are uniform: which row, and whether each column is taken from it.
    """
    others = table.rows[(draws[:, 0] * len(table.rows)).long().clamp(max=len(table.rows) - 1)]
    taken = draws[:, 1:] < SWAP * magnitudes[:, None]
    return torch.where(taken[:, table.groups], others, inputs)


@dataclass(frozen=True, eq=False)
class TableOperations:
    """Operations on rows of a table: see `ripieno.train.policy_augmentation`."""

    table: TableColumns
    _tables: dict[torch.device, TableColumns] = field(default_factory=dict, repr=False)
    """by device"""

    @property
    def numbers(self) -> int:
        """Random numbers of a row for an operation."""
        return max(1 + self.table.columns, len(self.table.numbers))

    def apply(self, rows: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Change the `groups` of `rows` (samples, values) in place; return them."""
        table = self._tables.setdefault(rows.device, self.table.to(rows.device))
        for name, part in groups:
            own = numbers[part]
            if name == "noise":
                normal = torch.special.ndtri(own[:, : len(table.numbers)].clamp(_LEAST, 1 - _LEAST))
                rows[part] = noise(table, rows[part], magnitudes[part], normal)
            else:
                rows[part] = swap(table, rows[part], magnitudes[part], own[:, : 1 + table.columns])
        return rows

    def apply_to_masks(self, masks: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor) -> Tensor:  # noqa: ARG002
        """Return `masks`: tables have none."""
        return masks
