"""Losses of the samples of a table by the value of a column: where the predictions are worse than elsewhere.

Numbers and parts of dates are cut at their quantiles. Pure functions of arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Column, Floats, column_places

PARTS = 5
"""Maximum number of slices of a number, of about as many samples each."""
CATEGORIES = 8
"""Maximum number of categories with a slice of their own, the most frequent; the rest are one."""
FEWEST = 10
"""Minimum number of samples of a slice."""


@dataclass(frozen=True)
class ColumnSlice:
    """Samples whose column has some value."""

    column: str
    values: str
    """a category, or a range of numbers; of a date, after the name of the part"""
    samples: int
    loss: float
    """mean"""
    excess: float
    """difference from the mean loss of the other samples, in standard errors"""


def slices(columns: Sequence[Column], inputs: NDArray[Any], losses: Floats) -> list[ColumnSlice]:
    """Return the slices of all `columns`, in their order, of samples `inputs` (samples, values) with `losses`."""
    found = []
    for column, place in column_places(columns):
        of_dates = column.kind == "date"
        for number, values in enumerate(inputs[:, place].T):
            prefix = f"{column.parts[number]} " if of_dates else ""
            cut = _categories(column, values) if column.kind == "category" else _numbers(values)
            large = [(f"{prefix}{text}", inside) for text, inside in cut if inside.sum() >= FEWEST]
            if len(large) > 1:
                found += [_slice(column.name, text, inside, losses) for text, inside in large]
    return found


def _slice(name: str, text: str, inside: NDArray[np.bool_], losses: Floats) -> ColumnSlice:
    own, rest = losses[inside], losses[~inside]
    error = math.sqrt(own.var() / len(own) + rest.var() / max(1, len(rest)))
    difference = float(own.mean() - rest.mean()) if len(rest) else 0.0
    return ColumnSlice(name, text, len(own), float(own.mean()), difference / error if error else 0.0)


def _categories(column: Column, values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the most frequent categories, then the other ones, those that are new, and missing values."""
    known = values[values >= 0].astype(np.int64)
    counts = np.bincount(known, minlength=len(column.categories))
    shown = np.argsort(-counts, kind="stable")[:CATEGORIES]
    for index in shown:
        yield column.categories[index], values == index
    yield "other categories", (values >= 0) & ~np.isin(values, shown)
    yield "unseen categories", values < 0
    yield "missing", np.isnan(values)


def _numbers(values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the ranges between quantiles, single values where there are few, and missing values."""
    known = values[~np.isnan(values)]
    edges = np.unique(known)
    if len(edges) > PARTS:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)[1:], method="inverted_cdf"))
    for low, high in itertools.pairwise([-np.inf, *edges]):
        inside = (values > low) & (values <= high)
        least, largest = (f"{end:.4g}" for end in (values[inside].min(), high))
        yield least if least == largest else f"{least} to {largest}", inside
    yield "missing", np.isnan(values)
