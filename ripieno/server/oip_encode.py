"""The Open Inference Protocol v2, outwards: what a model said becomes the bytes of a response. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.server.http_errors import HttpError
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.signature import ModelSignature, datatype_of

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer


STRING, NUMBER = 32, 12
"""Bytes that a class in words and a number in JSON take, about."""
LONG = 1 << 14
"""Elements that are written as JSON at once."""


def output_tensor(
    wanted: RequestedOutput, answer: Answer, signature: ModelSignature
) -> NDArray[np.float32] | list[str]:
    """The numbers of a FP32 output, or the strings of a BYTES output, samples first."""
    if wanted.name == "label":
        return [signature.classes[i] for i in answer.probabilities.argmax(axis=1)]
    if wanted.name == "probabilities":
        return (
            classification_strings(answer.probabilities, wanted.top, signature) if wanted.top else answer.probabilities
        )
    if wanted.name == "spread":
        assert answer.spread is not None
        return answer.spread
    if wanted.name == "depth":
        asked = len(answer.members) if answer.depth is None else answer.depth
        return np.full(len(answer.probabilities), asked, np.float32)
    assert answer.each is not None
    return answer.each.transpose(1, 0, 2)


def classification_strings(probabilities: NDArray[np.float32], top: int, signature: ModelSignature) -> list[str]:
    """The `top` best classes of each sample as "value:index:name", best first: Triton's classification extension."""
    said: list[str] = []
    rows = max(1, LONG // probabilities.shape[1])  # by pieces: NumPy holds the interpreter's lock over each
    for at in range(0, len(probabilities), rows):
        piece = probabilities[at : at + rows]
        order = np.argsort(-piece, axis=1, kind="stable")[:, :top]
        values = np.take_along_axis(piece, order, axis=1)
        pairs = zip(values.ravel().tolist(), order.ravel().tolist(), strict=True)
        said += [f"{value:f}:{i}:{signature.classes[i]}" for value, i in pairs]
    return said


def size_of(request: InferenceRequest, signature: ModelSignature) -> int:
    """About how many bytes the answer to `request` will take in memory and on the wire."""
    samples = len(request.images)
    total = 0
    for wanted in request.outputs:
        if wanted.name == "label" or wanted.top:
            total += samples * max(1, wanted.top) * STRING
        else:
            numbers = math.prod(max(1, n) for n in signature.output_shape(wanted.name))
            total += samples * numbers * (4 if wanted.binary else NUMBER)
    return total


def check_size(request: InferenceRequest, signature: ModelSignature, most: int) -> int:
    """`size_of`, if it is at most `most` bytes. Raises RefusedError (413) otherwise."""
    size = size_of(request, signature)
    if size > most:
        raise HttpError(
            413,
            f"The answer would take about {size} bytes, at most {most} are sent. Ask about fewer samples or outputs.",
        )
    return size


def strings_to_bytes(strings: Sequence[str]) -> bytes:
    """BYTES elements as the protocol lays them out: each a little-endian 4-byte length, then the text in UTF-8."""
    body = bytearray()
    for at in range(0, len(strings), LONG):  # by pieces: a join holds the interpreter's lock, and 80 bytes a part
        encoded = [s.encode() for s in strings[at : at + LONG]]
        body += b"".join([len(e).to_bytes(4, "little") + e for e in encoded])
    return bytes(body)


def tensor_to_bytes(tensor: NDArray[np.float32] | list[str]) -> bytes:
    """A tensor's elements, row by row, little-endian."""
    return strings_to_bytes(tensor) if isinstance(tensor, list) else np.ascontiguousarray(tensor, "<f4").tobytes()


def response_parameters(answer: Answer) -> dict[str, bool | float | str]:
    """Parameters of a response that is not simply the answer of all members: `partial` and which `members` are in it,
    of a cascade `members_asked` about a sample on average."""
    said: dict[str, bool | float | str] = {}
    if answer.partial:
        said |= {"partial": True, "members": ",".join(answer.members)}
    if answer.depth is not None and len(answer.depth):
        said["members_asked"] = float(answer.depth.mean())
    return said


_LATER = b'"data":[]'
"""What stands for the elements of a long tensor at first; a string in quotes cannot hold it."""


def _filled(head: bytes, tensors: Sequence[NDArray[np.float32] | list[str]]) -> bytearray:
    """`head` with the elements of long tensors in their places.

    They are written in place, for they are some times the size of what they say, and by pieces, since orjson holds the
    interpreter's lock while it writes one. Lists are empty afterwards.
    """
    import orjson

    body = bytearray()
    before, *rest = head.split(_LATER)
    for tensor, after in zip(tensors, rest, strict=True):  # each of one axis
        body += before + _LATER[:-1]
        for at in range(0, len(tensor), LONG):
            body += b"," if at else b""
            body += orjson.dumps(tensor[at : at + LONG], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        before = b"]" + after
    body += before
    for tensor in tensors:
        while isinstance(tensor, list) and tensor:  # freed at once they would hold the interpreter's lock for long
            del tensor[-LONG:]
    return body


def write_response(
    request: InferenceRequest, answer: Answer, signature: ModelSignature, version: str
) -> tuple[bytes | bytearray, int | None]:
    """The response's body, and the length of its JSON when raw tensors follow it (None when it is all JSON)."""
    import orjson

    samples = len(answer.probabilities)
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    long: list[NDArray[np.float32] | list[str]] = []
    tensors: dict[tuple[str, int], NDArray[np.float32] | list[str]] = {}
    for wanted in request.outputs:
        key = (wanted.name, wanted.top)
        if key not in tensors:
            tensors[key] = output_tensor(wanted, answer, signature)
        tensor = tensors[key]
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [samples]
        document: dict[str, Any] = {
            "name": wanted.name,
            "datatype": "BYTES" if wanted.top else datatype_of(wanted.name),
            "shape": [samples, wanted.top] if wanted.top else shape,
        }
        if not wanted.binary:
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
    if said := response_parameters(answer):
        response["parameters"] = said
    written = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    head = _filled(written, long) if long else written
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)
