"""Signatures of models: their inputs and outputs, and the documents of the Open Inference Protocol.

Pure: documents are built from a bundle, without other sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ripieno.types import Bundle, Input

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
"""Datatypes of the protocol by NumPy's names, for the types that a bundle's samples can have."""

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
VERSION = "1"
INPUT = "images"
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class ModelSignature:
    """The interface of a model for clients: `images` in, `outputs` out."""

    name: str
    input: Input
    classes: tuple[str, ...]
    members: tuple[str, ...]
    """members that predict, in the ensemble's order"""
    outputs: tuple[str, ...] = ("probabilities", "label")
    max_samples: int = 65536
    """maximum samples in one request"""

    @property
    def datatype(self) -> str:
        """The protocol's datatype of the samples."""
        return DATATYPES[self.input.dtype]

    @property
    def elements(self) -> int:
        """Number of elements in one sample."""
        return math.prod(self.input.shape)

    def output_shape(self, output: str) -> list[int]:
        """Return the shape of an output, with -1 for the samples."""
        return {
            "probabilities": [-1, len(self.classes)],
            "label": [-1],
            "spread": [-1],
            "depth": [-1],
            "members": [-1, len(self.members), len(self.classes)],
        }[output]


def signatures(bundle: Bundle, *, prefix: str = "", max_samples: int = 65536) -> list[ModelSignature]:
    """Return the signatures of the ensemble and of each of its members.

    The ensemble also has the outputs `spread` and `members`, and with a cascade `depth`, the number of members
    evaluated for each sample.
    """
    members = bundle.ensemble.members
    outputs = ("probabilities", "label", "spread", "members", *(("depth",) if bundle.cascade else ()))
    ensemble = ModelSignature(prefix or ENSEMBLE, bundle.input, bundle.classes, members, outputs, max_samples)
    start = f"{prefix}." if prefix else ""
    alone = [ModelSignature(start + m, bundle.input, bundle.classes, (m,), max_samples=max_samples) for m in members]
    return [ensemble, *alone]


def datatype_of(output: str) -> str:
    """Return the datatype of an output."""
    return "BYTES" if output == "label" else "FP32"


def server_metadata(version: str) -> dict[str, Any]:
    """Return the document of `GET /v2`."""
    return {"name": "ripieno", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(signature: ModelSignature) -> dict[str, Any]:
    """Return the document of `GET /v2/models/M`."""
    images = {"name": INPUT, "datatype": signature.datatype, "shape": [-1, *signature.input.shape]}
    outputs = [
        {"name": output, "datatype": datatype_of(output), "shape": signature.output_shape(output)}
        for output in signature.outputs
    ]
    return {
        "name": signature.name,
        "versions": [VERSION],
        "platform": "ripieno_ensemble" if len(signature.members) > 1 else "ripieno_member",
        "inputs": [images],
        "outputs": outputs,
    }


def model_config(signature: ModelSignature) -> dict[str, Any]:
    """Return the document of `GET /v2/models/M/config`: the part of Triton's configuration that its clients read."""
    images = {"name": INPUT, "data_type": f"TYPE_{signature.datatype}", "dims": list(signature.input.shape)}
    outputs = [
        {
            "name": output,
            # Triton writes the protocol's BYTES as TYPE_STRING here; without the batch axis, a scalar is [1]
            "data_type": "TYPE_STRING" if output == "label" else "TYPE_FP32",
            "dims": signature.output_shape(output)[1:] or [1],
        }
        for output in signature.outputs
    ]
    return {
        "name": signature.name,
        "platform": model_metadata(signature)["platform"],
        "backend": "ripieno",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": signature.max_samples,
        "input": [images],
        "output": outputs,
        "dynamic_batching": {},
        "instance_group": [],
        "parameters": {},
    }


def repository_index(models: Mapping[str, bool]) -> list[dict[str, str]]:
    """Return the document of `POST /v2/repository/index`; `models` maps each name to its readiness."""
    return [
        {"name": name, "version": VERSION, "state": "READY" if ready else "UNAVAILABLE", "reason": ""}
        for name, ready in models.items()
    ]
