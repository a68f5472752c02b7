"""`GET /openapi.json`: the HTTP interface in OpenAPI 3.1, for those who make clients or test servers by it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ripieno.server.oip_decode import WIDTHS
from ripieno.server.signature import INPUT, ModelSignature

Document = dict[str, Any]

WORDS = {
    "400": "No request that this model can answer.",
    "401": "No token, where one is asked for.",
    "403": "Bundles are not exchanged over the network here.",
    "404": "No such model or path.",
    "405": "The path is there, the method is not.",
    "408": "The client took too long.",
    "413": "The body, its JSON or a picture is too large.",
    "415": "No picture, or an encoding that is not read.",
    "431": "The headers are too long.",
    "500": "A mistake of the server, or members that died over this request.",
    "503": "As many requests are under way as are taken: try again.",
    "504": "No answer in time.",
}
ANY = ("400", "401", "404", "405", "408", "413", "431", "503")
ASKED = (*ANY, "415", "500", "504")
_JSON = "application/json"
_ANYTHING: Document = {"schema": {"type": "string", "format": "binary"}}
_PARAMETERS: Document = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_PREDICTIONS: Document = {
    "type": "object",
    "required": ["model_name", "model_version", "predictions"],
    "properties": {"predictions": {"type": "array", "minItems": 1, "items": {"type": "object"}}},
}
_SCHEMAS: Document = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    "Output": {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": ["FP32", "BYTES"]},
            "data": {"type": "array", "items": {"type": ["number", "string"]}},
            "parameters": _PARAMETERS,
        },
    },
    "Answer": {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Output"}},
            "parameters": _PARAMETERS,
        },
    },
}


def openapi(models: Mapping[str, ModelSignature], version: str, token: bool) -> Document:
    """The document for a server of `models`; with a `token`, requests must carry one."""
    named: Document = {"name": "model", "in": "path", "required": True, "schema": {"enum": list(models)}}
    first = next(iter(models.values()))
    model = "/v2/models/{model}"
    paths: Document = {
        "/v2": {"get": _get("The server.")},
        "/v2/health/live": {"get": _get("Whether the server lives.")},
        "/v2/health/ready": {"get": _get("Whether requests are answered.")},
        "/v2/models/stats": {"get": _get("What all models did.")},
        "/v2/repository/index": {"post": _index()},
        "/v2/repository/models/{model}/load": {
            "parameters": [named],
            "post": {
                **_get("Load a bundle again from where it came."),
                "responses": _responses({}, (*ANY, "403", "500")),
            },
        },
        model: {"parameters": [named], "get": _get("A model's inputs and outputs.")},
        f"{model}/ready": {"parameters": [named], "get": _get("Whether a model answers.")},
        f"{model}/config": {"parameters": [named], "get": _get("As much of Triton's configuration as clients read.")},
        f"{model}/stats": {"parameters": [named], "get": _get("What a model did.")},
        f"{model}/infer": {"parameters": [named], "post": _infer(first, models)},
        f"{model}/images": {"parameters": [named], "post": _pictures()},
        "/predict": {"post": _pictures()},
        "/overview": {"get": _get("What `ripieno top` shows.")},
        "/metrics": {"get": _get("Counts for Prometheus.", "text/plain")},
        "/openapi.json": {"get": _get("This document.")},
        "/": {"get": _get("A page to drop pictures on.", "text/html")},
    }
    document: Document = {
        "openapi": "3.1.0",
        "info": {"title": "ripieno", "version": version, "summary": "An ensemble by the Open Inference Protocol v2."},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _infer(first: ModelSignature, models: Mapping[str, ModelSignature]) -> Document:
    tensor: Document = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": INPUT},
            "shape": {
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": 1, "maximum": first.max_samples},
                    *({"const": n} for n in first.input.shape),
                ],
                "items": False,
                "minItems": 1 + len(first.input.shape),
            },
            "datatype": {"enum": [d for d in WIDTHS if d in (first.datatype, "FP32")]},
            "parameters": _PARAMETERS,
            "data": {"type": "array"},
        },
    }
    outputs = list(dict.fromkeys(output for signature in models.values() for output in signature.outputs))
    wanted: Document = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"enum": outputs}, "parameters": _PARAMETERS},
    }
    request: Document = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": wanted},
            "parameters": _PARAMETERS,
        },
    }
    length: Document = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of the JSON, which raw tensors follow; 0 for a body that is nothing but samples.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer = {_JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}, "application/octet-stream": _ANYTHING}
    return {
        "summary": "Ask a model.",
        "parameters": [length],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": request}, "application/octet-stream": _ANYTHING},
        },
        "responses": _responses(answer, ASKED),
    }


def _pictures() -> Document:
    said = [
        {"name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 999999}},
        {"name": "members", "in": "query", "schema": {"enum": ["true", "false"]}},
    ]
    kinds = ("image/jpeg", "image/png", "image/webp")
    form = {"schema": {"type": "object", "properties": {"picture": {"type": "string", "format": "binary"}}}}
    return {
        "summary": "Ask about pictures: class names with probabilities.",
        "parameters": said,
        "requestBody": {
            "required": True,
            "content": {**dict.fromkeys(kinds, _ANYTHING), "multipart/form-data": form},
        },
        "responses": _responses({_JSON: {"schema": _PREDICTIONS}}, ASKED),
    }


def _get(summary: str, kind: str = _JSON) -> Document:
    schema: Document = {"schema": {"type": "object" if kind == _JSON else "string"}}
    return {"summary": summary, "responses": _responses({kind: schema}, ANY)}


def _index() -> Document:
    fields = ("name", "version", "state", "reason")
    listed = {"type": "object", "required": fields, "properties": {field: {"type": "string"} for field in fields}}
    answer = {_JSON: {"schema": {"type": "array", "items": listed}}}
    return {"summary": "The models there are.", "responses": _responses(answer, ANY)}


def _responses(content: Document, refusals: Sequence[str]) -> Document:
    refused = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    answered: Document = {"description": "The answer.", **({"content": content} if content else {})}
    return {"200": answered, **{s: {"description": WORDS[s], "content": refused} for s in sorted(set(refusals))}}
