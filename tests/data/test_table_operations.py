"""Operations on rows of tables: noise in units of a column's spread, and values of other training rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ripieno.data.fitting_operations import fitting_operations
from ripieno.data.table_operations import (
    NOISE,
    SWAP,
    TableColumns,
    TableOperations,
    columns_of,
    noise,
    swap,
    table_columns,
)
from ripieno.types import Column, Dataset, classification

GROUPS = [0, 1, 2, 3, 4, 4]
"""Three numbers, a category, and a date of two values."""


@pytest.fixture(scope="module")
def rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2000, 3, generator=generator)
    numbers = torch.stack([normal[:, 0], (3 * normal[:, 1]).exp() * 1e4, (normal[:, 2] - 1).clamp(min=0)], 1)
    numbers[::50, 0] = math.nan
    rest = torch.randint(0, 4, (2000, 3), generator=generator).float()
    rest[:, 2] = rest[:, 1] + 10
    return torch.cat([numbers, rest], 1)


@pytest.fixture(scope="module")
def table(rows: Tensor) -> TableColumns:
    return table_columns(rows, GROUPS, [0, 1, 2])


def normal(rows: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(seed))


def test_noise_is_in_units_of_the_spread_of_a_column(rows: Tensor, table: TableColumns) -> None:
    found = noise(table, rows, torch.full((2000,), 0.4), normal(rows))
    assert torch.equal(found[:, 3:], rows[:, 3:])
    assert torch.equal(found.isnan(), rows.isnan())
    moved = (found - rows)[:, 0].nan_to_num()
    inner = rows[:, 0].abs() < 2
    assert moved[inner].std() == pytest.approx(0.4 * NOISE, rel=0.1)
    logs = (found[:, 1].log() - rows[:, 1].log())[(rows[:, 1].log() - math.log(1e4)).abs() < 5]
    assert logs.std() == pytest.approx(3 * 0.4 * NOISE, rel=0.15)  # of a skewed column in its own unit
    assert (found[:, 1] > 0).all()
    zero = rows[:, 2] == 0
    assert 0.8 < zero.float().mean() < 0.9
    assert (found[zero, 2] == 0).float().mean() > 0.9
    assert (found[~zero, 2] != rows[~zero, 2]).all()


def test_noise_of_magnitude_0_and_of_a_constant_changes_nothing_and_far_values_move_little(table: TableColumns) -> None:
    far = torch.tensor([[50.0, 1.0, -3.0, 0, 0, 0], [math.nan] * 6])
    assert torch.equal(noise(table, far, torch.zeros(2), normal(far)).nan_to_num(), far.nan_to_num())
    found = noise(table, far, torch.ones(2), normal(far))
    assert abs(found[0, 0] - 50) < 2
    constant = table_columns(torch.full((10, 1), 7.0), [0], [0])
    same = torch.full((5, 1), 7.0)
    assert torch.equal(noise(constant, same, torch.ones(5), normal(same)[:, :1]), same)
    empty = table_columns(torch.full((10, 1), math.nan), [0], [0])
    assert torch.equal(noise(empty, same * 0, torch.ones(5), normal(same)[:, :1]), same * 0)
    assert torch.equal(noise(table_columns(same, [0], []), same, torch.ones(5), same[:, :0]), same)


def test_swap_takes_whole_columns_of_one_other_row(rows: Tensor, table: TableColumns) -> None:
    draws = torch.rand(2000, 1 + 5, generator=torch.Generator().manual_seed(2))
    draws[:, 0] = 0.0101  # row 20
    found = swap(table, rows, torch.full((2000,), 0.6), draws)
    taken = draws[:, 1:] < 0.6 * SWAP
    assert taken.float().mean() == pytest.approx(0.3, abs=0.02)
    for position, group in enumerate(GROUPS):
        expected = torch.where(taken[:, group], rows[20, position], rows[:, position])
        assert torch.equal(found[:, position], expected) or expected.isnan().any()
    assert torch.equal(found[:, 5], found[:, 4] + 10)  # the parts of a date stay together
    assert torch.equal(swap(table, rows, torch.zeros(2000), draws).nan_to_num(), rows.nan_to_num())


def test_groups_of_a_batch_are_changed_by_their_operations(rows: Tensor, table: TableColumns) -> None:
    operations, some = TableOperations(table), rows[:6]
    numbers = torch.rand(6, operations.numbers, generator=torch.Generator().manual_seed(3))
    magnitudes, signs = torch.ones(6), torch.ones(6)
    found = operations.apply(some.clone(), [("noise", slice(0, 2)), ("swap", slice(2, 5))], magnitudes, signs, numbers)
    assert torch.equal(found[5], some[5])
    assert torch.equal(found[:2, 3:], some[:2, 3:])
    assert (found[1, :2] != some[1, :2]).all()
    swapped = swap(table, some[2:5], magnitudes[2:5], numbers[2:5, :6])
    assert torch.equal(found[2:5].nan_to_num(), swapped.nan_to_num())
    assert not torch.equal(swapped, some[2:5])


def test_columns_are_those_of_training_rows_and_categories_have_no_noise() -> None:
    inputs = np.array([[1.0, 0, 2020, 3], [2, 1, 2021, 4], [99, 1, 2022, 5]], np.float32)
    columns = (Column("a"), Column("b", "category", ("x", "y")), Column("c", "date", parts=("year", "month")))
    split = np.array([0, 0, 2], np.uint8)
    targets = np.array([0, 1, 0])
    task = classification(("n", "y"))
    data = Dataset("made", inputs, targets, split, task, (0.0,) * 4, (1.0,) * 4, "table", columns=columns)
    found = columns_of(data)
    assert found.groups.tolist() == [0, 1, 2, 2]
    assert found.numbers.tolist() == [0]
    assert found.rows.tolist() == inputs[:2].tolist()
    assert fitting_operations(data) == ("noise", "swap")
    only = replace(data, columns=columns[1:2], inputs=inputs[:, 1:2], mean=(0.0,), std=(1.0,))
    assert fitting_operations(only) == ()
    series = replace(data, kind="series", inputs=inputs[:, :, None], columns=())
    assert "channel-dropout" not in fitting_operations(series)
    assert "channel-dropout" in fitting_operations(replace(series, inputs=np.zeros((3, 4, 2), np.float32)))
