"""Test predictions of members, computed on demand: most members are never in an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ripieno import backends
from ripieno.backends import Backend
from ripieno.backends.network_part import is_exported
from ripieno.data.dataset import BATCH, batches, find_dataset
from ripieno.errors import EngineError, LibraryError, MissingExtraError, ModelError
from ripieno.library.broken import read_sound
from ripieno.library.library import Library
from ripieno.resources import usable_cores
from ripieno.tasks.pixels import BLOCK
from ripieno.tasks.registry import kind_of
from ripieno.types import Device


def evaluate(
    library: Library,
    members: Sequence[str],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    notes: list[str] | None = None,
) -> None:
    """Predict the test split with members without stored test predictions, by running their networks.

    ONNX Runtime runs members with an ONNX file, PyTorch the remaining ones by their weights. Members that cannot be run
    are skipped, and `notes` gets the reason; a member with a broken file, or with predictions that are
    none of the task, causes a `BrokenFileWarning`. Without a data set nothing is done.
    """
    missing = [m for m in members if not library.has_predictions(m, "test")]
    dataset = find_dataset(library.dataset_path) if missing else None
    if dataset is None or not len(rows := dataset.rows("test")):
        return
    done = itertools.count(1)
    reasons: dict[str, str] = {}

    def predict(member: str) -> None:
        try:
            runner = open_member(library, member)
        except (EngineError, ModelError, MissingExtraError) as error:
            reasons[member] = str(error)
            return
        task, kind = dataset.task, kind_of(dataset.task)
        size = max(1, BLOCK // int(np.prod(task.output))) if kind.is_pixelwise else BATCH
        predicted = map(runner.infer, batches(dataset.inputs, rows, min(BATCH, size)))
        checked = (kind.read_predictions(member, part, task, LibraryError) for part in predicted)
        try:
            library.write_predictions(member, "test", checked, np.asarray(dataset.targets[rows]))
        finally:
            runner.close()
        if progress is not None:
            progress("predicting the test samples", next(done), len(missing))

    read_sound(f"the members of {library.path}", missing, predict)
    if reasons and notes is not None:
        first, why = next(iter(reasons.items()))
        more = f" and {len(reasons) - 1} more members" if len(reasons) > 1 else ""
        notes.append(f"no test scores for the ensembles with {first}{more}: {why}")


def open_member(library: Library, member: str) -> Backend:
    """Load a member on the CPU: with ONNX Runtime where it has an ONNX file, else with PyTorch.

    Raises EngineError where it has no model, and as `backends.load`.
    """
    threads, device = len(usable_cores()), Device("cpu:0", "cpu", 0)
    if is_exported(library.onnx_path(member), library.member(member)):
        return backends.load("onnx", library.onnx_path(member), library.member(member), device, threads)
    path = library.weights_path(member)
    if not path.exists():
        raise EngineError("it has neither a model to predict the test split nor predictions of it")
    return backends.load("torch", path, library.member(member), device, threads, library.trusted)
