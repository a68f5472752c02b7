"""Test predictions of members, made when they are asked for: most members are never in an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np

from ripieno import backends
from ripieno.backends import Backend
from ripieno.data import open_dataset
from ripieno.errors import EngineError, MissingExtraError, ModelError
from ripieno.library.broken import read_sound
from ripieno.library.check import check_probabilities
from ripieno.library.library import Library
from ripieno.resources import usable_cores
from ripieno.types import Device

BATCH = 256


def evaluate(
    library: Library,
    members: Sequence[str],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    trusted: Collection[str] = (),
    notes: list[str] | None = None,
) -> None:
    """Cache the predictions on the test split of members that have none yet, by running their networks.

    ONNX Runtime runs those with an ONNX file, PyTorch the others by their weights; `trusted` names the user's own
    families that it may import. Members that cannot be run are left as they are, and `notes` gathers why; those whose
    file is broken, or whose predictions are no probabilities, with a `BrokenFileWarning`. Libraries without a data set
    are left as they are.
    """
    missing = [m for m in members if not library.has_probabilities(m, "test")]
    if not missing or not (library.dataset_path / "dataset.json").exists():
        return
    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows("test")
    if not len(rows):
        return
    threads = len(usable_cores())
    device, done = Device("cpu:0", "cpu", 0), itertools.count(1)
    lacking: dict[str, str] = {}

    def run(member: str) -> Backend:
        if library.onnx_path(member).exists():
            return backends.load("onnx", library.onnx_path(member), library.member(member), device, threads)
        path = library.weights_path(member)
        if not path.exists():
            raise EngineError("it has no network to predict the test split by, and no predictions of it")
        return backends.load("torch", path, library.member(member), device, threads, trusted)

    def predict(member: str) -> None:
        try:
            runner = run(member)
        except (EngineError, ModelError, MissingExtraError) as error:
            lacking[member] = str(error)
            return
        parts = [runner.infer(np.asarray(dataset.images[rows[i : i + BATCH]])) for i in range(0, len(rows), BATCH)]
        runner.close()
        labels = np.asarray(dataset.labels[rows])
        values = check_probabilities(member, np.concatenate(parts), labels, len(dataset.classes))
        library.write_probabilities(member, "test", values, labels)
        if progress is not None:
            progress("predicting the test images", next(done), len(missing))

    read_sound(f"the members of {library.path}", missing, predict)
    if lacking and notes is not None:
        first, why = next(iter(lacking.items()))
        more = f" and {len(lacking) - 1} more members" if len(lacking) > 1 else ""
        notes.append(f"no test figures for the ensembles of {first}{more}: {why}")
