"""Uploaded pictures: their bytes become a model's input, and its answer becomes words."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ripieno.data.prediction_inputs import accepts_images, load_image
from ripieno.errors import DataError
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.signature import ModelSignature
from ripieno.types import Input

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is decoded: of these, a header tells the size before any pixel is unpacked."""


SCANS, SCANNED = 100, 12
"""Most scans of a progressive JPEG, and pixels of all scans together in parts of what one picture may have: encoders
make about ten, and each goes over every pixel."""


def scans_of(data: bytes | bytearray) -> int:
    """Return how many scans a JPEG has, or some more: markers that begin one, wherever they stand."""
    return data.count(b"\xff\xda")


def picture_to_sample(data: bytes | bytearray, name: str, wanted: Input, most_pixels: int) -> NDArray[np.generic]:
    """One picture as a sample of `wanted.shape`, sized as training pictures are.

    Raises RefusedError: 413 for more than `most_pixels`, 415 for another format or a model that takes no pictures,
    400 for a broken one.
    """
    if not accepts_images(wanted):
        raise HttpError(
            415, f"the model takes {wanted.dtype} of shape {list(wanted.shape)}, not pictures: send tensors"
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > most_pixels:
                size = f"{picture.width} x {picture.height} pixels"
                raise HttpError(413, f"{name} has {size}, at most {most_pixels} are decoded: send it smaller")
            scans = scans_of(data) if data.startswith(b"\xff\xd8") else 1  # Pillow calls some JPEGs by other names
            if scans > SCANS or picture.width * picture.height * scans > SCANNED * most_pixels:
                raise HttpError(413, f"{name} has {scans} scans: save it again, as an ordinary JPEG")
        return load_image(io.BytesIO(data), wanted)
    except UnidentifiedImageError:
        raise HttpError(415, f"{name} is no picture that is read here: send {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise HttpError(413, f"{name} has too many pixels, at most {most_pixels} are decoded") from None
    except HttpError:
        raise
    except DataError as error:  # its depth or range is not that of the training pictures
        raise HttpError(415, f"{name}: {error}") from None
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        raise bad_request(f"{name} is a broken picture: {error}") from None


def describe_predictions(
    names: Sequence[str], answer: Answer, signature: ModelSignature, top: int
) -> list[dict[str, Any]]:
    """For each picture its label, the `top` classes with probabilities, and what the members said if known."""
    return [_words(name, row, answer, signature, top) for row, name in enumerate(names)]


def _words(name: str, row: int, answer: Answer, signature: ModelSignature, top: int) -> dict[str, Any]:
    probabilities = answer.probabilities[row]
    best = np.argsort(-probabilities, kind="stable")[:top]
    said: dict[str, Any] = {
        "picture": name,
        "label": signature.classes[best[0]],
        "probability": float(probabilities[best[0]]),
        "classes": {signature.classes[i]: float(probabilities[i]) for i in best},
    }
    if answer.spread is not None:
        said["spread"] = float(answer.spread[row])
    if answer.each is not None:
        said["members"] = [
            {
                "member": member,
                "label": signature.classes[int(vote[row].argmax())],
                "probability": float(vote[row].max()),
            }
            for member, vote in zip(answer.members, answer.each, strict=True)
        ]
    return said
