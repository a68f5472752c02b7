"""`GET /openapi.json`: the HTTP API in OpenAPI 3.1, for client generators and test tools. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ripieno.data.tiles import MOST_OVERLAP
from ripieno.server.oip_columns import NUMBER_DTYPES, TEXT
from ripieno.server.oip_decode import WIDTHS
from ripieno.server.rows_endpoint import ROWS
from ripieno.server.signature import INPUT, TENSOR_DATATYPES, ModelSignature

Document = dict[str, Any]

DESCRIPTIONS = {
    "400": "Bad request: invalid, or does not match the model's inputs and outputs.",
    "401": "Unauthorized: the token is missing or wrong.",
    "403": "Forbidden: model reload over HTTP is disabled.",
    "409": "Another target than the one that is known for a sample.",
    "404": "Not found: no such model or path.",
    "405": "Method not allowed at this path.",
    "408": "Request timeout: the client was too slow.",
    "413": "Content too large: the body, its JSON or a picture.",
    "415": "Unsupported media type: not a picture, a model that takes none or no rows, or an unsupported encoding.",
    "431": "Request header fields too large.",
    "500": "Internal server error, or the request crashed members.",
    "503": "Too many concurrent requests. Retry later.",
    "504": "Timeout: no answer in time.",
}
SUMMARY = "Ensemble inference with the Open Inference Protocol v2."
ANY = ("400", "401", "404", "405", "408", "413", "431", "503")
PREDICTION_ERRORS = (*ANY, "415", "500", "504")
_JSON = "application/json"
_ANYTHING: Document = {"schema": {"type": "string", "format": "binary"}}
_PARAMETERS: Document = {"type": "object", "additionalProperties": {"type": ["boolean", "integer", "number", "string"]}}


def _object(required: Sequence[str], **properties: Any) -> Document:
    return {"type": "object", "required": list(required), "properties": properties}


_PREDICTIONS = _object(
    ("model_name", "model_version", "predictions"),
    predictions={"type": "array", "minItems": 1, "items": {"type": "object"}},
)
_SCHEMAS = {
    "Error": _object(["error"], error={"type": "string"}),
    "Output": _object(
        ("name", "shape", "datatype"),
        name={"type": "string"},
        shape={"type": "array", "items": {"type": "integer"}},
        datatype={"enum": ["FP32", "UINT8", "BOOL", "INT64", "BYTES"]},
        data={"type": "array", "items": {"type": ["number", "boolean", "string"]}},
        parameters=_PARAMETERS,
    ),
    "Answer": _object(
        ("model_name", "model_version", "outputs"),
        **{key: {"type": "string"} for key in ("model_name", "model_version", "id")},
        outputs={"type": "array", "items": {"$ref": "#/components/schemas/Output"}},
        parameters=_PARAMETERS,
    ),
}


def openapi(models: Sequence[ModelSignature], version: str, token: bool) -> Document:
    """Return the document for a server of `models`; with `token`, requests must carry a token."""
    named: Document = {"name": "model", "in": "path", "required": True, "schema": {"enum": [m.name for m in models]}}
    model = "/v2/models/{model}"
    paths: Document = {
        "/v2": {"get": _get("Server metadata.")},
        "/v2/health/live": {"get": _get("Liveness of the server.")},
        "/v2/health/ready": {"get": _get("Readiness of the server.")},
        "/v2/models/stats": {"get": _get("Statistics of all models.")},
        "/v2/repository/index": {"post": _index()},
        "/v2/repository/models/{model}/load": {
            "parameters": [named],
            "post": {**_get("Reload a bundle from its folder."), "responses": _responses({}, (*ANY, "403", "500"))},
        },
        model: {"parameters": [named], "get": _get("Inputs and outputs of a model.")},
        f"{model}/ready": {"parameters": [named], "get": _get("Readiness of a model.")},
        f"{model}/config": {"parameters": [named], "get": _get("Triton model configuration: the fields clients read.")},
        f"{model}/stats": {"parameters": [named], "get": _get("Statistics of a model.")},
        f"{model}/drift": {"parameters": [named], "get": _get("Drift of a model's requests; only with --watch.")},
        f"{model}/labels": {
            "parameters": [named],
            "post": {
                **_get("Labels of answered requests; only with --watch."),
                "responses": _responses({}, (*ANY, "409")),
            },
        },
        f"{model}/infer": {"parameters": [named], "post": _infer(models)},
        f"{model}/images": {"parameters": [named], "post": _documents()},
        f"{model}/rows": {"parameters": [named], "post": _documents(_row(models[0]))},
        "/predict": {"post": _documents(_row(models[0]) if models[0].input.columns else None)},
        "/overview": {"get": _get("Data of `ripieno top`.")},
        "/metrics": {"get": _get("Prometheus metrics.", "text/plain")},
        "/openapi.json": {"get": _get("This document.")},
        "/": {"get": _get("Page for picture uploads, or how other samples are sent.", "text/html")},
    }
    document: Document = {
        "openapi": "3.1.0",
        "info": {"title": "ripieno", "version": version, "summary": SUMMARY},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _infer(models: Sequence[ModelSignature]) -> Document:
    tensors = list(_tensors(models[0]))
    most = max(1, *(len(signature.input.columns) for signature in models))
    outputs = list(dict.fromkeys(output for signature in models for output in signature.outputs))
    requested = _object(["name"], name={"enum": outputs}, parameters=_PARAMETERS)
    request = _object(
        ["inputs"],
        id={"type": "string"},
        inputs={
            "type": "array",
            "minItems": 1,
            "maxItems": most,
            "items": tensors[0] if len(tensors) == 1 else {"anyOf": tensors},
        },
        outputs={"type": "array", "items": requested},
        parameters=_PARAMETERS,
    )
    length: Document = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of the JSON, which raw tensors follow; 0 for a body of samples only.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer = {_JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}, "application/octet-stream": _ANYTHING}
    return {
        "summary": "Run inference.",
        "parameters": [length],
        "requestBody": {"required": True, "content": {**answer, _JSON: {"schema": request}}},
        "responses": _responses(answer, PREDICTION_ERRORS),
    }


def _tensors(signature: ModelSignature) -> Iterator[Document]:
    """Yield the schemas of the inputs: of all samples as one, and of a table's columns, one for each type."""
    rows = {"type": "integer", "minimum": 1, "maximum": signature.max_samples}
    datatypes = [d for d in WIDTHS if d in (signature.datatype, "FP32")]
    yield _tensor([INPUT], datatypes, rows, [{"const": n} for n in signature.input.shape])
    by_type: dict[str, list[str]] = {}
    for tensor in signature.inputs if signature.input.columns else ():
        by_type.setdefault(TENSOR_DATATYPES[tensor.dtype], []).append(tensor.name)
    for datatype, names in by_type.items():
        others = [other for other in (TEXT, *NUMBER_DTYPES) if other != datatype]
        yield _tensor(names, [datatype, *others], rows, [{"const": 1}])


def _tensor(names: Sequence[str], datatypes: Sequence[str], rows: Document, sizes: Sequence[Document]) -> Document:
    """Return the schema of a tensor of one of `names`, whose axes are `rows` and then `sizes`."""
    shape = {"type": "array", "prefixItems": [rows, *sizes], "items": False, "minItems": 1 + len(sizes)}
    return _object(
        ("name", "shape", "datatype"),
        name={"const": names[0]} if len(names) == 1 else {"enum": list(names)},
        shape=shape,
        datatype={"enum": list(datatypes)},
        parameters=_PARAMETERS,
        data={"type": "array"},
    )


def _documents(row: Document | None = None) -> Document:
    """Return the operation that predicts pictures, or rows of the schema `row`, and names the predictions."""
    query: list[Document] = [
        {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 999999}},
        {"name": "members", "in": "query", "schema": {"enum": ["true", "false"]}},
        {"name": "uncertainty", "in": "query", "schema": {"enum": ["true", "false"]}},
        {"name": "coverage", "in": "query", "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}},
    ]
    if row is None:
        query += [
            {"name": "resize", "in": "query", "schema": {"enum": ["true", "false"]}},
            {"name": "overlap", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": MOST_OVERLAP}},
        ]
        kinds = ("image/jpeg", "image/png", "image/webp")
        form = {"schema": {"type": "object", "properties": {"picture": {"type": "string", "format": "binary"}}}}
        content: Document = {**dict.fromkeys(kinds, _ANYTHING), "multipart/form-data": form}
    else:
        several = {"type": "array", "minItems": 1, "maxItems": ROWS, "items": row}
        content = {_JSON: {"schema": {"anyOf": [row, several]}}}
    found = "rows: classes, labels or values" if row else "pictures: classes, labels, values or masks"
    return {
        "summary": f"Predict {found}.",
        "parameters": query,
        "requestBody": {"required": True, "content": content},
        "responses": _responses({_JSON: {"schema": _PREDICTIONS}}, PREDICTION_ERRORS),
    }


def _row(signature: ModelSignature) -> Document:
    """Return the schema of a row: the values by their columns."""
    types = {"number": ["number", "null"], "category": ["string", "number", "boolean", "null"]}
    columns = {c.name: {"type": types.get(c.kind, ["string", "number", "null"])} for c in signature.input.columns}
    return {**_object(list(columns), **columns), "additionalProperties": False}


def _get(summary: str, kind: str = _JSON) -> Document:
    schema: Document = {"schema": {"type": "object" if kind == _JSON else "string"}}
    return {"summary": summary, "responses": _responses({kind: schema}, ANY)}


def _index() -> Document:
    fields = ("name", "version", "state", "reason")
    listed = _object(fields, **{key: {"type": "string"} for key in fields})
    answer = {_JSON: {"schema": {"type": "array", "items": listed}}}
    return {"summary": "List the models.", "responses": _responses(answer, ANY)}


def _responses(content: Document, errors: Sequence[str]) -> Document:
    error = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    success: Document = {"description": "The response.", **({"content": content} if content else {})}
    return {"200": success, **{s: {"description": DESCRIPTIONS[s], "content": error} for s in sorted(set(errors))}}
