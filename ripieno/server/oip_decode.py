"""The Open Inference Protocol v2, inwards: the bytes of a request become an array.

Pure: no sockets, no clocks. Every function returns, or raises `RefusedError` with a 4xx and one line, whatever the
bytes.

Theory of operation. A body is JSON, or JSON followed by raw tensors (the binary tensor data extension; the header
`Inference-Header-Content-Length` says where the JSON ends). The JSON's frame is decoded into typed structures in which
nothing can nest, so it cannot be made to grow in memory; a tensor's `data` stays an undecoded piece of text until its
declared shape has been judged against the model's input and its commas counted against the shape: only then are numbers
made of it. Binary tensors become views of the body, never copies.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno.data.pixels import fit_array
from ripieno.durations import check_duration
from ripieno.errors import DataError, RipienoError
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.signature import INPUT, ModelSignature

Parameter: TypeAlias = bool | int | float | str
Whole = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
"""Whole numbers as JSON's readers agree on; longer ones can be neither computed with nor quoted."""
Buffer: TypeAlias = bytes | bytearray | memoryview

LONG = 1 << 17
"""Bytes of JSON numbers that are parsed at once."""
_NUMERIC = b"0123456789+-.eE \t\r\n"

_ELSEWHERE = b"[%d]" % secrets.randbits(64)
"""What stands in a frame for numbers that were taken out of it; no client can send it by chance or design."""
_DATA = re.compile(rb'"data"\s*:\s*\[')
_LIST = re.compile(rb"[][0-9+\-.eE \t\r\n,]*")

WIDTHS = {"UINT8": 1, "FP32": 4}
"""Bytes of a number of each datatype a request's images may have."""


Nullable: TypeAlias = dict[str, bool | Whole | float | str | None] | None
"""Parameters as they come: many clients write null for what they leave out."""


class Tensor(msgspec.Struct):
    """An input as a request declares it."""

    name: str
    shape: list[Whole]
    datatype: str
    said: Nullable = msgspec.field(default=None, name="parameters")
    raw: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="data")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The tensor's parameters."""
        return _given(self.said)

    @property
    def data(self) -> bytes:
        """The text of the tensor's numbers; empty without them."""
        text = bytes(self.raw)
        return b"" if text == b"null" else text


class Output(msgspec.Struct):
    """An output as a request asks for it."""

    name: str
    said: Nullable = msgspec.field(default=None, name="parameters")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The output's parameters."""
        return _given(self.said)


class RequestHeader(msgspec.Struct):
    """A request without its numbers."""

    inputs: list[Tensor]
    id: str | None = None
    said: Nullable = msgspec.field(default=None, name="parameters")
    outputs: list[Output] | None = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The request's parameters."""
        return _given(self.said)


def _given(said: Nullable) -> dict[str, Parameter]:
    return {name: value for name, value in said.items() if value is not None} if said else {}


_decode_frame = msgspec.json.Decoder(RequestHeader).decode


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output asked for: in raw bytes or JSON; `top` > 0 asks for that many classes as "value:index:name"."""

    name: str
    binary: bool = False
    top: int = 0


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request that can be answered."""

    images: NDArray[np.generic]
    """(samples, *input.shape), of the model's dtype; often a read-only view of the body"""
    outputs: tuple[RequestedOutput, ...]
    id: str = ""
    timeout: float | None = None
    """seconds the client will wait"""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def read_request(body: Buffer, header_length: int | None, signature: ModelSignature) -> InferenceRequest:
    """A request from its body; `header_length` is the value of `Inference-Header-Content-Length`, None without it.

    Raises RefusedError (400) for whatever is not a request that `signature` can answer.
    """
    if header_length is None:
        frame, rest = body, memoryview(b"")
    elif header_length == 0:
        return InferenceRequest(
            _raw_images(body, signature), tuple(RequestedOutput(o, binary=True) for o in signature.outputs[:2])
        )
    elif 0 < header_length <= len(body):
        view = memoryview(body)
        frame, rest = view[:header_length], view[header_length:]
    else:
        raise bad_request(
            f"Inference-Header-Content-Length is {header_length}, must be within the body's {len(body)} bytes"
        )
    frame, numbers = _without_numbers(frame)
    try:
        asked = _decode_frame(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request's JSON cannot be read: {error}") from None
    images = _images(asked.inputs, numbers, rest, signature)
    parameters = asked.parameters
    return InferenceRequest(
        images, requested_outputs(asked, signature), asked.id or "", timeout_of(parameters), parameters
    )


def _without_numbers(frame: Buffer) -> tuple[Buffer, memoryview]:
    """A long frame with a mark in the place of its numbers, and a view of these; a short one as it is.

    The decoder holds the interpreter's lock until it has read all it was given, so it is given little. Raises
    RefusedError for a frame that is long without its numbers, too.
    """
    text = memoryview(frame)
    if len(text) <= LONG:
        return frame, text[:0]
    begins = _DATA.search(text, 0, LONG)
    start = end = len(text) if begins is None else begins.end() - 1
    while end < len(text):
        stop = min(end + LONG, len(text))
        end = _LIST.match(text, end, stop).end()  # type: ignore[union-attr]  # it matches nothing, too
        if end < stop:
            break
    while end > start:
        piece = bytes(text[max(start, end - LONG) : end])
        kept = len(piece.rstrip(b", \t\r\n"))
        end -= len(piece) - kept
        if kept:
            break
    beside = len(text) - (end - start) + len(_ELSEWHERE)
    if beside > LONG:
        raise bad_request(f"the JSON has {beside} bytes beside its numbers, at most {LONG} are read")
    return b"".join((text[:start], _ELSEWHERE, text[end:])), text[start:end]


def _images(
    inputs: Sequence[Tensor], numbers: memoryview, rest: memoryview, signature: ModelSignature
) -> NDArray[np.generic]:
    """The one input, from JSON or from the bytes after it; `numbers` are those that were taken out of the JSON."""
    if len(inputs) != 1 or inputs[0].name != INPUT:
        names = ", ".join(repr(t.name[:40]) for t in inputs[:4]) or "none"
        raise bad_request(f"inputs are {names}, must be the one input {INPUT!r}")
    tensor = inputs[0]
    check_shape(tensor.shape, tensor.datatype, signature)
    parameters = tensor.parameters
    size = parameters.get("binary_data_size")
    data = numbers if tensor.data == _ELSEWHERE else tensor.data
    if "shared_memory_region" in parameters:
        raise bad_request("shared memory regions are not offered: send the tensor's data in the request")
    if size is None:
        if len(rest):
            raise bad_request(f"{len(rest)} bytes follow the JSON but {INPUT!r} has no binary_data_size")
        return to_model_dtype(_numbers(data, tensor.shape), tensor.shape, tensor.datatype, signature)
    if isinstance(size, bool) or not isinstance(size, int):
        raise bad_request(f"binary_data_size is {size!r}, must be a whole number of bytes")
    if data:
        raise bad_request(f"{INPUT!r} has both data and binary_data_size: send one of them")
    if size != len(rest):
        raise bad_request(f"binary_data_size is {size} but {len(rest)} bytes follow the JSON")
    return from_bytes(rest, tensor.shape, tensor.datatype, signature)


def check_shape(shape: Sequence[int], datatype: str, signature: ModelSignature) -> None:
    """Refuse a declared shape or datatype that `signature` cannot answer, before anything is made of it."""
    if datatype != signature.datatype and not (datatype == "FP32" and signature.datatype == "UINT8"):
        also = " (or FP32 of whole numbers 0 to 255)" if signature.datatype == "UINT8" else ""
        raise bad_request(f"{INPUT!r} has datatype {datatype[:20]!r}, must be {signature.datatype}{also}")
    sample = signature.input.shape
    if len(shape) != len(sample) + 1 or tuple(shape[1:]) != sample:
        said = ", ".join(str(n) for n in shape[:8]) + (", ..." if len(shape) > 8 else "")
        raise bad_request(f"{INPUT!r} has shape [{said}], must be [samples, {', '.join(map(str, sample))}]")
    if not 1 <= shape[0] <= signature.max_samples:
        raise bad_request(f"{INPUT!r} has {shape[0]} samples, must have 1 to {signature.max_samples}")


def from_bytes(raw: Buffer, shape: Sequence[int], datatype: str, signature: ModelSignature) -> NDArray[np.generic]:
    """Images as a view of raw little-endian bytes, of an already checked shape."""
    declared = math.prod(shape) * WIDTHS[datatype]
    if len(raw) != declared:
        raise bad_request(f"{INPUT!r} holds {len(raw)} bytes, its shape and datatype need {declared}")
    array: NDArray[Any] = np.frombuffer(raw, dtype="<f4" if datatype == "FP32" else np.uint8)
    return to_model_dtype(array, shape, datatype, signature)


def _raw_images(body: Buffer, signature: ModelSignature) -> NDArray[np.generic]:
    """A body that is nothing but samples, in the model's own dtype (`Inference-Header-Content-Length: 0`)."""
    size = signature.elements * WIDTHS[signature.datatype]
    if len(body) % size:
        raise bad_request(f"the body has {len(body)} bytes, must be a multiple of a sample's {size}")
    shape = [len(body) // size, *signature.input.shape]
    check_shape(shape, signature.datatype, signature)
    return from_bytes(body, shape, signature.datatype, signature)


def _numbers(text: bytes | memoryview, shape: Sequence[int]) -> NDArray[Any]:
    """JSON numbers, in flat or nested lists, as an array; as many as `shape` declares or a refusal."""
    declared = math.prod(shape)
    if not text:
        raise bad_request(f"{INPUT!r} has neither data nor binary_data_size")
    # a list of n numbers has n - 1 commas however it is nested: counted before anything is made of them
    found = sum(piece.count(b",") for piece in _pieces(text)) + 1
    if found != declared:
        raise bad_request(f"{INPUT!r} has about {found} numbers, its shape declares {declared}")
    if len(text) > LONG:
        return _long_numbers(memoryview(text), shape)
    array = _loaded(bytes(text))
    if array.size != declared or array.shape not in ((declared,), tuple(shape)):
        raise bad_request(f"the data of {INPUT!r} has shape {list(array.shape)}, must be flat or {list(shape)}")
    return array


def _pieces(text: bytes | memoryview) -> Iterator[bytes]:
    """`text` in copies of LONG bytes, one at a time."""
    return (bytes(text[at : at + LONG]) for at in range(0, len(text), LONG))


def _loaded(text: bytes) -> NDArray[Any]:
    """A JSON list of numbers as an array."""
    import orjson

    try:
        array = np.array(orjson.loads(text))
    except (ValueError, OverflowError) as error:  # JSON that is none; lists of unequal lengths
        raise bad_request(f"the data of {INPUT!r} is no list of numbers of equal rows: {error}") from None
    if array.dtype.kind not in "iuf":
        raise bad_request(f"the data of {INPUT!r} must be numbers only")
    return array


def _long_numbers(text: memoryview, shape: Sequence[int]) -> NDArray[Any]:
    """As `_numbers`, piece by piece: a parser holds the interpreter's lock until it has read all it was given.

    What is left of the text without its numbers says how they are nested; without brackets they are one flat list.
    """
    _check_nesting(text, shape)
    array: NDArray[Any] = np.empty(math.prod(shape), np.uint8)
    start = filled = 0
    while start < len(text):
        piece = bytes(text[start : start + LONG])
        last = start + len(piece) == len(text)
        stop = len(piece) if last else piece.rfind(b",")
        if stop < 0:
            raise bad_request(f"the data of {INPUT!r} has a number of {LONG} digits or more")
        part = _small(_loaded(b"[" + piece[:stop].translate(None, b"[]") + b"]"))
        if part.dtype != array.dtype:  # a float among bytes: all become floats
            array = array.astype(np.result_type(array, part), copy=False)
        array[filled : filled + len(part)] = part
        start, filled = start + stop + 1, filled + len(part)
    if filled < len(array):  # a comma between nothing and nothing, where a piece ends
        raise bad_request(f"the data of {INPUT!r} has {filled} numbers, its shape declares {len(array)}")
    return array


def _check_nesting(text: memoryview, shape: Sequence[int]) -> None:
    """Raise RefusedError unless the brackets and commas of `text` are those of numbers in `shape` or in one list."""
    nested = bytes(text[:LONG]).translate(None, _NUMERIC).startswith(b"[[")
    expected = _nesting(shape if nested else (math.prod(shape),))
    at = 0
    for piece in _pieces(text):
        found = piece.translate(None, _NUMERIC)
        if not expected.startswith(found, at):
            break
        at += len(found)
    if at != len(expected):
        raise bad_request(f"the data of {INPUT!r} is no list of numbers, flat or of shape {list(shape)}")


def _small(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers, in a byte each where they are whole and fit."""
    whole = array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255
    return array.astype(np.uint8) if whole else array


def _nesting(shape: Sequence[int]) -> bytes:
    """Brackets and commas of nested lists of `shape`."""
    inner = b""
    for length in reversed(shape):
        # not joined: a join takes 80 bytes of memory for each of its parts
        inner = b"[" + (inner + b",") * (length - 1) + inner[: len(inner) * length] + b"]"
    return inner


def to_model_dtype(
    array: NDArray[Any], shape: Sequence[int], datatype: str, signature: ModelSignature
) -> NDArray[np.generic]:
    """Numbers as images of the model's dtype and range: whole and within 0 to 255 for uint8, finite for float32."""
    try:
        if datatype == "FP32" and array.dtype.kind != "f":  # JSON has whole numbers for floats
            array = array.astype(np.float64)
        return fit_array(array.reshape(tuple(shape)), signature.input, repr(INPUT))
    except DataError as error:
        raise bad_request(str(error)) from None


def requested_outputs(frame: RequestHeader, signature: ModelSignature) -> tuple[RequestedOutput, ...]:
    """The outputs asked for, the first two of the model when none are named."""
    binary = frame.parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise bad_request(f"binary_data_output is {binary!r}, must be true or false")
    if not frame.outputs:
        return tuple(RequestedOutput(name, binary) for name in signature.outputs[:2])
    if len(frame.outputs) > len(signature.outputs):
        raise bad_request(f"{len(frame.outputs)} outputs are asked for, the model has {len(signature.outputs)}")
    return tuple(_requested_output(output, binary, signature) for output in frame.outputs)


def _requested_output(output: Output, binary: bool, signature: ModelSignature) -> RequestedOutput:
    check_output(output.name, signature)
    parameters = output.parameters
    binary_here = parameters.get("binary_data", binary)
    top = parameters.get("classification", 0)
    if not isinstance(binary_here, bool):
        raise bad_request(f"binary_data of output {output.name!r} is {binary_here!r}, must be true or false")
    if isinstance(top, bool) or not isinstance(top, int) or top < 0:
        raise bad_request(f"classification of output {output.name!r} is {top!r}, must be a number of classes")
    if top and output.name != "probabilities":
        raise bad_request(f"classification is for the output 'probabilities', not for {output.name!r}")
    if "shared_memory_region" in parameters:
        raise bad_request("shared memory regions are not offered: take the output in the response")
    return RequestedOutput(output.name, binary_here, min(top, len(signature.classes)))


def check_output(name: str, signature: ModelSignature) -> None:
    """Refuse an output that the model does not have."""
    if name not in signature.outputs:
        raise bad_request(f"no output {name[:40]!r}; {signature.name} has: {', '.join(signature.outputs)}")


def timeout_of(parameters: Mapping[str, Parameter]) -> float | None:
    """Triton's `timeout` parameter is in microseconds; 0 means none."""
    try:
        micros = check_duration(parameters.get("timeout", 0), "timeout", zero=True, unit=1e-6)
    except RipienoError as error:
        raise bad_request(str(error)) from None
    return micros / 1e6 if micros else None


def read_header_length(value: bytes | None) -> int | None:
    """The value of `Inference-Header-Content-Length`. Raises RefusedError when it is no number."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise HttpError(400, f"Inference-Header-Content-Length is {value[:20]!r}, must be a number of bytes")
    return int(value)
