"""Content of a file of series, as its reader returns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.tasks.target_text import SEPARATOR
from ripieno.types import Float32s


@dataclass(frozen=True, eq=False)
class SeriesFile:
    """Series of a file, with their targets."""

    series: Float32s
    """(samples, length, channels), padded at the end with NaN; missing values are NaN, too"""
    targets: NDArray[Any] | None
    """(samples,) or (samples, columns); None where the file has none"""
    names: tuple[str, ...] = ()
    """of the classes or labels, where the file declares them"""
    task: str | None = None
    """kind of task that the file declares; None: inferred from the targets"""
    columns: tuple[str, ...] = ()
    """names of the columns of targets, where they have any"""


def text_task(targets: Sequence[str], names: Sequence[str]) -> str:
    """Return the kind of task of targets that are names: several labels where one is joined of several names."""
    joined = any(SEPARATOR in target and target not in names for target in targets)
    return "multilabel" if joined else "classification"


def used_names(names: Sequence[str], targets: Sequence[NDArray[Any]]) -> tuple[str, ...]:
    """Return those of the declared `names` that occur in the targets of a source, in their order."""
    found = {label.strip() for part in targets for value in np.unique(part) for label in str(value).split(SEPARATOR)}
    found |= {str(value) for part in targets for value in np.unique(part)}
    return tuple(name for name in names if name in found)
