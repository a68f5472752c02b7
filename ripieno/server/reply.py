"""The Open Inference Protocol v2, outwards: what a model said becomes the bytes of a response. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno.server.codec import Bytes, Request, Wanted
from ripieno.server.signature import Signature, datatype_of

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer


def output_tensor(wanted: Wanted, answer: Answer, signature: Signature) -> NDArray[np.float32] | list[str]:
    """The numbers of a FP32 output, or the strings of a BYTES output, samples first."""
    if wanted.name == "label":
        return [signature.classes[i] for i in answer.probabilities.argmax(axis=1)]
    if wanted.name == "probabilities":
        return top_classes(answer.probabilities, wanted.top, signature) if wanted.top else answer.probabilities
    if wanted.name == "spread":
        assert answer.spread is not None
        return answer.spread
    if wanted.name == "depth":
        asked = len(answer.members) if answer.depth is None else answer.depth
        return np.full(len(answer.probabilities), asked, np.float32)
    assert answer.each is not None
    return answer.each.transpose(1, 0, 2)


def top_classes(probabilities: NDArray[np.float32], top: int, signature: Signature) -> list[str]:
    """The `top` best classes of each sample as "value:index:name", best first: Triton's classification extension."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    pairs = zip(probabilities, order, strict=True)
    return [f"{row[i]:f}:{i}:{signature.classes[i]}" for row, best in pairs for i in best]


def strings_to_bytes(strings: Sequence[str]) -> bytes:
    """BYTES elements as the protocol lays them out: each a little-endian 4-byte length, then the text in UTF-8."""
    encoded = [s.encode() for s in strings]
    return b"".join(len(e).to_bytes(4, "little") + e for e in encoded)


def tensor_to_bytes(tensor: NDArray[np.float32] | list[str]) -> bytes:
    """A tensor's elements, row by row, little-endian."""
    return strings_to_bytes(tensor) if isinstance(tensor, list) else np.ascontiguousarray(tensor, "<f4").tobytes()


def flags(answer: Answer) -> dict[str, bool | float | str]:
    """Parameters of a response that is not simply the answer of all members: `partial` and which `members` are in it,
    of a cascade `members_asked` about a sample on average."""
    said: dict[str, bool | float | str] = {}
    if answer.partial:
        said |= {"partial": True, "members": ",".join(answer.members)}
    if answer.depth is not None and len(answer.depth):
        said["members_asked"] = float(answer.depth.mean())
    return said


def write_response(
    request: Request, answer: Answer, signature: Signature, version: str
) -> tuple[list[Bytes], int | None]:
    """The response in pieces, and the length of its JSON when raw tensors follow it (None when it is all JSON)."""
    import orjson

    samples = len(answer.probabilities)
    outputs: list[dict[str, Any]] = []
    tail: list[Bytes] = []
    for wanted in request.outputs:
        tensor = output_tensor(wanted, answer, signature)
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [samples]
        document: dict[str, Any] = {
            "name": wanted.name,
            "datatype": "BYTES" if wanted.top else datatype_of(wanted.name),
            "shape": [samples, wanted.top] if wanted.top else shape,
        }
        if not wanted.binary:
            document["data"] = tensor if isinstance(tensor, list) else np.ascontiguousarray(tensor).reshape(-1)
        else:
            raw = tensor_to_bytes(tensor)
            document["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        outputs.append(document)
    response: dict[str, Any] = {"model_name": signature.name, "model_version": version, "outputs": outputs}
    if request.id:
        response["id"] = request.id
    if said := flags(answer):
        response["parameters"] = said
    head = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    return [head, *tail], len(head) if tail else None
