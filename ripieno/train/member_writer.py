"""Members from trainers: the model that is kept of each, and its predictions."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.backends.onnx import open_file
from ripieno.data.dataset import spread_rows
from ripieno.errors import LibraryError, ModelError, RipienoError, error_summary, require
from ripieno.library import Library
from ripieno.tasks.registry import kind_of
from ripieno.train.evaluate import block_length, losses_of, predict_rows
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.trainer import Trainer
from ripieno.types import COST_SAMPLES, Dataset, Member

COMPARED = 64
"""Samples by which an exported model is compared with its trainer."""
TIMED = 256
"""Samples by which the seconds of a member without a model are measured."""
TOLERANCE = 1e-4
"""Largest difference of a prediction of an exported model; of values, relative to the largest."""


def add_member(
    library: Library, trainer: Trainer, member: Member, dataset: Dataset, predictions: NDArray[Any]
) -> Member:
    """Add `member` to the library with its losses and the trainer's model; `predictions` are of the validation split.

    A trainer of networks gives the weights, one with `export` an ONNX file. The model of another trainer cannot be
    kept: its predictions of the test split are, and the seconds that it takes to predict. With folds, `predictions` are
    of other models than the trainer's. Raises ModelError when an exported model does not predict as its trainer does.
    """
    rows = dataset.rows("valid")
    targets = np.asarray(dataset.targets[rows])
    member = dataclasses.replace(
        member, losses=losses_of(predictions, dataset, rows), parameters=int(getattr(trainer, "parameters", 0))
    )
    if isinstance(trainer, NetworkTrainer):
        member = dataclasses.replace(member, backbone=trainer.backbone)
        library.add(member, predictions, targets, trainer.weights())
    elif hasattr(trainer, "export"):
        chosen = spread_rows(np.arange(len(rows)), COMPARED)
        if dataset.environment:  # the predictions are returns
            own = trainer.predict(np.asarray(dataset.inputs[rows[chosen]]))
        else:
            own = predictions[chosen] if dataset.folds is None else predict_rows(trainer, dataset, rows[chosen])
        content = export_model(trainer, dataset, rows[chosen], own)
        member = dataclasses.replace(member, format="onnx", parameters=member.parameters or _count_numbers(content))
        library.add(member, predictions, targets, content)
    else:
        member = dataclasses.replace(
            member, format="predictions", costs={**member.costs, "seconds": _seconds(trainer, dataset)}
        )
        library.add(member, predictions, targets)
        if len(test := dataset.rows("test")):
            answers = predict_rows(trainer, dataset, test)
            library.write_predictions(member.id, "test", answers, np.asarray(dataset.targets[test]))
    return member


def export_model(trainer: Trainer, dataset: Dataset, rows: NDArray[np.int64], predictions: NDArray[Any]) -> bytes:
    """Return the ONNX file of a trainer's model, compared with its `predictions` of the samples at `rows`.

    Raises ModelError, in one line, when there is no such file, when it does not take the inputs of the data set, or
    when its predictions differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            trainer.export(path)  # type: ignore[attr-defined]
        except RipienoError:
            raise
        except Exception as error:  # a user's trainer may raise anything
            raise ModelError(f"export() of the trainer failed ({error_summary(error, named=True)})") from error
        if not path.is_file():
            raise ModelError("export(path) of the trainer wrote no file; expected an ONNX file at path")
        content = path.read_bytes()
    if kind_of(dataset.task).is_pixelwise:  # a few, in full precision: see `predict_rows`
        rows = spread_rows(rows, block_length(dataset))
        predictions = trainer.predict(np.asarray(dataset.inputs[rows]))
    inputs = np.asarray(dataset.inputs[rows])
    try:
        found = open_file(content)(inputs)[0]
    except LibraryError as error:
        raise ModelError(f"the model exported by the trainer {error}") from error
    except Exception as error:  # a foreign graph may cause any exception
        form = f"{inputs.dtype} of shape (batch, {', '.join(map(str, inputs.shape[1:]))})"
        raise ModelError(f"the exported model cannot predict {form}: {error_summary(error)[:200]}") from error
    if not isinstance(found, np.ndarray) or found.shape != predictions.shape:
        shape = found.shape if isinstance(found, np.ndarray) else type(found).__name__
        raise ModelError(f"the exported model returned {shape} for {len(inputs)} samples; expected {predictions.shape}")
    worst = float(np.abs(found - predictions).max(initial=0))
    if not worst <= TOLERANCE * max(1.0, float(np.abs(predictions).max(initial=0))):
        raise ModelError(f"predictions of the exported model differ from the trainer's by {worst:.2g}")
    return content


def _count_numbers(content: bytes) -> int:
    """Count the numbers that were trained in an ONNX file: its weights, or thresholds and values of its trees.

    Of trees, each split has a threshold, and each leaf a value for each class or target. Integers are shapes and
    indices, and single numbers constants of the graph.
    """
    onnx = require("onnx")
    graph = onnx.load_from_string(content).graph
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]
    whole = {onnx.TensorProto.INT64, onnx.TensorProto.INT32}
    count = sum(math.prod(tensor.dims) for tensor in tensors if tensor.dims and tensor.data_type not in whole)
    for node in graph.node:
        attributes = {a.name: a for a in node.attribute}
        if "nodes_values" in attributes:  # leaves have thresholds without a meaning
            count += sum(mode != b"LEAF" for mode in attributes["nodes_modes"].strings)
        count += sum(len(a.floats) for name, a in attributes.items() if not name.startswith("nodes_"))
    return int(count)


def _seconds(trainer: Trainer, dataset: Dataset) -> float:
    """Measure the seconds to predict `COST_SAMPLES` samples."""
    timed = min(TIMED, block_length(dataset)) if kind_of(dataset.task).is_pixelwise else TIMED
    rows = np.resize(dataset.rows("valid"), timed)
    started = time.perf_counter()
    predict_rows(trainer, dataset, rows)
    return (time.perf_counter() - started) / timed * COST_SAMPLES
