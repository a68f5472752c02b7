"""Signatures of models: their inputs and outputs, and the documents of the Open Inference Protocol.

Pure: documents are built from a bundle, without other sources.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ripieno.data.input_tensors import IMAGES, InputTensor, input_tensors
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.tasks.uncertainty_outputs import (
    BOOLEAN_OUTPUTS,
    COVERAGE_OUTPUTS,
    OUTPUTS_BY_TARGET,
    UNCERTAINTY_OUTPUTS,
    UncertaintyOutputs,
)
from ripieno.types import Bundle, Column, Input, Task, column_places

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
"""Datatypes of the protocol by NumPy's names, for the types that a bundle's samples can have."""
TENSOR_DATATYPES = {**DATATYPES, "float64": "FP64", "str": "BYTES"}
"""The same for the types of `InputTensor`."""

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
VERSION = "1"
INPUT = IMAGES
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class ModelSignature:
    """The interface of a model for clients: `inputs` in, `outputs` out."""

    name: str
    input: Input
    task: Task
    members: tuple[str, ...]
    """members that predict, in the ensemble's order"""
    extras: tuple[str, ...] = ()
    """outputs that a request must name"""
    max_samples: int = 65536
    """maximum samples in one request"""
    thresholds: tuple[float, ...] = ()
    """see `Ensemble.thresholds`"""
    uncertainty: UncertaintyOutputs | None = field(default=None, compare=False)
    """outputs that say how sure the answers are, of which the names are in `extras`; None: of a member alone"""

    @cached_property
    def kind(self) -> TaskKind:
        """Kind of the task."""
        return kind_of(self.task)

    @cached_property
    def inputs(self) -> tuple[InputTensor, ...]:
        """Tensors of a request: `images`, or the columns of a table."""
        return input_tensors(self.input)

    @cached_property
    def places(self) -> dict[str, tuple[Column, slice]]:
        """Columns of a table by their names, each with the place of its values in a sample."""
        return {column.name: (column, place) for column, place in column_places(self.input.columns)}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs: those of the task, the default ones first, then the extras."""
        return (*dict.fromkeys((*self.default_outputs, *self.kind.outputs)), *self.extras)

    @cached_property
    def default_outputs(self) -> tuple[str, ...]:
        """Outputs of a request that names none: the predictions and their labels, or masks without probabilities."""
        return self.kind.outputs[1:] if self.kind.is_pixelwise else self.kind.outputs

    @property
    def predictions(self) -> str:
        """Name of the output with the predictions."""
        return self.kind.outputs[0]

    @property
    def ranks(self) -> bool:
        """True if the predictions of a sample can be ranked: its best classes."""
        return self.kind.activation == "softmax" and not self.kind.is_pixelwise

    @property
    def acts(self) -> bool:
        """True if the predictions of an observation become an action, the second output."""
        return self.kind.has_returns

    @property
    def datatype(self) -> str:
        """The protocol's datatype of the samples."""
        return DATATYPES[self.input.dtype]

    @property
    def elements(self) -> int:
        """Number of elements in one sample."""
        return math.prod(self.input.shape)

    @property
    def labels_per_sample(self) -> int:
        """Largest number of names in the label of a sample."""
        return 1 if self.ranks else len(self.task.names)

    def output_shape(self, output: str) -> list[int]:
        """Return the shape of an output, with -1 for the samples."""
        return self._output_shapes[output]

    @cached_property
    def _output_shapes(self) -> dict[str, list[int]]:
        members = np.zeros((1, 0, *self.task.output), np.float32)
        spread = self.kind.spread(members, members[0], np.ones(1))
        labels = [-1, *self.task.output[:-1]]  # one for each sample, or for each of its pixels
        if self.task.low:  # an action in a box has as many numbers
            labels = [-1, *self.task.output]
        return {
            **dict.fromkeys(self.kind.outputs, labels),
            self.predictions: [-1, *self.task.output],
            "spread": [-1, *spread.shape[1:]],
            "depth": [-1],
            "members": [-1, len(self.members), *self.task.output],
            **{output: [-1] for output in UNCERTAINTY_OUTPUTS},
            **{output: [-1, *self.task.output] for output in (*COVERAGE_OUTPUTS, *OUTPUTS_BY_TARGET)},
        }

    def datatype_of(self, output: str) -> str:
        """Return the datatype of an output."""
        if output in BOOLEAN_OUTPUTS:
            return "BOOL"
        if output not in self.kind.outputs[1:]:
            return "FP32"
        if self.acts:
            return "FP32" if self.task.low else "INT64"
        return "UINT8" if self.kind.is_pixelwise else "BYTES"


def signatures(bundle: Bundle, *, prefix: str = "", max_samples: int = 65536) -> list[ModelSignature]:
    """Return the signatures of the ensemble and of each of its members.

    The ensemble also has the outputs `spread` and `members`, those of `UncertaintyOutputs`, and with a cascade `depth`,
    the number of members evaluated for each sample.
    """
    members = bundle.ensemble.members
    uncertainty = UncertaintyOutputs(bundle.ensemble, bundle.task)
    extras = ("spread", "members", *uncertainty.names, *(("depth",) if bundle.cascade else ()))
    ensemble = ModelSignature(
        prefix or ENSEMBLE,
        bundle.input,
        bundle.task,
        members,
        extras,
        max_samples,
        bundle.ensemble.thresholds,
        uncertainty,
    )
    alone = dataclasses.replace(ensemble, extras=(), uncertainty=None)
    start = f"{prefix}." if prefix else ""
    return [ensemble, *(dataclasses.replace(alone, name=start + member, members=(member,)) for member in members)]


def server_metadata(version: str) -> dict[str, Any]:
    """Return the document of `GET /v2`."""
    return {"name": "ripieno", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(signature: ModelSignature) -> dict[str, Any]:
    """Return the document of `GET /v2/models/M`."""
    inputs = [
        {"name": tensor.name, "datatype": TENSOR_DATATYPES[tensor.dtype], "shape": [-1, *tensor.shape]}
        for tensor in signature.inputs
    ]
    outputs = [
        {"name": output, "datatype": signature.datatype_of(output), "shape": signature.output_shape(output)}
        for output in signature.outputs
    ]
    return {
        "name": signature.name,
        "versions": [VERSION],
        "platform": "ripieno_ensemble" if len(signature.members) > 1 else "ripieno_member",
        "inputs": inputs,
        "outputs": outputs,
    }


def model_config(signature: ModelSignature) -> dict[str, Any]:
    """Return the document of `GET /v2/models/M/config`: the part of Triton's configuration that its clients read.

    Its parameters are the kind of the task, the names of its outputs and, as JSON, thresholds of labels and the levels
    of coverage.
    """
    inputs = [
        {"name": tensor.name, "data_type": _config_type(TENSOR_DATATYPES[tensor.dtype]), "dims": list(tensor.shape)}
        for tensor in signature.inputs
    ]
    outputs = [
        {
            "name": output,
            "data_type": _config_type(signature.datatype_of(output)),
            "dims": signature.output_shape(output)[1:] or [1],  # without the batch axis, a scalar is [1]
        }
        for output in signature.outputs
    ]
    parameters = {"task": signature.task.kind, "names": json.dumps(signature.task.names)}
    if signature.thresholds:
        parameters["thresholds"] = json.dumps(signature.thresholds)
    if signature.uncertainty and signature.uncertainty.levels:
        parameters["coverage"] = json.dumps(signature.uncertainty.levels)
    return {
        "name": signature.name,
        "platform": model_metadata(signature)["platform"],
        "backend": "ripieno",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": signature.max_samples,
        "input": inputs,
        "output": outputs,
        "dynamic_batching": {},
        "instance_group": [],
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
    }


def _config_type(datatype: str) -> str:
    """Return a datatype as Triton's configuration names it."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def repository_index(models: Mapping[str, bool]) -> list[dict[str, str]]:
    """Return the document of `POST /v2/repository/index`; `models` maps each name to its readiness."""
    return [
        {"name": name, "version": VERSION, "state": "READY" if ready else "UNAVAILABLE", "reason": ""}
        for name, ready in models.items()
    ]
