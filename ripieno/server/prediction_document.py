"""Predictions as a JSON document for people: by the names of classes, labels or targets, one entry a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray

from ripieno.data.tiles import MOST_OVERLAP, OVERLAP, check_overlap
from ripieno.errors import DataError
from ripieno.server.event_loop import run_in_worker
from ripieno.server.http_errors import bad_request
from ripieno.server.limits import Limits
from ripieno.server.models import Model
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput, read_coverage
from ripieno.server.oip_encode import OutputTensor, check_size, output_tensor
from ripieno.server.signature import VERSION, ModelSignature
from ripieno.tasks.action_rules import actions_of
from ripieno.tasks.uncertainty_outputs import COVERAGE_OUTPUTS

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer


TOP = 5
"""Default number of classes in the entry of a sample; a mask has all of its own."""


class DocumentOptions(NamedTuple):
    """Contents of a document."""

    top: int
    """number of classes, the best ones"""
    members: bool
    """whether the predictions of the members and their spread are in it"""
    uncertainty: tuple[str, ...] = ()
    """outputs of `UncertaintyOutputs` that are in it"""
    coverage: float | None = None
    """level of the set or the interval; None: the first"""
    resize: bool = False
    """whether large pictures are shrunk for their masks instead of cut into tiles"""
    overlap: float = OVERLAP
    """share of a tile that its neighbour covers, too"""


def read_options(query: bytes, signature: ModelSignature) -> DocumentOptions:
    """Return the options in the query of a URL. Raises HttpError (400) for invalid ones."""
    parameters = parse_qs(query.decode("latin-1"), max_num_fields=8) if query.count(b"&") < 8 else {}
    usual = len(signature.task.names) if signature.kind.is_pixelwise else TOP
    top = parameters.get("top", [str(usual)])[-1]
    if not top.isdecimal() or len(top) > 6 or int(top) < 1:
        raise bad_request(f"top is {top[:20]!r}, must be a number of classes")
    members, resize, uncertain = (_read_switch(parameters, name) for name in ("members", "resize", "uncertainty"))
    for name, asked in (("members", members), ("uncertainty", uncertain)):
        if asked and signature.uncertainty is None:
            raise bad_request(f"{signature.name} is a single member. Send {name}=true to the ensemble.")
    if not signature.kind.is_pixelwise and (resize or "overlap" in parameters):
        option = "resize" if resize else "overlap"
        raise bad_request(
            f"{option} is for segmentations, but {signature.name} is of a {signature.task.kind}. Leave it out."
        )
    coverage = read_coverage(parameters.get("coverage", [None])[-1], signature)
    known = signature.uncertainty.names if signature.uncertainty else ()
    wanted = [name for name in known if uncertain or (coverage is not None and name in COVERAGE_OUTPUTS)]
    overlap = OVERLAP
    if "overlap" in parameters:
        try:
            overlap = float(parameters["overlap"][-1])
            check_overlap(overlap)
        except (ValueError, DataError):
            raise bad_request(
                f"overlap is {parameters['overlap'][-1][:20]!r}, must be a share of a tile, 0 to {MOST_OVERLAP:g}"
            ) from None
    top_classes = min(int(top), len(signature.task.names))
    return DocumentOptions(top_classes, members, tuple(wanted), coverage, resize, overlap)


def _read_switch(parameters: Mapping[str, Sequence[str]], name: str) -> bool:
    """Return a parameter that is true or false; absent, it is false. Raises HttpError (400) for other values."""
    value = parameters.get(name, ["false"])[-1]
    if value not in ("true", "false"):
        raise bad_request(f"{name} is {value[:20]!r}, must be true or false")
    return value == "true"


async def predict_document(
    model: Model,
    samples: NDArray[np.generic],
    names: Sequence[Mapping[str, Any]],
    options: DocumentOptions,
    limits: Limits,
) -> dict[str, Any]:
    """Predict `samples` (samples, *input.shape) and return the document; `names` begin the entries of the samples.

    Raises HttpError for too large a response, and for errors of the engine.
    """
    signature = model.signature
    outputs = (signature.predictions, *(("spread", "members") if options.members else ()), *options.uncertainty)
    request = InferenceRequest(samples, tuple(RequestedOutput(o) for o in outputs), coverage=options.coverage)
    size = check_size(request, signature, limits.reply)
    answer = await model.answer(request, limits.timeout)

    def described() -> list[dict[str, Any]]:
        found = {o: output_tensor(RequestedOutput(o), answer, signature, options.coverage) for o in options.uncertainty}
        return [
            {**name, **_describe(i, answer, signature, options), **_describe_uncertainty(i, found, signature)}
            for i, name in enumerate(names)
        ]

    document: dict[str, Any] = {
        "model_name": signature.name,
        "model_version": VERSION,
        "predictions": await run_in_worker(size, described),
    }
    if signature.uncertainty and not set(signature.uncertainty.covered).isdisjoint(options.uncertainty):
        document["coverage"] = signature.uncertainty.coverage(options.coverage).level
    if answer.partial:
        document["partial"] = True
    return document


def _describe(row: int, answer: Answer, signature: ModelSignature, options: DocumentOptions) -> dict[str, Any]:
    """Return the prediction for a sample, with spread and predictions of the members if they are wanted."""
    document = _prediction(answer.predictions[row], signature, options.top)
    if options.members and answer.std is not None:
        spread = answer.std[row]
        document["spread"] = _by_name(spread, signature) if spread.ndim else float(spread)
    if answer.member_predictions is not None:
        document["members"] = [
            {"member": member, **_prediction(own[row], signature, 0)}
            for member, own in zip(answer.members, answer.member_predictions, strict=True)
        ]
    return document


def _describe_uncertainty(row: int, found: Mapping[str, OutputTensor], signature: ModelSignature) -> dict[str, Any]:
    """Return the numbers of a sample by the names of their outputs, and the names in its prediction set."""
    document: dict[str, Any] = {}
    for output, tensor in found.items():
        value = np.asarray(tensor[row])
        if output == "prediction_set":
            document[output] = [signature.task.names[i] for i in np.flatnonzero(value)]
        else:
            document[output] = _by_name(value, signature) if value.ndim else value.item()
    return document


def _prediction(numbers: NDArray[np.float32], signature: ModelSignature, top: int) -> dict[str, Any]:
    """Return a class with its probability and the `top` classes; of other tasks the labels and all numbers by name."""
    if signature.acts:
        action = actions_of(numbers[None], signature.task)[0]
        return {"action": action.tolist(), signature.predictions: _by_name(numbers, signature)}
    labels = signature.kind.labels(numbers[None], signature.task, signature.thresholds)
    document: dict[str, Any] = {} if labels is None else {signature.kind.outputs[1]: labels[0]}
    if not signature.ranks:
        return {**document, signature.predictions: _by_name(numbers, signature)}
    document["probability"] = float(numbers.max())
    if top:
        best = np.argsort(-numbers, kind="stable")[:top]
        document["classes"] = _by_name(numbers, signature, best.tolist())
    return document


def _by_name(
    numbers: NDArray[np.float32], signature: ModelSignature, chosen: Sequence[int] | None = None
) -> dict[str, float]:
    """Return numbers by the names of the task's outputs; those `chosen`, by default all."""
    names = signature.task.names
    return {names[i]: float(numbers[i]) for i in (range(len(names)) if chosen is None else chosen)}
