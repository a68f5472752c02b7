"""Encoding of Open Inference Protocol v2 responses: from an answer to bytes. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ripieno.server.http_errors import HttpError
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.signature import ModelSignature
from ripieno.tasks.action_rules import actions_of
from ripieno.tasks.pixels import most_likely

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer


OutputTensor: TypeAlias = NDArray[np.float32] | NDArray[np.uint8] | NDArray[np.bool_] | NDArray[np.int64] | list[str]
"""The numbers of an output, or its strings."""
WIRE_TYPES = {"FP32": "<f4", "UINT8": "u1", "BOOL": "?", "INT64": "<i8"}
"""NumPy's names of the datatypes of numbers and truth values, as they are sent."""
STRING, NUMBERS = 32, {"FP32": 12, "UINT8": 3, "BOOL": 6, "INT64": 6}
"""Approximate bytes of a class name, and of a number of each datatype, in JSON."""
_DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.bool_): "BOOL", np.dtype(np.int64): "INT64"}
"""Datatypes of outputs by their types; of others, FP32."""
LONG = 1 << 14
"""Elements that are encoded as JSON at once."""


def output_tensor(
    output: RequestedOutput, answer: Answer, signature: ModelSignature, coverage: float | None = None
) -> OutputTensor:
    """Return the numbers of an output, or the strings of a BYTES output, samples first.

    `coverage` is the level of sets and intervals, by default the first.
    """
    if output.name == signature.predictions:
        return classification_strings(answer.predictions, output.top, signature) if output.top else answer.predictions
    if signature.datatype_of(output.name) == "UINT8":
        return most_likely(answer.predictions)
    if output.name in signature.kind.outputs and signature.acts:
        return actions_of(answer.predictions, signature.task)
    if output.name in signature.kind.outputs:
        labels = signature.kind.labels(answer.predictions, signature.task, signature.thresholds)
        assert labels is not None
        return labels
    if signature.uncertainty and output.name in signature.uncertainty.names:
        return signature.uncertainty.compute(
            output.name, answer.predictions, spread=answer.std, disagreement=answer.disagreement, level=coverage
        )
    if output.name == "spread":
        assert answer.std is not None
        return answer.std
    if output.name == "depth":
        depth = len(answer.members) if answer.members_evaluated is None else answer.members_evaluated
        return np.full(len(answer.predictions), depth, np.float32)
    assert answer.member_predictions is not None
    return answer.member_predictions.swapaxes(0, 1)


def tensor_header(output: RequestedOutput, tensor: OutputTensor) -> dict[str, Any]:
    """Return the name, datatype and shape of an output."""
    if output.top:
        return {"name": output.name, "datatype": "BYTES", "shape": [len(tensor) // output.top, output.top]}
    if isinstance(tensor, list):
        return {"name": output.name, "datatype": "BYTES", "shape": [len(tensor)]}
    return {"name": output.name, "datatype": _datatype(tensor), "shape": list(tensor.shape)}


def _datatype(tensor: NDArray[Any]) -> str:
    return _DATATYPES.get(tensor.dtype, "FP32")


def classification_strings(probabilities: NDArray[np.float32], top: int, signature: ModelSignature) -> list[str]:
    """Return the `top` classes of each sample as "value:index:name", best first: Triton's classification extension."""
    strings: list[str] = []
    rows = max(1, LONG // probabilities.shape[1])  # in pieces, because NumPy keeps the interpreter's lock for each
    for at in range(0, len(probabilities), rows):
        piece = probabilities[at : at + rows]
        order = np.argsort(-piece, axis=1, kind="stable")[:, :top]
        values = np.take_along_axis(piece, order, axis=1)
        pairs = zip(values.ravel().tolist(), order.ravel().tolist(), strict=True)
        strings += [f"{value:f}:{i}:{signature.task.names[i]}" for value, i in pairs]
    return strings


def check_size(request: InferenceRequest, signature: ModelSignature, most: int) -> int:
    """Estimate the bytes of the response to `request`, in memory and in transit.

    It is at least the size of the predictions, which for masks is many times that of the response.
    Raises HttpError (413) for more than `most`.
    """
    samples = len(request.images)
    total = 0
    for output in request.outputs:
        datatype = signature.datatype_of(output.name)
        if datatype == "BYTES" or output.top:
            total += samples * (output.top or signature.labels_per_sample) * STRING
        else:
            numbers = math.prod(max(1, n) for n in signature.output_shape(output.name))
            each = np.dtype(WIRE_TYPES[datatype]).itemsize if output.binary else NUMBERS[datatype]
            total += samples * numbers * each
    if signature.kind.is_pixelwise:
        total = max(total, samples * 4 * math.prod(signature.task.output))
    if total > most:
        raise HttpError(
            413, f"The response would have about {total} bytes (limit {most}). Request fewer samples or outputs."
        )
    return total


def strings_to_bytes(strings: Sequence[str]) -> bytes:
    """Encode BYTES elements in the protocol's layout: a little-endian 4-byte length, then the text in UTF-8."""
    body = bytearray()
    for at in range(0, len(strings), LONG):  # in pieces: a join keeps the interpreter's lock, and takes 80 bytes a part
        encoded = [s.encode() for s in strings[at : at + LONG]]
        body += b"".join([len(e).to_bytes(4, "little") + e for e in encoded])
    return bytes(body)


def tensor_to_bytes(tensor: OutputTensor) -> bytes:
    """Encode a tensor's elements, row by row, little-endian."""
    if isinstance(tensor, list):
        return strings_to_bytes(tensor)
    return np.ascontiguousarray(tensor, WIRE_TYPES[_datatype(tensor)]).tobytes()


def response_parameters(
    request: InferenceRequest, answer: Answer, signature: ModelSignature
) -> dict[str, bool | float | str]:
    """Return the parameters of a response.

    They are the `coverage` of a set or an interval, `partial` and its `members` if some are missing, and for a cascade
    `members_asked`, the mean number of evaluated members per sample.
    """
    parameters: dict[str, bool | float | str] = {}
    if signature.uncertainty and not request.names.isdisjoint(signature.uncertainty.covered):
        parameters["coverage"] = signature.uncertainty.coverage(request.coverage).level
    if answer.partial:
        parameters |= {"partial": True, "members": ",".join(answer.members)}
    if answer.members_evaluated is not None and len(answer.members_evaluated):
        parameters["members_asked"] = float(answer.members_evaluated.mean())
    return parameters


_EMPTY_DATA = b'"data":[]'
"""Placeholder for the elements of a long tensor; cannot occur inside a JSON string."""


def _insert_elements(head: bytes, tensors: Sequence[OutputTensor]) -> bytearray:
    """Insert the elements of long tensors into `head`.

    They are appended to one buffer, because their text is several times as large as their values, and in pieces,
    because orjson keeps the interpreter's lock while it writes a piece. Lists are empty afterwards.
    """
    import orjson

    body = bytearray()
    before, *rest = head.split(_EMPTY_DATA)
    for tensor, after in zip(tensors, rest, strict=True):  # each of one axis
        body += before + _EMPTY_DATA[:-1]
        for at in range(0, len(tensor), LONG):
            body += b"," if at else b""
            body += orjson.dumps(tensor[at : at + LONG], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        before = b"]" + after
    body += before
    for tensor in tensors:
        while isinstance(tensor, list) and tensor:  # freeing all at once would keep the interpreter's lock for long
            del tensor[-LONG:]
    return body


def write_response(
    request: InferenceRequest, answer: Answer, signature: ModelSignature, version: str
) -> tuple[bytes | bytearray, int | None]:
    """Encode the response's body; return it with the length of its JSON (None when no raw tensors follow)."""
    import orjson

    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    long: list[OutputTensor] = []
    tensors: dict[tuple[str, int], OutputTensor] = {}
    for output in request.outputs:
        key = (output.name, output.top)
        if key not in tensors:
            tensors[key] = output_tensor(output, answer, signature, request.coverage)
        tensor = tensors[key]
        document = tensor_header(output, tensor)
        if not output.binary:
            flat: Any = tensor if isinstance(tensor, list) else np.ascontiguousarray(tensor).reshape(-1)
            document["data"] = flat if len(flat) <= LONG else []
            if len(flat) > LONG:
                long.append(flat)
        else:
            raw = tensor_to_bytes(tensor)
            document["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        outputs.append(document)
    response: dict[str, Any] = {"model_name": signature.name, "model_version": version, "outputs": outputs}
    if request.id:
        response["id"] = request.id
    if parameters := response_parameters(request, answer, signature):
        response["parameters"] = parameters
    written = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    head = _insert_elements(written, long) if long else written
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)
