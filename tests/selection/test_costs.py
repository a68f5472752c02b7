"""Rounding of budgets."""

import numpy as np
import pytest

from ripieno.selection import round_budget


def test_a_rounded_budget_holds_what_it_was_made_of() -> None:
    for cost in np.random.default_rng(0).lognormal(0, 9, 1000):
        for digits in (2, 3):
            budget = round_budget(cost, digits)
            assert cost <= budget <= cost * (1 + 10.0 ** (1 - digits))
            assert float(f"{budget:.{digits}g}") == budget


@pytest.mark.parametrize("cost", [0.1, 0.011, 2.0, 20, 4.3e9])
def test_a_short_number_stays(cost: float) -> None:
    assert round_budget(cost) == cost
