"""Rows of the benchmarks on tasks over seeds: means with their intervals, and differences paired by seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from record import RESULTS, record
from scipy.stats import t as student

Row = dict[str, Any]
SCALES = {"accuracy": ("accuracy %", 100.0), "loss": ("cross-entropy", 1.0)}
"""Titles and factors of the scores of classes."""
MEDIAN = "budgets: in costs of the median member"


def by_seed(found: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], dict[int, Row]]:
    """Return rows by their values of `keys`, and by seed."""
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in found:
        groups.setdefault(tuple(row[key] for key in keys), {})[row["seed"]] = row
    return groups


def mean_row(group: Mapping[int, Row], keys: Sequence[str], scales: Mapping[str, tuple[str, float]]) -> Row:
    """Return the number of seeds, the means of `keys`, and means with intervals of the keys of `scales`.

    `scales` maps a key to its title in the table and a factor. Keys that the rows do not have are left out.
    """
    held = next(iter(group.values()))
    line: Row = {"seeds": len(group)}
    line |= {key: round(float(np.mean([r[key] for r in group.values()])), 4) for key in keys if key in held}
    return line | {
        title: interval([r[key] for r in group.values()], scale)
        for key, (title, scale) in scales.items()
        if key in held
    }


def paired(group: Mapping[int, Row], other: Mapping[int, Row], key: str, scale: float) -> str:
    """Return the mean of what rows have more of `key` than those of `other`, by seed; empty where none are paired."""
    pairs = [row[key] - other[seed][key] for seed, row in group.items() if seed in other and row is not other[seed]]
    return interval(pairs, scale) if pairs else ""


def paired_row(group: Mapping[int, Row], other: Mapping[int, Row], scales: Mapping[str, tuple[str, float]]) -> Row:
    """Return what `paired` returns, for each key of `scales` that the rows have, by its title."""
    held = next(iter(group.values()))
    return {title: paired(group, other, key, scale) for key, (title, scale) in scales.items() if key in held}


def interval(values: Sequence[float], scale: float) -> str:
    """Return the mean of values, and the half-width of its 95 % interval where there are two or more."""
    scaled = scale * np.asarray(values)
    digits = 2 if scale == 100 else 4
    if len(scaled) < 2:
        return f"{scaled.mean():.{digits}f}"
    half = student.ppf(0.975, len(scaled) - 1) * scaled.std(ddof=1) / np.sqrt(len(scaled))
    return f"{scaled.mean():.{digits}f} ± {half:.{digits}f}"


def record_seeds(
    name: str, settings: Mapping[str, object], table: Sequence[Row], found: Sequence[Row], note: str = ""
) -> None:
    """Record a table, as `record` does, and the rows of each seed in its JSON."""
    record(name, settings, table, note)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"by_seed": list(found)}, indent=2) + "\n")
