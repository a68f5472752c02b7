"""Decoding of Open Inference Protocol v2 requests: from the bytes of a body to an array.

Pure: no sockets, no clocks. Every function returns, or raises `HttpError` with a 4xx status and one line, for any
bytes.

Theory of operation. A body is JSON, or JSON followed by raw tensors (the binary tensor data extension; the header
`Inference-Header-Content-Length` gives the length of the JSON). The JSON without its numbers is decoded into typed
structures that cannot nest, so it cannot grow in memory. A tensor's `data` stays undecoded text until its declared
shape is checked against the model's input, and its commas are counted against the shape. Only then are the numbers
parsed. Binary tensors become views of the body, never copies.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno.data.column_values import ColumnValues
from ripieno.data.pixels import fit_array
from ripieno.data_kinds import is_series, is_table
from ripieno.durations import check_duration
from ripieno.errors import DataError, RipienoError, SelectionError
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.oip_columns import (
    COLUMNS_JSON,
    read_columns,
    takes_columns,
    values_from_bytes,
    values_from_json,
)
from ripieno.server.signature import INPUT, ModelSignature
from ripieno.tasks.uncertainty_outputs import UNCERTAINTY_OUTPUTS

Parameter: TypeAlias = bool | int | float | str
Whole = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
"""Integers that all JSON parsers read exactly; longer ones can be neither used nor quoted in a message."""
Buffer: TypeAlias = bytes | bytearray | memoryview

LONG = 1 << 17
"""Bytes of JSON numbers that are parsed at once."""
_NUMERIC = b"0123456789+-.eE \t\r\nnul"
"""Characters of numbers, and of `null`, which is a missing point of a series or value of a table."""

_PLACEHOLDER = b"[%d]" % secrets.randbits(64)
"""Placeholder in the JSON for numbers that were removed; random, so that no client can send it."""
_DATA = re.compile(rb'"data"\s*:\s*\[')
_LIST = re.compile(rb"[][0-9+\-.eE \t\r\nnul,]*")

WIDTHS = {"UINT8": 1, "FP32": 4}
"""Bytes of a number, by the datatypes that a request's images may have."""


Nullable: TypeAlias = dict[str, bool | Whole | float | str | None] | None
"""Parameters as received: many clients send null for unset ones."""


class Parameterized(msgspec.Struct, kw_only=True):
    """A part of a request that may have parameters."""

    received: Nullable = msgspec.field(default=None, name="parameters")

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that are set."""
        return {n: value for n, value in self.received.items() if value is not None} if self.received else {}


class Tensor(Parameterized):
    """An input of a request."""

    name: str
    shape: list[Whole]
    datatype: str
    raw: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="data")

    @property
    def data(self) -> bytes:
        """The text of the tensor's numbers; empty if it has none."""
        text = bytes(self.raw)
        return b"" if text == b"null" else text


class Output(Parameterized):
    """A requested output, as received."""

    name: str


class RequestHeader(Parameterized):
    """A request without its numbers."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None


_decode_header = msgspec.json.Decoder(RequestHeader).decode


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A requested output, as raw bytes or JSON; `top` > 0 requests the best classes as "value:index:name"."""

    name: str
    binary: bool = False
    top: int = 0


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A validated request."""

    images: NDArray[np.generic]
    """(samples, *input.shape), of the model's dtype; often a read-only view of the body"""
    outputs: tuple[RequestedOutput, ...]
    id: str = ""
    timeout: float | None = None
    """seconds for which the client waits"""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    coverage: float | None = None
    """level of prediction sets and intervals; None: the first"""

    @property
    def names(self) -> frozenset[str]:
        """Names of the outputs."""
        return frozenset([output.name for output in self.outputs])

    @property
    def partial(self) -> bool:
        """True if the members that have finished within the timeout suffice."""
        return self.parameters.get("partial") is True


def check_json(size: int, header_length: int | None, most: int) -> None:
    """Raise HttpError (413) when a body of `size` bytes has more than `most` bytes of JSON."""
    json_length = size if header_length is None else min(header_length, size)
    if json_length > most:
        raise HttpError(413, f"The JSON has {json_length} bytes (limit {most}). Send binary tensors.")


def read_request(body: Buffer, header_length: int | None, signature: ModelSignature) -> InferenceRequest:
    """Decode a request; `header_length` is the value of `Inference-Header-Content-Length`, None without it.

    Raises HttpError (400) for a request that is invalid or does not match `signature`.
    """
    if header_length is None:
        text, rest = body, memoryview(b"")
    elif header_length == 0:
        return InferenceRequest(
            _raw_images(body, signature), tuple(RequestedOutput(o, binary=True) for o in signature.outputs[:2])
        )
    elif 0 < header_length <= len(body):
        view = memoryview(body)
        text, rest = view[:header_length], view[header_length:]
    else:
        raise bad_request(
            f"Inference-Header-Content-Length is {header_length}, must be within the body's {len(body)} bytes"
        )
    text, numbers = _without_numbers(text, bool(signature.input.columns))
    try:
        header = _decode_header(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"Cannot parse the request's JSON: {error}") from None
    return complete_request(_images(header.inputs, numbers, rest, signature), header, signature)


def _without_numbers(document: Buffer, of_table: bool) -> tuple[Buffer, memoryview]:
    """Replace the numbers of long JSON by a placeholder, and return a view of them; leave other JSON.

    The decoder keeps the interpreter's lock while it reads its input, so the input must be short. That of a table may
    have columns, which stay in it: it is long above `COLUMNS_JSON`. Raises HttpError when the JSON is long without its
    numbers.
    """
    text = memoryview(document)
    if len(text) <= (COLUMNS_JSON if of_table else LONG):
        return document, text[:0]
    begins = _DATA.search(text, 0, LONG)
    start = end = len(text) if begins is None else begins.end() - 1
    while end < len(text):
        stop = min(end + LONG, len(text))
        end = _LIST.match(text, end, stop).end()  # type: ignore[union-attr]  # also matches the empty string
        if end < stop:
            break
    while end > start:
        piece = bytes(text[max(start, end - LONG) : end])
        kept = len(piece.rstrip(b", \t\r\n"))
        end -= len(piece) - kept
        if kept:
            break
    remaining = len(text) - (end - start) + len(_PLACEHOLDER)
    if remaining > LONG and of_table:
        raise _too_long()
    if remaining > LONG:
        raise bad_request(f"The JSON has {remaining} bytes without its numbers (limit {LONG}).")
    return b"".join((text[:start], _PLACEHOLDER, text[end:])), text[start:end]


def _images(
    inputs: Sequence[Tensor], numbers: memoryview, rest: memoryview, signature: ModelSignature
) -> NDArray[np.generic]:
    """Convert the inputs, from JSON or from the bytes after it; `numbers` were removed from the JSON."""
    if takes_columns(inputs, signature):
        return read_columns(inputs, _column_values(inputs, rest), signature)
    tensor: Tensor = only_input(inputs, signature)
    size = tensor.parameters.get("binary_data_size")
    data = numbers if tensor.data == _PLACEHOLDER else tensor.data
    if size is None:
        if len(rest):
            raise bad_request(f"{len(rest)} bytes follow the JSON, but {INPUT!r} has no binary_data_size")
        nulls = is_series(signature.input) or is_table(signature.input)
        array = _numbers(data, tensor.shape, nulls)
        return to_model_dtype(array, tensor.shape, tensor.datatype, signature)
    if isinstance(size, bool) or not isinstance(size, int):
        raise bad_request(f"binary_data_size is {size!r}, must be a whole number of bytes")
    if data:
        raise bad_request(f"{INPUT!r} has both data and binary_data_size. Send one of them.")
    if size != len(rest):
        raise bad_request(f"binary_data_size is {size}, but {len(rest)} bytes follow the JSON")
    return from_bytes(rest, tensor.shape, tensor.datatype, signature)


def _column_values(inputs: Sequence[Tensor], rest: memoryview) -> Callable[[int], ColumnValues]:
    """Return a function that reads the values of a column by its position, from JSON or from the bytes after it."""
    pieces: list[memoryview | None] = []
    at = 0
    for tensor in inputs:
        size = tensor.parameters.get("binary_data_size")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise bad_request(f"binary_data_size is {size!r}, must be a whole number of bytes")
        if size is not None and tensor.data:
            raise bad_request(f"{tensor.name[:40]!r} has both data and binary_data_size. Send one of them.")
        pieces.append(None if size is None else rest[at : at + size])
        at += size or 0
    if at != len(rest):
        raise bad_request(f"binary_data_size of all inputs is {at}, but {len(rest)} bytes follow the JSON")

    def values_of(number: int) -> ColumnValues:
        tensor, piece = inputs[number], pieces[number]
        if piece is not None:
            return values_from_bytes(piece, tensor.datatype, tensor.shape[0], tensor.name)
        if tensor.data == _PLACEHOLDER:
            raise _too_long()
        return values_from_json(tensor.data, tensor.name)

    return values_of


def _too_long() -> HttpError:
    return HttpError(413, f"The JSON has over {COLUMNS_JSON} bytes. Send fewer rows, or binary tensors.")


def only_input(inputs: Sequence[Any], signature: ModelSignature) -> Any:
    """Return the input `images` of a request, of JSON or gRPC. Raises HttpError (400) when it cannot be `signature`'s.

    Its shape and datatype are checked before its data is converted.
    """
    if len(inputs) != 1 or inputs[0].name != INPUT:
        names = ", ".join(repr(t.name[:40]) for t in inputs[:4]) or "none"
        raise bad_request(f"inputs are {names}, must be exactly one input {INPUT!r}")
    tensor = inputs[0]
    check_shape(tensor.shape[:16], tensor.datatype, signature)
    if "shared_memory_region" in tensor.parameters:
        raise bad_request("Shared memory regions are not supported. Send the tensor's data in the request.")
    return tensor


def check_shape(shape: Sequence[int], datatype: str, signature: ModelSignature) -> None:
    """Raise HttpError for a declared shape or datatype that does not match `signature`, before data is converted."""
    if datatype != signature.datatype and not (datatype == "FP32" and signature.datatype == "UINT8"):
        also = " (or FP32 of whole numbers 0 to 255)" if signature.datatype == "UINT8" else ""
        raise bad_request(f"{INPUT!r} has datatype {datatype[:20]!r}, must be {signature.datatype}{also}")
    sample = signature.input.shape
    if len(shape) != len(sample) + 1 or tuple(shape[1:]) != sample:
        declared = ", ".join(str(n) for n in shape[:8]) + (", ..." if len(shape) > 8 else "")
        expected = f"must be [samples, {', '.join(map(str, sample))}]"
        if is_series(signature.input) and len(shape) == 3 and shape[2] == sample[1] and shape[1] < sample[0]:
            expected += "; pad shorter series at the end with NaN (JSON: null)"
        raise bad_request(f"{INPUT!r} has shape [{declared}], {expected}")
    if not 1 <= shape[0] <= signature.max_samples:
        raise bad_request(f"{INPUT!r} has {shape[0]} samples, must have 1 to {signature.max_samples}")


def from_bytes(raw: Buffer, shape: Sequence[int], datatype: str, signature: ModelSignature) -> NDArray[np.generic]:
    """Return images as a view of raw little-endian bytes, of an already checked shape."""
    declared = math.prod(shape) * WIDTHS[datatype]
    if len(raw) != declared:
        raise bad_request(f"{INPUT!r} has {len(raw)} bytes, its shape and datatype require {declared}")
    array: NDArray[Any] = np.frombuffer(raw, dtype="<f4" if datatype == "FP32" else np.uint8)
    return to_model_dtype(array, shape, datatype, signature)


def _raw_images(body: Buffer, signature: ModelSignature) -> NDArray[np.generic]:
    """Decode a body that consists of samples in the model's dtype (`Inference-Header-Content-Length: 0`)."""
    size = signature.elements * WIDTHS[signature.datatype]
    if len(body) % size:
        raise bad_request(f"The body has {len(body)} bytes, must be a multiple of a sample's {size}")
    shape = [len(body) // size, *signature.input.shape]
    check_shape(shape, signature.datatype, signature)
    return from_bytes(body, shape, signature.datatype, signature)


def _numbers(text: bytes | memoryview, shape: Sequence[int], nulls: bool = False) -> NDArray[Any]:
    """Parse JSON numbers, in flat or nested lists; with `nulls`, null is NaN.

    Raises HttpError when their count or nesting is not `shape`'s.
    """
    declared = math.prod(shape)
    if not text:
        raise bad_request(f"{INPUT!r} has neither data nor binary_data_size")
    # a list of n numbers has n - 1 commas at any nesting: they are counted before the numbers are parsed
    count = sum(piece.count(b",") for piece in _pieces(text)) + 1
    if count != declared:
        raise bad_request(f"{INPUT!r} has about {count} numbers, its shape requires {declared}")
    if len(text) > LONG:
        return _long_numbers(memoryview(text), shape, nulls)
    array = _parse_numbers(bytes(text), nulls)
    if array.size != declared or array.shape not in ((declared,), tuple(shape)):
        raise bad_request(f"The data of {INPUT!r} has shape {list(array.shape)}, must be flat or {list(shape)}")
    return array


def _pieces(text: bytes | memoryview) -> Iterator[bytes]:
    """Copy `text` in pieces of LONG bytes, one at a time."""
    return (bytes(text[at : at + LONG]) for at in range(0, len(text), LONG))


def _parse_numbers(text: bytes, nulls: bool) -> NDArray[Any]:
    """Convert a JSON list of numbers to an array; with `nulls`, null is NaN."""
    import orjson

    try:
        array = np.array(orjson.loads(text))
    except (ValueError, OverflowError) as error:  # invalid JSON; lists of unequal lengths
        raise bad_request(
            f"The data of {INPUT!r} is not a list of numbers with rows of equal length: {error}"
        ) from None
    if nulls and array.dtype == object and all(n is None or type(n) in (int, float) for n in array.ravel().tolist()):
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise bad_request(f"The data of {INPUT!r} must be numbers only")
    return array


def _long_numbers(text: memoryview, shape: Sequence[int], nulls: bool) -> NDArray[Any]:
    """Parse numbers as `_numbers` does, but in pieces: a parser keeps the interpreter's lock while it reads its input.

    The text without its numbers gives the nesting; without brackets, the numbers are parsed as one flat list.
    """
    _check_nesting(text, shape)
    array: NDArray[Any] = np.empty(math.prod(shape), np.uint8)
    start = filled = 0
    while start < len(text):
        piece = bytes(text[start : start + LONG])
        last = start + len(piece) == len(text)
        stop = len(piece) if last else piece.rfind(b",")
        if stop < 0:
            raise bad_request(f"The data of {INPUT!r} has a number of {LONG} digits or more")
        part = _parse_numbers(b"[" + piece[:stop].translate(None, b"[]") + b"]", nulls)
        if part.dtype.kind in "iu" and part.min() >= 0 and part.max() <= 255:
            part = part.astype(np.uint8)
        if part.dtype != array.dtype:  # a float among bytes converts all to floats
            array = array.astype(np.result_type(array, part), copy=False)
        array[filled : filled + len(part)] = part
        start, filled = start + stop + 1, filled + len(part)
    if filled < len(array):  # an empty element where a piece ends
        raise bad_request(f"The data of {INPUT!r} has {filled} numbers, its shape requires {len(array)}")
    return array


def _check_nesting(text: memoryview, shape: Sequence[int]) -> None:
    """Raise HttpError unless the brackets and commas of `text` match nested lists of `shape`, or one flat list."""
    nested = bytes(text[:LONG]).translate(None, _NUMERIC).startswith(b"[[")
    expected = _nesting(shape if nested else (math.prod(shape),))
    at = 0
    for piece in _pieces(text):
        brackets = piece.translate(None, _NUMERIC)
        if not expected.startswith(brackets, at):
            break
        at += len(brackets)
    if at != len(expected):
        raise bad_request(f"The data of {INPUT!r} is not a list of numbers, flat or of shape {list(shape)}")


def _nesting(shape: Sequence[int]) -> bytes:
    """Return the brackets and commas of nested lists of `shape`."""
    inner = b""
    for length in reversed(shape):
        # multiplied, because a join takes 80 bytes of memory for each of its parts
        inner = b"[" + (inner + b",") * (length - 1) + inner[: len(inner) * length] + b"]"
    return inner


def to_model_dtype(
    array: NDArray[Any], shape: Sequence[int], datatype: str, signature: ModelSignature
) -> NDArray[np.generic]:
    """Convert numbers to images of the model's dtype and range: integers 0 to 255 for uint8, finite for float32."""
    try:
        if datatype == "FP32" and array.dtype.kind != "f":  # JSON may write floats as integers
            array = array.astype(np.float64)
        return fit_array(array.reshape(tuple(shape)), signature.input, repr(INPUT))
    except DataError as error:
        raise bad_request(str(error)) from None


def complete_request(images: NDArray[np.generic], header: RequestHeader, signature: ModelSignature) -> InferenceRequest:
    """Return the request for `images`, of JSON or gRPC.

    Without names of outputs, it is for those of its task; with a coverage, for the set or the interval too.

    Raises HttpError (400) for outputs that the model does not have, and for invalid parameters.
    """
    parameters, received = header.parameters, header.outputs or ()
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise bad_request(f"binary_data_output is {binary!r}, must be true or false")
    if len(received) > len(signature.outputs):
        raise bad_request(f"The request has {len(received)} outputs, the model has {len(signature.outputs)}")
    coverage = read_coverage(parameters.get("coverage"), signature)
    covered = signature.uncertainty.covered if signature.uncertainty and coverage is not None else ()
    outputs = [_requested_output(output, binary, signature) for output in received] or [
        RequestedOutput(name, binary) for name in (*signature.default_outputs, *covered)
    ]
    try:  # Triton's `timeout` is in microseconds
        micros = check_duration(parameters.get("timeout", 0), "timeout", zero=True, unit=1e-6)
    except RipienoError as error:
        raise bad_request(str(error)) from None
    seconds = micros / 1e6 if micros else None
    return InferenceRequest(images, tuple(outputs), header.id or "", seconds, parameters, coverage)


def read_coverage(value: Parameter | None, signature: ModelSignature) -> float | None:
    """Return the level of coverage that is asked for, a number or its text; None where `value` is None.

    Raises HttpError (400) for a level that the model does not have.
    """
    if value is None:
        return None
    if signature.uncertainty is None:
        raise bad_request(f"{signature.name} is a single member, without coverage. Send coverage to the ensemble.")
    try:
        level = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        level = math.nan
    try:
        return signature.uncertainty.coverage(level).level
    except SelectionError as error:
        if math.isnan(level) and signature.uncertainty.levels:
            raise bad_request(f"coverage is {str(value)[:20]!r}, must be a number such as 0.9") from None
        raise bad_request(str(error)) from None


def _requested_output(output: Output, binary: bool, signature: ModelSignature) -> RequestedOutput:
    if output.name not in signature.outputs:
        if signature.uncertainty and output.name in UNCERTAINTY_OUTPUTS:
            raise bad_request(signature.uncertainty.missing(output.name))
        known = ", ".join(signature.outputs)
        raise bad_request(f"Unknown output {output.name[:40]!r}. {signature.name} has: {known}.")
    parameters = output.parameters
    binary_here = parameters.get("binary_data", binary)
    top = parameters.get("classification", 0)
    if not isinstance(binary_here, bool):
        raise bad_request(f"binary_data of output {output.name!r} is {binary_here!r}, must be true or false")
    if isinstance(top, bool) or not isinstance(top, int) or top < 0:
        raise bad_request(f"classification of output {output.name!r} is {top!r}, must be a number of classes")
    if top and not signature.ranks:
        raise bad_request(f"classification is set for {signature.name}, which predicts no classes. Leave it out.")
    if top and output.name != signature.predictions:
        raise bad_request(
            f"classification is set for output {output.name!r}, must be for output {signature.predictions!r}"
        )
    if "shared_memory_region" in parameters:
        raise bad_request("Shared memory regions are not supported. Read the output from the response.")
    return RequestedOutput(output.name, binary_here, min(top, len(signature.task.names)))


def read_header_length(value: bytes | None) -> int | None:
    """Return the value of `Inference-Header-Content-Length`. Raises HttpError when it is not a number."""
    if value is None:
        return None
    if not value.isdigit() or len(value) > 12:
        raise HttpError(400, f"Inference-Header-Content-Length is {value[:20]!r}, must be a number of bytes")
    return int(value)
