"""Check of members' predictions: finite numbers in 0..1; over the classes of a sample they sum to 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError

SUM_TOLERANCE = 0.02
"""Maximum deviation from 1 of a sample's sum of probabilities: the rounding of 100 float16."""
HIGHEST = 1.001
"""Maximum probability: one and the rounding of a float16."""
ONE_AND_A_BIT = 0x3C01
"""Bits of the smallest float16 above one, which rounding may produce."""
BLOCK = 1 << 18
"""Numbers checked at a time: they stay in a core's second cache between the two passes."""


def check_probabilities(name: str, values: NDArray[Any], error: type[RipienoError], normalised: bool = True) -> None:
    """Raise `error`, naming the sample, unless `values` (samples[, ..., classes]) of floats are probabilities.

    Only their range is checked without an axis of classes, or with `normalised` False: then the last axis is of labels.
    """
    if _are_plausible(values) if normalised else are_in_range(values):
        return
    if values.ndim > 2:  # large: the search below is for one sample
        sample = next((i for i, one in enumerate(values) if not _are_plausible(one.reshape(-1, one.shape[-1]))), 0)
        _find_fault(name, values[sample : sample + 1], error, normalised, sample)
    else:
        _find_fault(name, values, error, normalised, 0)


def _find_fault(name: str, values: NDArray[Any], error: type[RipienoError], normalised: bool, first: int) -> None:
    """Raise `error` for what is wrong in `values`, whose first sample has the number `first`."""
    bad = ~np.isfinite(values)
    if bad.any():
        row = first + int(np.argwhere(bad)[0, 0])
        raise error(
            f"{name}: {int(bad.sum())} predictions are NaN or infinite, first of sample {row}; remove the model or "
            "predict again"
        )
    outside = np.argwhere((values < 0) | (values > HIGHEST))
    if len(outside):
        place = tuple(outside[0])
        raise error(
            f"{name}: a prediction is {values[place]:g} for sample {first + place[0]}, expected probabilities in 0..1; "
            f"logits need a {'softmax' if normalised else 'sigmoid'} first"
        )
    if values.ndim > 1 and normalised:
        sums = values.sum(axis=-1, dtype=np.float64).reshape(len(values), -1)
        row, pixel = np.unravel_index(np.abs(sums - 1).argmax(), sums.shape)
        if abs(sums[row, pixel] - 1) > SUM_TOLERANCE:
            found = f"predictions of sample {first + row} sum to {sums[row, pixel]:.4g}"
            raise error(f"{name}: {found}, expected 1; divide them by it")


def _are_plausible(values: NDArray[Any]) -> bool:
    """Return False if `check_probabilities` could raise; takes as long as reading the values once or twice.

    The sums are products with a vector of ones: a NaN or an infinity makes them so, too. Numbers that are not negative
    are at most their sum, so a sum of `HIGHEST` or less needs no search for the largest.
    """
    if values.ndim == 1:
        return are_in_range(values)
    values = values.reshape(-1, values.shape[-1])  # a view
    ones = np.ones(values.shape[1], values.dtype)
    rows = max(1, BLOCK // max(1, values.shape[1]))
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        half = block.dtype == np.float16  # without a fast product
        sums = block.sum(axis=1, dtype=np.float32) if half else block @ ones
        if not (sums.min() >= 1 - SUM_TOLERANCE and (high := sums.max()) <= 1 + SUM_TOLERANCE):
            return False
        if not (are_in_range(block) if half or high > HIGHEST else block.min() >= 0):
            return False
    return True


def are_in_range(values: NDArray[Any]) -> bool:
    """Return whether all are numbers in 0..1, up to rounding."""
    if values.dtype == np.float16 and values.flags.c_contiguous:
        # float16 bits order like integers, which compare many times faster; sign, NaN and infinity are above
        return bool(values.view(np.uint16).max(initial=0) <= ONE_AND_A_BIT)
    return bool(values.min(initial=0) >= 0 and values.max(initial=0) <= HIGHEST)
