"""Targets of a regression: finite numbers, in one or more columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.raw_targets import RawTargets
from ripieno.errors import DataError


def read_numbers(
    parts: Sequence[RawTargets],
    names: Sequence[str] | None,
    columns: Sequence[str],
    positions: bool,  # noqa: ARG001  numbers have no positions
) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """Read numbers as float32 (samples, targets), see `TargetReader`."""
    targets = [_numbers(part) for part in parts]
    count = targets[0].shape[1]
    for one, part in zip(targets, parts, strict=True):
        if one.shape[1] != count:
            raise DataError(f"targets of {part.where} have {one.shape[1]} columns; expected {count}")
    names = names or columns
    if len(names) != count:
        names = ["target"] if count == 1 else [f"target{i + 1}" for i in range(count)]
    return [_finite(one, part, names) for one, part in zip(targets, parts, strict=True)], tuple(map(str, names))


def _numbers(part: RawTargets) -> NDArray[np.float64]:
    """Return targets as (samples, columns). Raises DataError naming the first value that is no number."""
    values = part.values if part.values.ndim == 2 else part.values[:, np.newaxis]
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"targets of {part.where} have shape {part.values.shape}; expected numbers for each sample")
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    for row, line in enumerate(values.tolist()):
        for value in line:
            try:
                float(value)
            except (TypeError, ValueError) as error:
                held = "no value" if value is None else repr(value)
                raise DataError(f"targets of {part.where} hold {held}, {part.row(row)}; expected numbers") from error
    return values.astype(np.float64)


def _finite(values: NDArray[np.float64], part: RawTargets, names: Sequence[str]) -> NDArray[np.float32]:
    """Return `values` in single precision. Raises DataError naming the first that is not finite in it."""
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    wrong = np.argwhere(~np.isfinite(single))
    if len(wrong):
        row, column = wrong[0]
        held = f"{values[row, column]:g} for {names[column]!r}, {part.row(row)}"
        raise DataError(f"targets of {part.where} hold {held}; expected finite numbers; replace it or leave it out")
    return single
