"""Decoding of uploaded pictures to a model's input, and description of its predictions by class names."""

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
"""Supported formats: their headers give the size before any pixel is decoded."""


SCANS, SCANNED = 100, 12
"""Maximum scans of a progressive JPEG, and maximum pixels of all its scans as a multiple of the limit of one picture:
encoders write about ten scans, and each covers every pixel."""


def scans_of(data: bytes | bytearray) -> int:
    """Return an upper bound of a JPEG's scans: the number of start markers anywhere in the data."""
    return data.count(b"\xff\xda")


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
            scans = scans_of(data) if data.startswith(b"\xff\xd8") else 1  # Pillow reports some JPEGs as other formats
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


def describe_predictions(
    names: Sequence[str], answer: Answer, signature: ModelSignature, top: int
) -> list[dict[str, Any]]:
    """Return for each picture its label, the `top` classes with probabilities, and the members' votes if known."""
    return [_describe(name, row, answer, signature, top) for row, name in enumerate(names)]


def _describe(name: str, row: int, answer: Answer, signature: ModelSignature, top: int) -> dict[str, Any]:
    probabilities = answer.probabilities[row]
    best = np.argsort(-probabilities, kind="stable")[:top]
    document: dict[str, Any] = {
        "picture": name,
        "label": signature.classes[best[0]],
        "probability": float(probabilities[best[0]]),
        "classes": {signature.classes[i]: float(probabilities[i]) for i in best},
    }
    if answer.std is not None:
        document["spread"] = float(answer.std[row])
    if answer.member_predictions is not None:
        document["members"] = [
            {
                "member": member,
                "label": signature.classes[int(vote[row].argmax())],
                "probability": float(vote[row].max()),
            }
            for member, vote in zip(answer.members, answer.member_predictions, strict=True)
        ]
    return document
