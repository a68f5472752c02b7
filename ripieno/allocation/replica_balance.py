"""Linear program that balances members' samples over their replicas; `throughput_model` states it.

Imported only when needed, since SciPy is slow to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from ripieno.allocation.problem import Resource


class Balance(NamedTuple):
    """Solution of the program: the fields of `throughput_model.Prediction`, in the same order and units."""

    throughput: float
    rates: tuple[float, ...]
    busy: dict[Resource, float]
    prices: dict[str, float]


def balance_replicas(members: Sequence[str], resources: Sequence[Resource], seconds: Sequence[float]) -> Balance:
    """Balance samples over placements, given each one's member, resource and seconds of it per sample."""
    member_index = {m: i for i, m in enumerate(dict.fromkeys(members))}
    resource_index = {r: i for i, r in enumerate(dict.fromkeys(resources))}
    times = np.array(seconds)
    scale = float(np.exp(np.log(times).mean()))  # keeps the numbers within the range of the solver's tolerances
    rows = np.array([member_index[m] for m in members])
    lanes = np.array([resource_index[r] for r in resources])
    columns = 1 + np.arange(len(rows))
    matrix = np.zeros((len(member_index) + len(resource_index), 1 + len(rows)))
    matrix[: len(member_index), 0] = 1.0  # X - sum x <= 0
    matrix[rows, columns] = -1.0
    matrix[len(member_index) + lanes, columns] = times / scale  # sum t x <= 1
    limits = np.concatenate([np.zeros(len(member_index)), np.ones(len(resource_index))])
    objective = np.zeros(1 + len(rows))
    objective[0] = -1.0
    result = linprog(objective, matrix, limits, method="highs")
    assert result.status == 0, result.message
    rates = result.x[1:] / scale
    busy = np.bincount(lanes, times * rates, minlength=len(resource_index))
    prices = np.maximum(0.0, -result.ineqlin.marginals[: len(member_index)])
    prices /= prices.sum()
    return Balance(
        float(-result.fun / scale),
        tuple(float(r) for r in rates),
        {r: float(busy[i]) for r, i in resource_index.items()},
        {m: float(prices[i]) for m, i in member_index.items()},
    )
