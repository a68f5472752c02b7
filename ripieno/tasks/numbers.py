"""Targets and predictions that are numbers for each sample: their form and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import RipienoError
from ripieno.tasks.labels import shown
from ripieno.types import Floats, Task


def check_form(task: Task, what: str, where: str, error: type[RipienoError]) -> None:
    """Raise `error` unless predictions have one number for each name; `what` is the plural of the things named."""
    if not task.names:
        raise error(f"{where}: there are no {what}; expected at least one")
    if task.output != (len(task.names),):
        raise error(f"{where}: predictions of shape {task.output} do not fit {len(task.names)} {what}")


def read_numbers(values: Any, output: tuple[int, ...], where: str, error: type[RipienoError]) -> Floats:
    """Return `values` (samples, *output) in double; where `output` is a single number, (samples,) is accepted.

    Raises `error`, naming `where`, for another shape, missing values, values that are no numbers, and infinities.
    """
    if np.ma.is_masked(values):
        raise error(f"{where} have missing values: give each sample one")
    try:
        array = np.asarray(values)
    except ValueError as problem:
        raise error(f"{where} are no array: give each sample as many numbers as the others") from problem
    if array.ndim == 1 and int(np.prod(output)) == 1:
        array = array.reshape(-1, *output)
    if array.ndim != 1 + len(output) or array.shape[1:] != output or not len(array):
        due = ", ".join(("samples", *map(str, output)))
        raise error(f"{where} have shape {np.shape(values)}, expected ({due}) with at least one sample")
    if array.dtype.kind not in "fiub":
        array = _from_objects(array, where, error)
    numbers = array.astype(np.float64)
    check_finite(numbers, where, error)
    return numbers


def match_columns(
    targets: NDArray[Any],
    names: Sequence[str],
    task: Task,
    positions: Sequence[str],
    error: type[RipienoError],
    *,
    fill: bool = False,
) -> NDArray[Any]:
    """Return columns of targets (samples, names) in the order of the names of `task`.

    They are in this order already where `names` are `positions`, the names that columns of arrays get. Columns that are
    absent are 0 with `fill`. Raises `error` for names that `task` does not have, and without `fill` for absent ones.
    """
    if len(names) == len(task.names) and list(names) == list(positions):
        return targets
    if not set(names) <= set(task.names) or (not fill and len(names) < len(task.names)):
        raise error(f"the data's targets are {shown(names)}; expected {shown(task.names)}, in any order")
    matched = np.zeros((len(targets), len(task.names)), targets.dtype)
    matched[:, [task.names.index(name) for name in names]] = targets
    return matched


def _from_objects(array: NDArray[Any], where: str, error: type[RipienoError]) -> NDArray[Any]:
    """Return numbers from an array of objects; missing values become NaN. Raises `error` for anything else."""
    plain = array.reshape(-1).tolist()
    for place, value in enumerate(plain):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            plain[place] = np.nan
        elif not isinstance(value, bool | int | float | np.number):
            sample = place // (array.size // len(array))
            raise error(f"{where} contain {value!r} for sample {sample}: expected a number")
    return np.array(plain, dtype=np.float64).reshape(array.shape)


def check_finite(values: NDArray[Any], where: str, error: type[RipienoError]) -> None:
    """Raise `error`, naming the sample, unless all are finite."""
    bad = ~np.isfinite(values)
    if bad.any():
        sample = int(np.argwhere(bad)[0, 0])
        raise error(f"{where} contain NaN or infinity in {int(bad.sum())} places, first in sample {sample}")
