"""Test predictions of members, made when they are asked for: most members are never in an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ripieno import backends
from ripieno.data import open_dataset
from ripieno.library.broken import read_sound
from ripieno.library.check import check_probabilities
from ripieno.library.library import Library
from ripieno.limits import usable_cores
from ripieno.types import Device

BATCH = 256


def evaluate(library: Library, members: Sequence[str], progress: Callable[[str, int, int], None] | None = None) -> None:
    """Cache the predictions on the test split of members that have none yet, by running their ONNX files.

    Members without an ONNX file, and libraries without a data set, are left as they are. Those whose file cannot be
    run, or whose predictions are no probabilities, are left out with a `BrokenFileWarning`.
    """
    missing = [m for m in members if not library.has_probabilities(m, "test") and library.onnx_path(m).exists()]
    if not missing or not (library.dataset_path / "dataset.json").exists():
        return
    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows("test")
    if not len(rows):
        return
    threads = len(usable_cores())
    device, done = Device("cpu:0", "cpu", 0), itertools.count(1)

    def predict(member: str) -> None:
        runner = backends.load("onnx", library.onnx_path(member), library.member(member), device, threads)
        parts = [runner.infer(np.asarray(dataset.images[rows[i : i + BATCH]])) for i in range(0, len(rows), BATCH)]
        runner.close()
        labels = np.asarray(dataset.labels[rows])
        values = check_probabilities(member, np.concatenate(parts), labels, len(dataset.classes))
        library.write_probabilities(member, "test", values, labels)
        if progress is not None:
            progress("predicting the test images", next(done), len(missing))

    read_sound(f"the members of {library.path}", missing, predict)
