"""Image upload endpoint: one picture as the body, or several as multipart form data, predicted as one request."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Scope

from ripieno.data.prediction_inputs import accepts_images, load_image, load_pixels
from ripieno.errors import DataError
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.limits import Limits, Permit
from ripieno.server.mask_document import mask_document
from ripieno.server.models import Model
from ripieno.server.prediction_document import predict_document, read_options
from ripieno.types import Input

FORMATS = ("JPEG", "PNG", "WEBP")
"""Supported formats: their headers give the size before any pixel is decoded."""
SCANS, SCANNED = 100, 12
"""Maximum scans of a progressive JPEG, and maximum pixels of all its scans as a multiple of the limit of one picture:
encoders write about ten scans, and each covers every pixel."""
PARSED = 1 << 18
"""Bytes of a form that are parsed at once, before the event loop runs other tasks."""
DECODERS = ThreadPoolExecutor(2, thread_name_prefix="ripieno-pictures")
"""Decodes two pictures at a time in total, because each may take some bytes for every allowed pixel."""


async def answer(scope: Scope, body: bytes | bytearray, model: Model, limits: Limits, permit: Permit) -> dict[str, Any]:
    """Return the JSON response to an upload; `?top=3` limits the classes, `?members=true` adds those of members.

    For masks, `?resize=true` shrinks large pictures, and `?overlap=0.5` sets the overlap of their tiles.
    Raises HttpError for invalid pictures, for too many pictures, and for errors of the engine.
    """
    options = read_options(scope["query_string"], model.signature)
    pictures = await _pictures(dict(scope["headers"]), body, limits)
    has_masks = model.signature.kind.is_pixelwise
    decode = picture_to_pixels if has_masks else picture_to_sample

    async def decoded() -> AsyncIterator[tuple[str, NDArray[np.generic]]]:
        for name, data in pictures:
            call = functools.partial(decode, data, name, model.signature.input, limits.pixels)
            yield name, await asyncio.get_running_loop().run_in_executor(DECODERS, call)

    if has_masks:
        return await mask_document(model, decoded(), options, limits, permit)
    try:
        async with asyncio.timeout(limits.timeout):
            samples = [sample async for _, sample in decoded()]
    except TimeoutError:
        raise HttpError(504, f"Timeout: pictures not decoded within {limits.timeout:g} s. Send fewer.") from None
    names = [{"picture": name} for name, _ in pictures]
    return await predict_document(model, np.stack(samples), names, options, limits)


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
    return _decode(data, name, wanted, most_pixels, load_image)


def picture_to_pixels(data: bytes | bytearray, name: str, wanted: Input, most_pixels: int) -> NDArray[np.generic]:
    """Decode one picture at its own size, with the channels and dtype of `wanted`. Raises as `picture_to_sample`."""
    return _decode(data, name, wanted, most_pixels, load_pixels)


def _decode(
    data: bytes | bytearray,
    name: str,
    wanted: Input,
    most_pixels: int,
    load: Callable[[IO[bytes], Input], NDArray[np.generic]],
) -> NDArray[np.generic]:
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
        return load(io.BytesIO(data), wanted)
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
