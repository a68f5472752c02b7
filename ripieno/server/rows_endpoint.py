"""Rows endpoint: rows of a table as JSON objects, predicted as one request."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import Scope

from ripieno.data.data_frame import columns_of_rows
from ripieno.data.table_encoding import encode
from ripieno.errors import DataError
from ripieno.server.event_loop import run_in_worker
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits
from ripieno.server.models import Model
from ripieno.server.oip_columns import COLUMNS_JSON, REQUEST, as_bad_request
from ripieno.server.prediction_document import predict_document, read_options
from ripieno.server.signature import ModelSignature
from ripieno.types import Float32s

ROWS = 1024
"""Rows of a request at most: their predictions are written as objects."""

_Row = dict[str, str | int | float | bool | None]
_decode_rows = msgspec.json.Decoder(list[_Row] | _Row).decode


async def answer(scope: Scope, body: bytes | bytearray, model: Model, limits: Limits) -> dict[str, Any]:
    """Return the JSON response to rows; the options are those of pictures.

    Raises HttpError for invalid rows, for too many rows, and for errors of the engine.
    """
    options = read_options(scope["query_string"], model.signature)
    rows = await run_in_worker(len(body), read_rows, body, model.signature)
    return await predict_document(model, rows, [{"row": i} for i in range(len(rows))], options, limits)


def read_rows(body: bytes | bytearray, signature: ModelSignature) -> Float32s:
    """Decode a JSON object by the names of the columns, or a list of such, to the matrix (rows, values).

    Raises HttpError: 413 for too much JSON, 415 for a model without named columns, 400 for invalid rows.
    """
    if not signature.input.columns:
        raise HttpError(415, f"{signature.name} has no named columns, and cannot read rows. Send tensors.")
    if len(body) > COLUMNS_JSON:
        raise HttpError(413, f"The rows have {len(body)} bytes (limit {COLUMNS_JSON}). Send fewer, or binary tensors.")
    try:
        decoded = _decode_rows(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(
            f"Cannot parse the rows: {error}. Send a JSON object of values by column, or a list of such."
        ) from None
    rows = decoded if isinstance(decoded, list) else [decoded]
    if not 1 <= len(rows) <= ROWS:
        raise bad_request(f"The request has {len(rows)} rows, must have 1 to {ROWS}. Send tensors for more.")
    with as_bad_request():
        values = columns_of_rows(rows, REQUEST, DataError)
        return encode(signature.input.columns, values, REQUEST, DataError)
