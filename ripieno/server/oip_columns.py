"""Decoding of the columns of a table, one tensor each: from values of any type to the matrix that members take.

Pure, as `oip_decode`. The columns are read and encoded one after the other: text takes several times its bytes as
objects, and only that of one column is in memory. `ripieno.data.table_encoding` encodes them, as it does everywhere.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ripieno.data.column_values import ColumnValues
from ripieno.data.table_encoding import encode_column
from ripieno.errors import DataError
from ripieno.server.http_errors import bad_request
from ripieno.server.signature import INPUT, ModelSignature
from ripieno.types import Float32s

COLUMNS_JSON = 1 << 20
"""Bytes of JSON with columns or rows at most: it is parsed at once, which takes some milliseconds."""
NUMBER_DTYPES = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""NumPy's types by the protocol's datatypes of numbers that any column may have; `BYTES` is text."""
TEXT = "BYTES"
REQUEST = "the request"
"""Name of the source of values in messages."""
_SCALARS = frozenset((str, int, float, bool, type(None)))


def takes_columns(inputs: Sequence[Any], signature: ModelSignature) -> bool:
    """Return whether a request for `signature` sends columns; a table's request may also have one matrix, `images`."""
    columns = signature.places
    return bool(columns) and (len(inputs) != 1 or inputs[0].name != INPUT or INPUT in columns)


def read_columns(
    inputs: Sequence[Any], values_of: Callable[[int], ColumnValues], signature: ModelSignature
) -> Float32s:
    """Return the matrix (rows, values) of a request with one tensor a column, of JSON or gRPC, in any order.

    `values_of` returns the values of an input by its position. Raises HttpError (400) when the inputs are not the
    columns of `signature`, or hold values of another kind; names and shapes are checked before values are read.
    """
    rows = _check_inputs(inputs, signature)
    matrix = np.empty((rows, signature.elements), np.float32)
    with as_bad_request():
        for number, tensor in enumerate(inputs):
            column, place = signature.places[tensor.name]
            values = values_of(number)
            if len(values) != rows:
                raise bad_request(f"{tensor.name[:40]!r} has {len(values)} values, its shape requires {rows}")
            matrix[:, place] = encode_column(column, values, REQUEST, DataError)
    return matrix


@contextlib.contextmanager
def as_bad_request() -> Iterator[None]:
    """Convert a DataError to an HttpError (400)."""
    try:
        with np.errstate(invalid="ignore"):  # a signalling NaN is a missing value as well
            yield
    except DataError as error:
        raise bad_request(str(error)) from None


def _check_inputs(inputs: Sequence[Any], signature: ModelSignature) -> int:
    """Return the number of rows. Raises HttpError unless the inputs are the columns, each once and of one shape."""
    names = [tensor.name for tensor in inputs]
    for name, count in Counter(names).items():
        if name not in signature.places:
            few = ", ".join(repr(known[:40]) for known in list(signature.places)[:8])
            more = ", ..." if len(signature.places) > 8 else ""
            raise bad_request(f"Unknown input {name[:40]!r}. {signature.name} has the columns {few}{more}.")
        if count > 1:
            raise bad_request(f"Input {name[:40]!r} occurs {count} times. Send each column once.")
    if len(names) < len(signature.places):
        sent = set(names)
        missing = [name for name in signature.places if name not in sent]
        few = ", ".join(repr(name[:40]) for name in missing[:4]) + (", ..." if len(missing) > 4 else "")
        held = f"The request lacks {len(missing)} of {len(signature.places)} columns: {few}"
        raise bad_request(f"{held}. Send all, with NaN, null or empty text where a value is missing.")
    rows = 0
    for tensor in inputs:
        shape = tuple(tensor.shape[:16])
        if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
            raise bad_request(f"{tensor.name[:40]!r} has shape {list(shape[:8])}, must be [rows, 1]")
        if not 1 <= shape[0] <= signature.max_samples:
            raise bad_request(f"{tensor.name[:40]!r} has {shape[0]} rows, must have 1 to {signature.max_samples}")
        rows = rows or shape[0]
        if shape[0] != rows:
            held = f"{tensor.name[:40]!r} has {shape[0]} rows, but {names[0][:40]!r} has {rows}"
            raise bad_request(f"{held}. Send one value a row in each column.")
        if tensor.datatype != TEXT and tensor.datatype not in NUMBER_DTYPES:
            known = ", ".join((TEXT, *NUMBER_DTYPES))
            raise bad_request(f"{tensor.name[:40]!r} has datatype {tensor.datatype[:20]!r}, must be one of {known}")
        if "shared_memory_region" in tensor.parameters:
            raise bad_request("Shared memory regions are not supported. Send the tensor's data in the request.")
    return rows


def values_from_json(text: bytes, name: str) -> list[Any]:
    """Return the values of the JSON list `text`, flat or in rows of one value. Raises HttpError for anything else."""
    import orjson

    if not text:
        raise bad_request(f"{name[:40]!r} has neither data nor binary_data_size")
    try:
        values = orjson.loads(text)
    except ValueError as error:
        raise bad_request(f"The data of {name[:40]!r} is not JSON: {error}") from None
    if isinstance(values, list) and all(type(value) is list and len(value) == 1 for value in values):
        values = [value[0] for value in values]
    if not isinstance(values, list) or not _SCALARS.issuperset(map(type, values)):
        raise bad_request(f"The data of {name[:40]!r} is not a list of numbers, texts, true, false and null")
    return values


def values_from_bytes(raw: bytes | memoryview, datatype: str, rows: int, name: str) -> ColumnValues:
    """Return the values of raw little-endian bytes. Raises HttpError when they are not `rows` values of `datatype`."""
    if datatype == TEXT:
        return _texts(bytes(raw), rows, name)
    dtype = np.dtype(NUMBER_DTYPES[datatype])
    if len(raw) != rows * dtype.itemsize:
        held = f"{name[:40]!r} has {len(raw)} bytes"
        raise bad_request(f"{held}, its shape and datatype require {rows * dtype.itemsize}")
    return np.frombuffer(raw, np.uint8) != 0 if datatype == "BOOL" else np.frombuffer(raw, dtype)


def _texts(raw: bytes, rows: int, name: str) -> list[str]:
    """Decode text in the protocol's layout: a little-endian 4-byte length, then the text in UTF-8."""
    texts, at = [], 0
    for _ in range(rows):
        begin = at + 4
        at = begin + int.from_bytes(raw[at:begin], "little")
        if at > len(raw):
            raise bad_request(f"{name[:40]!r} has fewer texts in its {len(raw)} bytes than the {rows} of its shape")
        texts.append(decode_text(raw[begin:at], name))
    if at < len(raw):
        raise bad_request(f"{name[:40]!r} has {len(raw) - at} bytes after the {rows} texts of its shape")
    return texts


def decode_text(raw: bytes, name: str) -> str:
    """Decode a text. Raises HttpError when it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise bad_request(f"{name[:40]!r} has a text that is not UTF-8") from None
