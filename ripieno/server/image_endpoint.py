"""Image upload endpoint: one picture as the body, or several as multipart form data, predicted as one request."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Scope

from ripieno.data.prediction_inputs import accepts_images, load_image
from ripieno.errors import DataError
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits
from ripieno.server.models import Model
from ripieno.server.oip_decode import InferenceRequest, RequestedOutput
from ripieno.server.signature import VERSION, ModelSignature
from ripieno.types import Input

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

FORMATS = ("JPEG", "PNG", "WEBP")
"""Supported formats: their headers give the size before any pixel is decoded."""
SCANS, SCANNED = 100, 12
"""Maximum scans of a progressive JPEG, and maximum pixels of all its scans as a multiple of the limit of one picture:
encoders write about ten scans, and each covers every pixel."""
PARSED = 1 << 18
"""Bytes of a form that are parsed at once, before the event loop runs other tasks."""
DECODERS = ThreadPoolExecutor(2, thread_name_prefix="ripieno-pictures")
"""Decodes two pictures at a time in total, because each may take some bytes for every allowed pixel."""


async def answer(scope: Scope, body: bytes | bytearray, model: Model, limits: Limits) -> dict[str, Any]:
    """Return the JSON response to an upload; `?top=3` limits the classes, `?members=true` adds those of members.

    Raises HttpError for invalid pictures, for too many pictures, and for errors of the engine.
    """
    top, members = _options(scope["query_string"], model)
    pictures = await _pictures(dict(scope["headers"]), body, limits)
    samples = []
    try:
        async with asyncio.timeout(limits.timeout):
            for name, data in pictures:
                decode = functools.partial(picture_to_sample, data, name, model.signature.input, limits.pixels)
                samples.append(await asyncio.get_running_loop().run_in_executor(DECODERS, decode))
    except TimeoutError:
        raise HttpError(504, f"Timeout: pictures not decoded within {limits.timeout:g} s. Send fewer.") from None
    outputs = (model.signature.predictions, *(("spread", "members") if members else ()))
    prediction = await model.answer(
        InferenceRequest(np.stack(samples), tuple(RequestedOutput(o) for o in outputs)), limits.timeout
    )
    document: dict[str, Any] = {
        "model_name": model.signature.name,
        "model_version": VERSION,
        "predictions": [
            _describe(name, row, prediction, model.signature, top) for row, (name, _) in enumerate(pictures)
        ],
    }
    if prediction.partial:
        document["partial"] = True
    return document


def _options(query: bytes, model: Model) -> tuple[int, bool]:
    parameters = parse_qs(query.decode("latin-1"), max_num_fields=8) if query.count(b"&") < 8 else {}
    top = parameters.get("top", ["5"])[-1]
    members = parameters.get("members", ["false"])[-1]
    if not top.isdecimal() or len(top) > 6 or int(top) < 1:
        raise bad_request(f"top is {top[:20]!r}, must be a number of classes")
    if members not in ("true", "false"):
        raise bad_request(f"members is {members[:20]!r}, must be true or false")
    if members == "true" and "members" not in model.signature.outputs:
        raise bad_request(f"{model.signature.name} is a single member. Send members=true to the ensemble.")
    return min(int(top), len(model.signature.task.names)), members == "true"


async def _pictures(
    headers: Mapping[bytes, bytes], body: bytes | bytearray, limits: Limits
) -> Sequence[tuple[str, bytes | bytearray]]:
    """Return the names and bytes of the pictures in a body."""
    kind = headers.get(b"content-type", b"")
    if not kind.lower().startswith(b"multipart/form-data"):
        if not body:
            raise bad_request("The body is empty. Send a picture, or pictures as multipart/form-data.")
        return [("picture", body)]

    async def stream() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(body), PARSED):
            yield bytes(body[at : at + PARSED])
            await asyncio.sleep(0)

    parser = MultiPartParser(Headers({"content-type": kind.decode("latin-1")}), stream(), max_files=limits.pictures)
    parser.spool_max_size = limits.body  # never spool to disk: the body is in memory already
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeDecodeError, KeyError) as error:
        raise bad_request(f"Cannot parse the form: {getattr(error, 'message', error)}") from None
    files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
    if not files:
        raise HttpError(400, "The form contains no file. Send pictures as files.")
    pictures = [(file.filename or "picture", await file.read()) for file in files]
    await form.close()
    return pictures


def picture_to_sample(data: bytes | bytearray, name: str, wanted: Input, most_pixels: int) -> NDArray[np.generic]:
    """Decode one picture to a sample of `wanted.shape`, resized as training pictures are.

    Raises HttpError: 413 for more than `most_pixels`, 415 for another format or a model without picture input, 400 for
    a corrupt picture.
    """
    if not accepts_images(wanted):
        raise HttpError(
            415, f"The model's input is {wanted.dtype} of shape {list(wanted.shape)}, not a picture. Send tensors."
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > most_pixels:
                size = f"{picture.width} x {picture.height} pixels"
                raise HttpError(413, f"{name} has {size} (limit {most_pixels}). Send a smaller picture.")
            # an upper bound of a JPEG's scans: the start markers anywhere; Pillow reports some JPEGs as other formats
            scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 1
            if scans > SCANS or picture.width * picture.height * scans > SCANNED * most_pixels:
                raise HttpError(413, f"{name} has too many scans ({scans}). Save it as a baseline JPEG.")
        return load_image(io.BytesIO(data), wanted)
    except UnidentifiedImageError:
        raise HttpError(415, f"{name} is not a picture in a supported format. Send {', '.join(FORMATS)}.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise HttpError(413, f"{name} has too many pixels (limit {most_pixels}).") from None
    except HttpError:
        raise
    except DataError as error:  # its depth or range differs from the training pictures
        raise HttpError(415, f"{name}: {error}") from None
    except Exception as error:  # Pillow's plugins raise many exception types for corrupt files
        raise bad_request(f"Cannot decode {name}: {error}") from None


def _describe(name: str, row: int, answer: Answer, signature: ModelSignature, top: int) -> dict[str, Any]:
    """Return the prediction for a picture, with spread and predictions of the members if known."""
    document = {"picture": name, **_prediction(answer.predictions[row], signature, top)}
    if answer.std is not None:
        spread = answer.std[row]
        document["spread"] = _by_name(spread, signature) if spread.ndim else float(spread)
    if answer.member_predictions is not None:
        document["members"] = [
            {"member": member, **_prediction(own[row], signature, 0)}
            for member, own in zip(answer.members, answer.member_predictions, strict=True)
        ]
    return document


def _prediction(numbers: NDArray[np.float32], signature: ModelSignature, top: int) -> dict[str, Any]:
    """Return a class with its probability and the `top` classes; of other tasks the labels and all numbers by name."""
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
