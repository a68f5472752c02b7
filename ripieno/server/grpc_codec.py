"""The Open Inference Protocol v2 as gRPC messages: requests inwards, answers and documents outwards. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.server import oip_decode
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.oip_decode import InferenceRequest, Output, Parameter, RequestHeader, Tensor
from ripieno.server.oip_encode import output_tensor, response_parameters, tensor_to_bytes
from ripieno.server.proto import message
from ripieno.server.signature import INPUT, VERSION, ModelSignature, datatype_of, model_config, model_metadata

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

InferRequest = message("ModelInferRequest")
InferResponse = message("ModelInferResponse")
MetadataResponse = message("ModelMetadataResponse")
ConfigResponse = message("ModelConfigResponse")
StatisticsResponse = message("ModelStatisticsResponse")
IndexResponse = message("RepositoryIndexResponse")

CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents"}
"""Where a message that brings no raw bytes keeps the numbers of each datatype."""
FIELDS = 256
"""Most fields of a message: one input, some outputs and parameters."""
RAW = 7
"""Number of the field `raw_input_contents`: what is in it does not grow when it is parsed."""
PIECE = 1 << 15
"""Numbers of a field that are made an array at once."""
RAW_OUTPUT = bytes([6 << 3 | 2])
"""Tag of the field `raw_output_contents`: its number, and that it has a length."""
FIXED = {1: 8, 5: 4}
"""Bytes of protobuf's types of fixed width."""


def parse_message(raw: bytes, kind: Any, most: int) -> Any:
    """The message of `kind` that `raw` holds.

    Raises RefusedError: 400 when it holds none, or one of too many fields; 413 when more than `most` of its bytes are
    no raw tensors.
    """
    try:
        _split(raw, most)
        return kind.FromString(raw)
    except HttpError:
        raise
    except Exception:  # protobuf's DecodeError, whose module differs between its implementations; or ours below
        raise bad_request(f"the bytes are no {kind.DESCRIPTOR.name}") from None


def parse_inference(raw: bytes, most: int) -> tuple[Any, list[memoryview]]:
    """The `ModelInferRequest` that `raw` holds, without its raw contents, and these as views of `raw`.

    Raises RefusedError as `parsed`.
    """
    try:
        head, contents = _split(raw, most)
        return InferRequest.FromString(head), contents
    except HttpError:
        raise
    except Exception:  # as in `parsed`
        raise bad_request("the bytes are no ModelInferRequest") from None


def _split(raw: bytes, most: int) -> tuple[bytes, list[memoryview]]:
    """The fields of a message but for its raw contents, and these.

    It is judged by its outermost fields before it is parsed and grows: an input of two bytes becomes an object, a
    number of one byte takes up to eight. Raises RefusedError as `parsed`; IndexError or ValueError where the bytes are
    no message.
    """
    view, head, contents = memoryview(raw), [], []
    at = fields = others = 0
    while at < len(raw):
        fields, begin = fields + 1, at
        if fields > FIELDS:
            raise bad_request(f"the message has more than {FIELDS} fields: send one input, and what is asked about it")
        tag, at = _number(raw, at)
        if tag & 7 == 0:
            _, at = _number(raw, at)
        elif tag & 7 == 2:
            size, at = _number(raw, at)
            at += size
        elif tag & 7 in FIXED:
            at += FIXED[tag & 7]
        else:
            raise ValueError("no type of a field that the protocol has")
        if tag >> 3 != RAW or tag & 7 != 2:
            others += at - begin
            head.append(view[begin:at])
        else:
            contents.append(view[at - size : at])
    if at > len(raw):
        raise ValueError("the last field is cut off")
    if others > most:
        raise HttpError(
            413, f"{others} bytes of the message are no raw contents, at most {most} are read: send raw_input_contents"
        )
    return b"".join(head), contents


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A number of protobuf's wire format that begins at `at`, and where it ends."""
    value = 0
    for index in range(10):  # the longest there is
        byte = raw[at + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise ValueError("a number does not end")


def read_request(asked: Any, raw: Sequence[memoryview | bytes], signature: ModelSignature) -> InferenceRequest:
    """A request from a `ModelInferRequest` and its raw contents.

    Raises RefusedError (400) for what `signature` cannot answer.
    """
    if len(asked.inputs) != 1 or asked.inputs[0].name != INPUT:
        names = ", ".join(repr(t.name[:40]) for t in asked.inputs[:4]) or "none"
        raise bad_request(f"inputs are {names}, must be the one input {INPUT!r}")
    tensor = asked.inputs[0]
    shape = list(tensor.shape[:16])
    oip_decode.check_shape(shape, tensor.datatype, signature)
    if "shared_memory_region" in tensor.parameters:
        raise bad_request("shared memory regions are not offered: send the tensor's data in the request")
    if len(raw) > 1:
        raise bad_request(f"{len(raw)} raw contents come with one input")
    images = (
        oip_decode.from_bytes(raw[0], shape, tensor.datatype, signature) if raw else _contents(tensor, shape, signature)
    )
    frame = RequestHeader(
        [Tensor(tensor.name, shape, tensor.datatype)],
        asked.id,
        {**parameters(asked.parameters)},
        [Output(output.name, {**parameters(output.parameters)}) for output in asked.outputs],
    )
    wanted = oip_decode.requested_outputs(frame, signature)
    return InferenceRequest(images, wanted, asked.id, oip_decode.timeout_of(frame.parameters), frame.parameters)


def _contents(tensor: Any, shape: list[int], signature: ModelSignature) -> NDArray[np.generic]:
    numbers = getattr(tensor.contents, CONTENTS[tensor.datatype])
    declared = int(np.prod(shape, dtype=np.int64))
    if len(numbers) != declared:
        raise bad_request(f"{INPUT!r} holds {len(numbers)} numbers, its shape declares {declared}")
    # by pieces: an array of a whole field is made without giving way to the event loop
    pieces = [np.array(numbers[at : at + PIECE]) for at in range(0, declared, PIECE)]
    return oip_decode.to_model_dtype(np.concatenate(pieces), shape, tensor.datatype, signature)


def parameters(said: Mapping[str, Any]) -> dict[str, Parameter]:
    """A message's parameters as plain values; empty ones are left out."""
    named = ((key, value, value.WhichOneof("parameter_choice")) for key, value in said.items())
    return {key: getattr(value, kind) for key, value, kind in named if kind}


def write_response(request: InferenceRequest, answer: Answer, signature: ModelSignature) -> bytes:
    """A `ModelInferResponse` as bytes: raw contents are joined behind the message and never copied into it."""
    contents: list[bytes] = []
    response = InferResponse(model_name=signature.name, model_version=VERSION, id=request.id)
    for name, value in response_parameters(answer).items():
        kind = "bool" if isinstance(value, bool) else "double" if isinstance(value, float) else "string"
        setattr(response.parameters[name], f"{kind}_param", value)
    samples = len(answer.probabilities)
    for wanted in request.outputs:
        tensor = output_tensor(wanted, answer, signature)
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [samples]
        datatype = "BYTES" if wanted.top else datatype_of(wanted.name)
        response.outputs.add(name=wanted.name, datatype=datatype, shape=[samples, wanted.top] if wanted.top else shape)
        raw = tensor_to_bytes(tensor)
        contents += [RAW_OUTPUT, _varint(len(raw)), raw]
    return b"".join([response.SerializeToString(), *contents])


def _varint(value: int) -> bytes:
    """A number in protobuf's wire format."""
    said = bytearray()
    while value > 127:
        said.append(value & 127 | 128)
        value >>= 7
    return bytes([*said, value])


def metadata(signature: ModelSignature) -> Any:
    """A `ModelMetadataResponse`."""
    return MetadataResponse(**model_metadata(signature))


def config(signature: ModelSignature) -> Any:
    """A `ModelConfigResponse`."""
    document = model_config(signature)
    kept = ("name", "platform", "backend", "max_batch_size", "input", "output")
    return ConfigResponse(config={key: document[key] for key in kept})


def statistics(documents: list[dict[str, Any]]) -> Any:
    """A `ModelStatisticsResponse`."""
    return StatisticsResponse(model_stats=[{k: v for k, v in d.items() if k != "batch_stats"} for d in documents])
