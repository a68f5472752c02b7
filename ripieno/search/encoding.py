"""Configurations as rows of numbers: features for trees, random draws and neighbours. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array = np.ndarray[Any, np.dtype[np.float64]]
Numeric = FloatDistribution | IntDistribution


class Encoding:
    """Encoding of the ranges of a space; those with a single value are left out.

    A row holds a number per range: the value, or the index of a choice. Its features are the place of each value in its
    range, from 0 to 1, in logarithm where the range is logarithmic, and a column of 0 and 1 for each choice.
    """

    def __init__(self, ranges: Mapping[str, BaseDistribution]) -> None:
        self._ranges = {name: choice for name, choice in ranges.items() if not choice.single()}

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def rows(self, configurations: Iterable[Mapping[str, Any]]) -> Array:
        """Return the rows of `configurations`, (configurations, ranges)."""
        rows = [[c.to_internal_repr(values[name]) for name, c in self._ranges.items()] for values in configurations]
        return np.array(rows, float).reshape(len(rows), len(self._ranges))

    def values(self, row: Array) -> dict[str, Any]:
        """Return the value of each range in `row`."""
        return {name: c.to_external_repr(float(v)) for (name, c), v in zip(self._ranges.items(), row, strict=True)}

    def features(self, rows: Array) -> Array:
        """Return the features of `rows`, (rows, features)."""
        columns = [np.empty((len(rows), 0))]
        for choice, values in zip(self._ranges.values(), rows.T, strict=True):
            if isinstance(choice, CategoricalDistribution):
                columns.append(values[:, None] == np.arange(len(choice.choices)))
            else:
                columns.append(_place(_numeric(choice), values)[:, None])
        return np.concatenate(columns, axis=1, dtype=float)

    def draw(self, count: int, random: np.random.Generator) -> Array:
        """Return `count` rows drawn uniformly from the ranges."""
        places = random.random((count, len(self._ranges)))
        return np.stack([_at(c, column) for c, column in zip(self._ranges.values(), places.T, strict=True)], axis=1)

    def middle(self) -> Array:
        """Return the row (1, ranges) of the middle of every range; of choices the first."""
        places = [0.0 if isinstance(choice, CategoricalDistribution) else 0.5 for choice in self._ranges.values()]
        columns = [_at(c, np.array([place])) for c, place in zip(self._ranges.values(), places, strict=True)]
        return np.stack(columns, axis=1)

    def neighbours(self, rows: Array, spread: float, share: float, random: np.random.Generator) -> Array:
        """Return a neighbour of each of `rows`: a random range of it changes, and each other with probability `share`.

        A number moves by a normal step of `spread` times its range and is reflected at the ends; a choice is drawn.
        """
        count, columns = len(rows), len(self._ranges)
        changes = random.random((count, columns)) < share
        changes[np.arange(count), random.integers(columns, size=count)] = True
        moved, steps = self.draw(count, random), random.normal(0.0, spread, (count, columns))
        for n, choice in enumerate(self._ranges.values()):
            if not isinstance(choice, CategoricalDistribution):
                place = np.abs(_place(_numeric(choice), rows[:, n]) + steps[:, n])
                moved[:, n] = _at(choice, np.abs(1 - np.abs(1 - place)))
        return np.where(changes, moved, rows)


def _numeric(choice: BaseDistribution) -> Numeric:
    assert isinstance(choice, Numeric), choice
    return choice


def _ends(choice: Numeric) -> tuple[float, float]:
    """Return the ends of the line on which values have their place; the ends of a range of integers weigh in full."""
    half = choice.step / 2 if isinstance(choice, IntDistribution) else 0.0
    low, high = choice.low - half, choice.high + half
    return (float(np.log(low)), float(np.log(high))) if choice.log else (low, high)


def _place(choice: Numeric, values: Array) -> Array:
    """Return the place of `values` in their range, from 0 to 1."""
    low, high = _ends(choice)
    places: Array = ((np.log(values) if choice.log else values) - low) / (high - low)
    return places


def _at(choice: BaseDistribution, places: Array) -> Array:
    """Return the values, or indices of choices, at `places` from 0 to 1."""
    places = np.clip(places, 0.0, 1.0)
    if isinstance(choice, CategoricalDistribution):
        return np.minimum(np.floor(places * len(choice.choices)), len(choice.choices) - 1)
    choice = _numeric(choice)
    low, high = _ends(choice)
    values = low + places * (high - low)
    values = np.exp(values) if choice.log else values
    if isinstance(choice, IntDistribution):
        values = choice.low + np.round((values - choice.low) / choice.step) * choice.step
    return np.clip(values, choice.low, choice.high)
