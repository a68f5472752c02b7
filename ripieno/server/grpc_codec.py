"""The Open Inference Protocol v2 as gRPC messages: requests inwards, answers and documents outwards. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.server import codec
from ripieno.server.codec import Frame, Output, Parameter, Request, Tensor
from ripieno.server.proto import message
from ripieno.server.refusal import bad
from ripieno.server.reply import flags, output_tensor, tensor_to_bytes
from ripieno.server.signature import INPUT, VERSION, Signature, datatype_of, model_config, model_metadata

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer

InferResponse = message("ModelInferResponse")
MetadataResponse = message("ModelMetadataResponse")
ConfigResponse = message("ModelConfigResponse")
StatisticsResponse = message("ModelStatisticsResponse")
IndexResponse = message("RepositoryIndexResponse")

CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}
"""Where a message that brings no raw bytes keeps the numbers of each datatype."""


def read_request(asked: Any, signature: Signature) -> Request:
    """A request from a `ModelInferRequest`. Raises RefusedError (400) for what `signature` cannot answer."""
    if len(asked.inputs) != 1 or asked.inputs[0].name != INPUT:
        names = ", ".join(repr(t.name[:40]) for t in asked.inputs[:4]) or "none"
        raise bad(f"inputs are {names}, must be the one input {INPUT!r}")
    tensor, raw = asked.inputs[0], asked.raw_input_contents
    shape = list(tensor.shape[:16])
    codec.check_shape(shape, tensor.datatype, signature)
    if "shared_memory_region" in tensor.parameters:
        raise bad("shared memory regions are not offered: send the tensor's data in the request")
    if len(raw) > 1:
        raise bad(f"{len(raw)} raw contents come with one input")
    images = codec.from_bytes(raw[0], shape, tensor.datatype, signature) if raw else _contents(tensor, shape, signature)
    frame = Frame(
        [Tensor(tensor.name, shape, tensor.datatype)],
        asked.id,
        parameters(asked.parameters),
        [Output(output.name, parameters(output.parameters)) for output in asked.outputs[:100]],
    )
    wanted = codec.wanted(frame, signature)
    return Request(images, wanted, asked.id, codec.timeout_of(frame.parameters), frame.parameters)


def _contents(tensor: Any, shape: list[int], signature: Signature) -> NDArray[np.generic]:
    numbers = getattr(tensor.contents, CONTENTS[tensor.datatype])
    declared = int(np.prod(shape, dtype=np.int64))
    if len(numbers) != declared:
        raise bad(f"{INPUT!r} holds {len(numbers)} numbers, its shape declares {declared}")
    return codec.finish(np.array(numbers), shape, tensor.datatype, signature)


def parameters(said: Mapping[str, Any]) -> dict[str, Parameter]:
    """A message's parameters as plain values; empty ones are left out."""
    named = ((key, value, value.WhichOneof("parameter_choice")) for key, value in said.items())
    return {key: getattr(value, kind) for key, value, kind in named if kind}


def write_response(request: Request, answer: Answer, signature: Signature) -> Any:
    """A `ModelInferResponse` with raw contents."""
    response = InferResponse(model_name=signature.name, model_version=VERSION, id=request.id)
    for name, value in flags(answer).items():
        kind = "bool" if isinstance(value, bool) else "double" if isinstance(value, float) else "string"
        setattr(response.parameters[name], f"{kind}_param", value)
    samples = len(answer.probabilities)
    for wanted in request.outputs:
        tensor = output_tensor(wanted, answer, signature)
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [samples]
        datatype = "BYTES" if wanted.top else datatype_of(wanted.name)
        response.outputs.add(name=wanted.name, datatype=datatype, shape=[samples, wanted.top] if wanted.top else shape)
        response.raw_output_contents.append(tensor_to_bytes(tensor))
    return response


def metadata(signature: Signature) -> Any:
    """A `ModelMetadataResponse`."""
    return MetadataResponse(**model_metadata(signature))


def config(signature: Signature) -> Any:
    """A `ModelConfigResponse`."""
    document = model_config(signature)
    kept = ("name", "platform", "backend", "max_batch_size", "input", "output")
    return ConfigResponse(config={key: document[key] for key in kept})


def statistics(documents: list[dict[str, Any]]) -> Any:
    """A `ModelStatisticsResponse`."""
    return StatisticsResponse(model_stats=[{k: v for k, v in d.items() if k != "batch_stats"} for d in documents])
