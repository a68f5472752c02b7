"""Statistics of the validation samples in a bundle, which `serve --watch` compares requests with.

BUNDLE/validation.json       distributions of confidence, disagreement, predictions and inputs
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.dataset import find_dataset
from ripieno.errors import LibraryError
from ripieno.library.library import Library
from ripieno.shell_command import command
from ripieno.tasks.calibration import calibrated_members, combine_members
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.drift import Measured, ValidationStatistics, distribution_of, measure
from ripieno.tasks.pixels import sample_blocks
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Bundle, Ints, Task

FILE = "validation.json"
MOST, NUMBERS = 5000, 1 << 27
"""Validation samples at most, and their members' predictions; of more, evenly spaced ones are taken."""
LEAST = 50
"""Samples that are taken however large their predictions are."""


def watches_members(bundle: Bundle, kind: TaskKind) -> bool:
    """Return whether the disagreement of the members is compared.

    A single member has none, and that of pixels costs more than the prediction of small networks.
    """
    return len(bundle.ensemble.members) > 1 and not kind.is_pixelwise


def write_statistics(library: Library, bundle: Bundle, path: Path) -> None:
    """Write the statistics of the validation samples into the bundle's folder `path`.

    An older file is removed where the library lacks predictions of a member, and for policies, which have none.
    """
    statistics = _statistics(library, bundle)
    if statistics is None:
        files.remove_file(path / FILE)
    else:
        files.write_json(path / FILE, statistics)


def read_statistics(bundle: Bundle) -> ValidationStatistics:
    """Return the statistics of a bundle. Raises LibraryError where it has none, with the way to get them."""
    if kind_of(bundle.task).has_returns:
        raise LibraryError(
            "a bundle of policies cannot be watched: it has no validation samples; serve without --watch"
        )
    if not (bundle.path / FILE).exists():
        again = command("allocate", "RUN", bundle.ensemble.name, bundle="BUNDLE")
        raise LibraryError(
            f"{bundle.path} has no statistics of validation samples ({FILE}) to watch for drift; "
            f"allocate it again with `{again}`"
        )
    statistics = files.read_json(bundle.path / FILE, ValidationStatistics)
    for d in statistics.distributions:
        bins = len(d.categories) or len(d.bounds) + 2
        if (
            len(d.counts) != bins
            or min(d.counts) < 0
            or any(b <= a for a, b in zip(d.bounds, d.bounds[1:], strict=False))
        ):
            raise LibraryError(
                f"{bundle.path / FILE} is inconsistent: {d.name!r} has counts of other bins than its own"
            )
    return statistics


def _statistics(library: Library, bundle: Bundle) -> ValidationStatistics | None:
    ensemble, task = bundle.ensemble, bundle.task
    if kind_of(task).has_returns or not all(library.has_predictions(m, "valid") for m in ensemble.members):
        return None
    kind = kind_of(task)
    predictions = [library.predictions(m) for m in ensemble.members]
    samples, numbers = len(predictions[0]), len(predictions) * math.prod(predictions[0].shape[1:])
    if any(p.shape != (samples, *task.output) for p in predictions):
        return None
    count = min(samples, MOST, max(LEAST, NUMBERS // numbers))
    rows = np.unique(np.linspace(0, samples - 1, count).astype(np.int64))
    inputs = _inputs(library, samples, task)
    shares, weigh = member_shares(ensemble), watches_members(bundle, kind)
    found: dict[str, list[Measured]] = {}
    size = numbers + (0 if inputs is None else math.prod(bundle.input.shape))
    for block in sample_blocks(len(rows), size):
        own = rows[block]
        members = calibrated_members([p[own] for p in predictions], ensemble, kind)
        disagreement = kind.member_disagreement(members, shares) if weigh else None
        taken = None if inputs is None else np.asarray(inputs[0][inputs[1][own]])
        combined = combine_members(members, ensemble, kind)
        for measured in measure(kind, task, bundle.input, taken, combined, disagreement, ensemble.thresholds):
            found.setdefault(measured.name, []).append(measured)
    joined = [parts[0]._replace(values=np.concatenate([p.values for p in parts])) for parts in found.values()]
    return ValidationStatistics(len(rows), tuple(distribution_of(m) for m in joined))


def _inputs(library: Library, samples: int, task: Task) -> tuple[NDArray[Any], Ints] | None:
    """Return the inputs of the run's data set and the rows of its validation samples; None where they are not there."""
    dataset = find_dataset(library.dataset_path)
    if dataset is None or dataset.task.kind != task.kind:
        return None
    rows = dataset.rows("valid")
    return (dataset.inputs, rows) if len(rows) == samples else None
