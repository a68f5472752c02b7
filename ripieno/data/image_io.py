"""Picture input with Pillow: file headers, pixels, and pixels at one size.

A picture of 16 bits a pixel keeps them, and one of floats its floats; colour is read with 8 bits a channel.
Resizing keeps the aspect ratio: the longer side becomes `size` pixels, and the shorter side is padded evenly on both
ends by repeating its border, so that a white or black background continues. Augmentation pads the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno.errors import DataError

Kind = Literal["grey", "colour", "deep"]
"""One channel of 8 bits, three of 8 bits, or one of 16 bits, 32 bits or floating point."""
MODES: dict[Kind, str] = {"grey": "L", "colour": "RGB", "deep": "F"}
"""Pillow's name of the decoded mode, for each kind."""
Depth = Literal["8 bits", "16 bits", "32 bits", "floats"]
"""The format of a pixel's channel in a picture file."""
WHITE: dict[Depth, float] = {"8 bits": 255.0, "16 bits": 65535.0}
"""The value of white, where the depth determines it."""
_TURNED = {"JPEG", "MPO", "WEBP"}
"""Formats in which cameras note their orientation; Pillow rotates TIFF by itself."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes a picture of an EXIF orientation upright."""


@dataclass(frozen=True)
class Header:
    """Header of a picture file: upright height and width in pixels, kind and depth."""

    shape: tuple[int, int]
    kind: Kind
    depth: Depth
    reduced: bool = False
    """whether the file has 16 bits per colour channel, of which Pillow reads 8"""


def suffixes() -> set[str]:
    """Return the suffixes, with the dot, of the formats that Pillow can read here."""
    registered = Image.registered_extensions()  # loads all of Pillow's plugins
    return {suffix for suffix, name in registered.items() if name in Image.OPEN}


@contextmanager
def opened(source: Path | IO[bytes] | Image.Image) -> Iterator[Image.Image]:
    """Open a picture and read its header; a picture that is already open is left open.

    Raises DataError for too many pixels, and any exception of Pillow's plugins for a broken picture.
    """
    if isinstance(source, Image.Image):
        yield source
        return
    try:
        image = Image.open(source)
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(f"has more than {limit / 1e6:.0f} megapixels, which is too large; make it smaller") from error
    with image:
        yield image


def read_header(path: Path) -> Header:
    """Read the header of a picture without decoding it. Raises as `opened`."""
    with opened(path) as image:
        width, height = image.size
        if _orientation(image) >= 5:  # rotated by 90 degrees
            width, height = height, width
        depth = depth_of(image)
        reduced = depth == "8 bits" and any(";16" in mode for mode in raw_modes(image))
        return Header((height, width), _kind(image), depth, reduced)


def read_pixels(source: Path | IO[bytes] | Image.Image, kind: Kind, size: int | None) -> NDArray[Any]:
    """Read the pixels (height, width, channels) of a picture, upright: uint8, or float32 for deep ones.

    Transparent pictures get a white background. Raises as `opened`.
    """
    with opened(source) as image:
        if size is not None and image is not source:
            image.draft(None, (size, size))  # lets a JPEG decode at a half, quarter or eighth of its size
        turn = _TURNS.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
        pixels = _sized(_on_white(upright).convert(MODES[kind]), size)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def to_pixels(image: Image.Image) -> NDArray[Any]:
    """Return the pixels (height, width, channels) of an open picture, in its own kind, upright, on white."""
    return read_pixels(image, _kind(image), None)


def depth_of(image: Image.Image) -> Depth:
    """Return the depth of an open picture. Raises DataError for 16 bits of grey with alpha: Pillow would read 8."""
    if any(mode.startswith("LA;16") for mode in raw_modes(image)):
        raise DataError("has 16 bits of grey and an alpha channel, which cannot be read; remove the alpha channel")
    if image.mode == "F":
        return "floats"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return "16 bits"
    return "32 bits" if image.mode.startswith("I") else "8 bits"


def stretched(pixels: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """Resize pixels (height, width, channels), uint8 or float32, without keeping their aspect ratio."""
    if pixels.shape[:2] == (height, width):
        return pixels
    channels = [Image.fromarray(np.ascontiguousarray(pixels[..., i])) for i in range(pixels.shape[2])]
    resized = [np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels]
    return np.stack(resized, axis=-1)


def resize(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize images NHWC (uint8 or float32) to `size` x `size` pixels, channel by channel."""
    result = np.empty((len(images), size, size, images.shape[3]), images.dtype)
    for i, image in enumerate(images):
        for channel in range(images.shape[3]):
            result[i, :, :, channel] = _sized(Image.fromarray(np.ascontiguousarray(image[..., channel])), size)
    return result


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    if depth_of(image) != "8 bits":  # one grey is transparent
        pixels = np.asarray(image.convert("F")).copy()
        clear = image.info["transparency"]
        pixels[pixels == (clear if isinstance(clear, int) else -1)] = WHITE["16 bits"]
        return Image.fromarray(pixels)
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _sized(image: Image.Image, size: int | None) -> NDArray[Any]:
    if size is None or image.size == (size, size):
        return np.asarray(image)
    top, bottom, left, right = content_box((image.height, image.width), size)
    pixels = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    margins = [(top, size - bottom), (left, size - right), (0, 0)]
    return np.pad(pixels, margins[: pixels.ndim], mode="edge")


def content_box(shape: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """Return the place of a picture of `shape` (height, width) that is resized to a square of `size` pixels.

    The numbers are its first and last row, then its first and last column (exclusive); the rest is padding.
    """
    scale = size / max(shape)
    height, width = (max(1, round(n * scale)) for n in shape)
    top, left = (size - height) // 2, (size - width) // 2
    return top, top + height, left, left + width


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, where there is none or it cannot be read."""
    if image.format not in _TURNED:
        return 1
    try:
        found = image.getexif().get(0x0112, 1)
        return found if found in _TURNS else 1
    except Exception:  # any error of broken EXIF: the picture itself may be valid
        return 1


def raw_modes(image: Image.Image) -> list[str]:
    """Return Pillow's names of the pixel format in the file; empty after decoding."""
    arguments = [tile[3] for tile in getattr(image, "tile", ())]
    return [str(a if isinstance(a, str) else next(iter(a or ()), "")) for a in arguments]


def _kind(image: Image.Image) -> Kind:
    if image.mode in ("1", "L", "LA", "La"):
        return "grey"
    if image.mode == "F" or image.mode.startswith("I"):
        return "deep"
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return "grey" if (palette == palette[:, :1]).all() else "colour"
    return "colour"
