"""Check that runs are comparable: one task, and the same data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.blocks import blocks
from ripieno.data.fingerprint import Fingerprint
from ripieno.errors import RipienoError
from ripieno.library import Library
from ripieno.reports.run_data import RunData
from ripieno.tasks.registry import kind_of
from ripieno.types import Ints, Task


def check_same_data(readings: Sequence[RunData], names: Sequence[str]) -> list[str]:
    """Return notes on runs with other validation samples. Raises RipienoError for another task or other data."""
    first, path, others = readings[0], readings[0].library.path, []
    for reading, name in zip(readings[1:], names[1:], strict=True):
        if reading.task != first.task:
            differ = _task_difference(first.task, reading.task)
            raise RipienoError(
                f"{path} and {reading.library.path} have different tasks ({differ}): compare runs of one task"
            )
        own, other = _fingerprint(first.library), _fingerprint(reading.library)
        same_source = own is not None and other is not None and own.digest == other.digest
        if _same_validation(first, reading, same_source):
            continue
        if not same_source:
            differ = f"{own or 'unknown'}; {other or 'unknown'}"
            raise RipienoError(
                f"{path} and {reading.library.path} hold other data ({differ}): compare runs on the same data"
            )
        others.append(name)
    if not others:
        return []
    have = "has" if len(others) == 1 else "have"
    return [
        f"{', '.join(others)} {have} other validation samples than {names[0]}, which adds to the differences of losses"
    ]


def _task_difference(first: Task, other: Task) -> str:
    """Return what differs between two tasks."""
    if first.kind != other.kind:
        return f"{first.kind}; {other.kind}"
    if first.names != other.names:
        title = kind_of(first).names_title
        only = [", ".join([n for n in a.names if n not in b.names][:3]) for a, b in ((first, other), (other, first))]
        return f"{len(first.names)} and {len(other.names)} {title}" + (
            f"; without the other: {only[0] or 'none'}; {only[1] or 'none'}" if any(only) else " in another order"
        )
    return " and ".join(" x ".join(map(str, task.output)) for task in (first, other))


def _fingerprint(library: Library) -> Fingerprint | None:
    """Return the fingerprint of the data that a run was made from; None where none is known."""
    stored = source_record(library).get("fingerprint")
    return None if stored is None else Fingerprint(**stored)


def source_record(library: Library) -> dict[str, Any]:
    """Return what a run recorded of the source of its data; empty where it recorded nothing."""
    record = library.dataset_path / "source.json"
    return files.read_json(record, dict[str, Any]) if record.exists() else {}


def _same_validation(first: RunData, other: RunData, same_source: bool) -> bool:
    """Return whether two runs validate on the same samples; data of one source have the same order."""
    data = [reading.dataset for reading in (first, other) if reading.dataset is not None]
    if same_source and len(data) == 2:
        return np.array_equal(data[0].rows("valid"), data[1].rows("valid"))  # also where their sizes differ
    targets = [files.read_array(reading.library.targets_path("valid")) for reading in (first, other)]
    if not _equal(targets, [np.arange(len(one)) for one in targets]):
        return False
    return len(data) < 2 or _equal([one.inputs for one in data], [one.rows("valid") for one in data])


def _equal(arrays: Sequence[NDArray[Any]], rows: Sequence[Ints]) -> bool:
    """Return whether some rows of two arrays are equal, block by block, without a copy of large ones."""
    if len(rows[0]) != len(rows[1]) or arrays[0].shape[1:] != arrays[1].shape[1:] or arrays[0].dtype != arrays[1].dtype:
        return False
    return all(
        np.array_equal(arrays[0][rows[0][block]], arrays[1][rows[1][block]], equal_nan=True)
        for block in blocks(arrays[0], len(rows[0]))
    )
