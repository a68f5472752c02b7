"""Pictures as Pillow reads them: what a file's header says, its pixels, and pixels at one size.

Sizing keeps the aspect ratio: the longer side becomes `size` pixels, and the shorter is filled up evenly on both ends
by repeating its border, so that a white or a black background goes on. Augmentation pads the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Kind = Literal["grey", "colour", "deep"]
"""One channel of 8 bits, three of 8 bits, or one of 16 bits, 32 bits or floating point."""

MODES: dict[Kind, str] = {"grey": "L", "colour": "RGB", "deep": "F"}
"""Pillow's name for what each kind is decoded to."""

_TURNED = {"JPEG", "MPO", "WEBP"}
"""Formats in which cameras note how they were held; Pillow turns TIFF by itself."""


@dataclass(frozen=True)
class Header:
    """What a picture's file says before it is decoded: upright width and height in pixels, and kind."""

    width: int
    height: int
    kind: Kind


def suffixes() -> set[str]:
    """Suffixes, with the dot, of the formats Pillow can read here."""
    registered = Image.registered_extensions()  # loads all of Pillow's plugins
    return {suffix for suffix, name in registered.items() if name in Image.OPEN}


def read_header(path: Path) -> Header:
    """Header of a picture, without decoding it. Raises whatever Pillow's plugins raise for a broken one."""
    with Image.open(path) as image:
        width, height = image.size
        if image.format in _TURNED and image.getexif().get(0x0112, 1) >= 5:  # orientation: lies on its side
            width, height = height, width
        return Header(width, height, _kind(image))


def read_pixels(path: Path | IO[bytes], kind: Kind, size: int | None) -> NDArray[Any]:
    """Pixels (height, width, channels) of a picture, upright: uint8, or float32 for deep ones.

    Transparent pictures are laid on white. Raises whatever Pillow's plugins raise for a broken one.
    """
    with Image.open(path) as image:
        if size is not None:
            image.draft(None, (size, size))  # lets a JPEG decode at a half, quarter or eighth of its size
        if image.format in _TURNED:
            ImageOps.exif_transpose(image, in_place=True)
        pixels = _sized(_on_white(image).convert(MODES[kind]), size)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def flattened(image: Image.Image) -> NDArray[Any]:
    """Pixels (height, width, channels) of a picture that is open, in its own kind, transparent ones laid on white."""
    pixels = np.asarray(_on_white(image).convert(MODES[_kind(image)]))
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def sized(images: NDArray[Any], size: int) -> NDArray[Any]:
    """Images NHWC (uint8 or float32) at `size` x `size` pixels, channel by channel."""
    result = np.empty((len(images), size, size, images.shape[3]), images.dtype)
    for i, image in enumerate(images):
        for channel in range(images.shape[3]):
            result[i, :, :, channel] = _sized(Image.fromarray(np.ascontiguousarray(image[..., channel])), size)
    return result


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _sized(image: Image.Image, size: int | None) -> NDArray[Any]:
    if size is None or image.size == (size, size):
        return np.asarray(image)
    scale = size / max(image.size)
    width, height = (max(1, round(n * scale)) for n in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    x, y = size - width, size - height
    margins = [(y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)]
    return np.pad(pixels, margins[: pixels.ndim], mode="edge")


def _kind(image: Image.Image) -> Kind:
    if image.mode in ("1", "L", "LA", "La"):
        return "grey"
    if image.mode == "F" or image.mode.startswith("I"):
        return "deep"
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return "grey" if (palette == palette[:, :1]).all() else "colour"
    return "colour"
