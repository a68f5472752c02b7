"""Encoding and decoding of the Open Inference Protocol v2 as gRPC messages. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_values import ColumnValues
from ripieno.server import oip_decode
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.oip_columns import TEXT, decode_text, read_columns, takes_columns, values_from_bytes
from ripieno.server.oip_decode import InferenceRequest, Output, Parameter, RequestHeader
from ripieno.server.oip_encode import output_tensor, response_parameters, tensor_header, tensor_to_bytes
from ripieno.server.proto import message
from ripieno.server.signature import INPUT, VERSION, ModelSignature, model_config

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

InferRequest = message("ModelInferRequest")
InferResponse = message("ModelInferResponse")

CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
"""Field of the values of each datatype, in a message without raw contents."""
FIELDS = 256
"""Maximum number of fields in a message: one input, some outputs and parameters; without the columns of a table."""
RAW = 7
"""Number of the field `raw_input_contents`; its content does not grow when it is parsed."""
PIECE = 1 << 15
"""Numbers of a field that are converted to an array at once."""
RAW_OUTPUT = bytes([6 << 3 | 2])
"""Tag of the field `raw_output_contents`: its number, and its length-delimited wire type."""
FIXED = {1: 8, 5: 4}
"""Bytes of protobuf's fixed-width wire types."""


def parse_message(raw: bytes, kind: Any, most: int, columns: int = 0) -> tuple[Any, list[memoryview]]:
    """Parse `raw` as a message of `kind` without its raw contents, and return these as views of `raw`.

    `columns` is the largest number of columns of a model: each has an input and raw contents.

    Raises HttpError: 400 when it is invalid or has too many fields; 413 when more than `most` of its bytes are not
    raw tensors.
    """
    try:
        head, contents = _split(raw, most, FIELDS + 2 * columns)
        return kind.FromString(head), contents
    except HttpError:
        raise
    except Exception:  # protobuf's DecodeError (its module depends on the implementation), or an error of `_split`
        raise bad_request(f"The message is not a valid {kind.DESCRIPTOR.name}.") from None


def _split(raw: bytes, most: int, most_fields: int) -> tuple[bytes, list[memoryview]]:
    """Split a message into its other fields and its raw contents.

    The outermost fields are checked before parsing, because parsing expands a message: an input of two bytes becomes an
    object, a number of one byte takes up to eight. Raises HttpError as `parse_message`; IndexError or ValueError when
    the bytes are not a message.
    """
    view, head, contents = memoryview(raw), [], []
    at = fields = others = 0
    while at < len(raw):
        fields, begin = fields + 1, at
        if fields > most_fields:
            raise bad_request(
                f"The message has more than {most_fields} fields. Send the model's inputs and the requested outputs."
            )
        tag, at = _number(raw, at)
        if tag & 7 == 0:
            _, at = _number(raw, at)
        elif tag & 7 == 2:
            size, at = _number(raw, at)
            at += size
        elif tag & 7 in FIXED:
            at += FIXED[tag & 7]
        else:
            raise ValueError("unknown wire type")
        if tag >> 3 != RAW or tag & 7 != 2:
            others += at - begin
            head.append(view[begin:at])
        else:
            contents.append(view[at - size : at])
    if at > len(raw):
        raise ValueError("the last field is truncated")
    if others > most:
        raise HttpError(
            413, f"The message has {others} bytes outside raw_input_contents (limit {most}). Send raw_input_contents."
        )
    return b"".join(head), contents


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """Read the varint of protobuf's wire format at `at`; return it with its end."""
    value = 0
    for index in range(10):  # the maximum length of a varint
        byte = raw[at + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise ValueError("a varint has no end")


def read_request(received: Any, raw: Sequence[memoryview | bytes], signature: ModelSignature) -> InferenceRequest:
    """Convert a `ModelInferRequest` and its raw contents to a request.

    Raises HttpError (400) for a request that does not match `signature`.
    """
    if takes_columns(received.inputs, signature):
        images: NDArray[np.generic] = read_columns(received.inputs, _column_values(received.inputs, raw), signature)
    else:
        images = _images(received, raw, signature)
    header = RequestHeader(
        [],
        received.id,
        [Output(output.name, received={**parameters(output.parameters)}) for output in received.outputs],
        received={**parameters(received.parameters)},
    )
    return oip_decode.complete_request(images, header, signature)


def _column_values(inputs: Sequence[Any], raw: Sequence[memoryview | bytes]) -> Callable[[int], ColumnValues]:
    """Return a function that reads the values of a column by its position."""
    if raw and len(raw) != len(inputs):
        raise bad_request(
            f"The message has {len(raw)} raw contents for {len(inputs)} inputs. Send one for each, or none."
        )

    def values_of(number: int) -> ColumnValues:
        tensor = inputs[number]
        if raw:
            return values_from_bytes(raw[number], tensor.datatype, tensor.shape[0], tensor.name)
        values = list(getattr(tensor.contents, CONTENTS[tensor.datatype]))
        return [decode_text(value, tensor.name) for value in values] if tensor.datatype == TEXT else values

    return values_of


def _images(received: Any, raw: Sequence[memoryview | bytes], signature: ModelSignature) -> NDArray[np.generic]:
    tensor = oip_decode.only_input(received.inputs, signature)
    shape = list(tensor.shape)
    if len(raw) > 1:
        raise bad_request(f"The message has {len(raw)} raw contents for one input. Send one.")
    return (
        oip_decode.from_bytes(raw[0], shape, tensor.datatype, signature) if raw else _contents(tensor, shape, signature)
    )


def _contents(tensor: Any, shape: list[int], signature: ModelSignature) -> NDArray[np.generic]:
    numbers = getattr(tensor.contents, CONTENTS[tensor.datatype])
    declared = int(np.prod(shape, dtype=np.int64))
    if len(numbers) != declared:
        raise bad_request(f"{INPUT!r} has {len(numbers)} numbers, its shape requires {declared}")
    # in pieces, because converting a whole field at once would block the event loop
    pieces = [np.array(numbers[at : at + PIECE]) for at in range(0, declared, PIECE)]
    return oip_decode.to_model_dtype(np.concatenate(pieces), shape, tensor.datatype, signature)


def parameters(messages: Mapping[str, Any]) -> dict[str, Parameter]:
    """Convert a message's parameters to plain values, without the empty ones."""
    named = ((key, value, value.WhichOneof("parameter_choice")) for key, value in messages.items())
    return {key: getattr(value, kind) for key, value, kind in named if kind}


def write_response(request: InferenceRequest, answer: Answer, signature: ModelSignature) -> bytes:
    """Write a `ModelInferResponse`; raw contents are appended to the serialized message, not copied into it."""
    contents: list[bytes] = []
    response = InferResponse(model_name=signature.name, model_version=VERSION, id=request.id)
    for name, value in response_parameters(request, answer, signature).items():
        kind = "bool" if isinstance(value, bool) else "double" if isinstance(value, float) else "string"
        setattr(response.parameters[name], f"{kind}_param", value)
    for output in request.outputs:
        tensor = output_tensor(output, answer, signature, request.coverage)
        response.outputs.add(**tensor_header(output, tensor))
        raw = tensor_to_bytes(tensor)
        contents += [RAW_OUTPUT, _varint(len(raw)), raw]
    return b"".join([response.SerializeToString(), *contents])


def _varint(value: int) -> bytes:
    """Encode a number in protobuf's wire format."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def config(signature: ModelSignature) -> Any:
    """Return a `ModelConfigResponse`."""
    document = model_config(signature)
    fields = ("name", "platform", "backend", "max_batch_size", "input", "output")
    return message("ModelConfigResponse")(config={key: document[key] for key in fields})
