"""Encoding of Open Inference Protocol v2 responses: from an answer to bytes. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.server.http_errors import HttpError
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.signature import ModelSignature

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer


STRING, NUMBER = 32, 12
"""Approximate bytes of a class name and of a number in JSON."""
LONG = 1 << 14
"""Elements that are encoded as JSON at once."""


def output_tensor(
    output: RequestedOutput, answer: Answer, signature: ModelSignature
) -> NDArray[np.float32] | list[str]:
    """Return the numbers of a FP32 output, or the strings of a BYTES output, samples first."""
    if output.name == signature.predictions:
        return classification_strings(answer.predictions, output.top, signature) if output.top else answer.predictions
    if output.name in signature.kind.outputs:
        labels = signature.kind.labels(answer.predictions, signature.task, signature.thresholds)
        assert labels is not None
        return labels
    if output.name == "spread":
        assert answer.std is not None
        return answer.std
    if output.name == "depth":
        depth = len(answer.members) if answer.members_evaluated is None else answer.members_evaluated
        return np.full(len(answer.predictions), depth, np.float32)
    assert answer.member_predictions is not None
    return answer.member_predictions.swapaxes(0, 1)


def tensor_header(output: RequestedOutput, tensor: NDArray[np.float32] | list[str]) -> dict[str, Any]:
    """Return the name, datatype and shape of an output."""
    shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [len(tensor)]
    if output.top:
        return {"name": output.name, "datatype": "BYTES", "shape": [len(tensor) // output.top, output.top]}
    return {"name": output.name, "datatype": "FP32" if isinstance(tensor, np.ndarray) else "BYTES", "shape": shape}


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

    Raises HttpError (413) for more than `most`.
    """
    samples = len(request.images)
    total = 0
    for output in request.outputs:
        if signature.datatype_of(output.name) == "BYTES" or output.top:
            total += samples * (output.top or signature.labels_per_sample) * STRING
        else:
            numbers = math.prod(max(1, n) for n in signature.output_shape(output.name))
            total += samples * numbers * (4 if output.binary else NUMBER)
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


def tensor_to_bytes(tensor: NDArray[np.float32] | list[str]) -> bytes:
    """Encode a tensor's elements, row by row, little-endian."""
    return strings_to_bytes(tensor) if isinstance(tensor, list) else np.ascontiguousarray(tensor, "<f4").tobytes()


def response_parameters(answer: Answer) -> dict[str, bool | float | str]:
    """Return the parameters of a response: `partial` and its `members` if some are missing, and for a cascade
    `members_asked`, the mean number of evaluated members per sample."""
    parameters: dict[str, bool | float | str] = {}
    if answer.partial:
        parameters |= {"partial": True, "members": ",".join(answer.members)}
    if answer.members_evaluated is not None and len(answer.members_evaluated):
        parameters["members_asked"] = float(answer.members_evaluated.mean())
    return parameters


_EMPTY_DATA = b'"data":[]'
"""Placeholder for the elements of a long tensor; cannot occur inside a JSON string."""


def _insert_elements(head: bytes, tensors: Sequence[NDArray[np.float32] | list[str]]) -> bytearray:
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
    long: list[NDArray[np.float32] | list[str]] = []
    tensors: dict[tuple[str, int], NDArray[np.float32] | list[str]] = {}
    for output in request.outputs:
        key = (output.name, output.top)
        if key not in tensors:
            tensors[key] = output_tensor(output, answer, signature)
        tensor = tensors[key]
        document = tensor_header(output, tensor)
        if not output.binary:
            flat = tensor if isinstance(tensor, list) else np.ascontiguousarray(tensor).reshape(-1)
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
    if parameters := response_parameters(answer):
        response["parameters"] = parameters
    written = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    head = _insert_elements(written, long) if long else written
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)
