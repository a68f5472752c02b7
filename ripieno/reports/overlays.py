"""Overlays on the page: masks drawn over their images, in colours that the colour-blind tell apart."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.reports.mask_quality import HardMask, Masks
from ripieno.reports.thumbnails import picture_of
from ripieno.types import IGNORED, Dataset, Ints

PALETTE = (
    "#0000ff", "#ff5511", "#00ffcc", "#8833cc", "#eeee00", "#6699aa",
    "#882200", "#bbff88", "#bb99ff", "#770077", "#bb8866", "#333333",
)  # fmt: skip
"""Colours that differ by at least 30 in CIELAB, also with protanopia, deuteranopia and tritanopia."""
OTHERS = "other classes"
SHARE = 0.65
"""Share of a class's colour in its pixels; the rest is the image in grey."""
SIDE = 256
"""Maximum pixels of the longer side."""
BYTES = 1_200_000
"""Maximum total bytes of all overlays, as encoded in the page."""


@dataclass(frozen=True)
class Overlay:
    """A hard image: its row in the split, and its drawings."""

    row: int
    loss: float
    wrong: float
    """share of its counted pixels"""
    drawings: tuple[tuple[str, str], ...]
    """(`image`, `truth` or `prediction`, `data:` address)"""


@dataclass(frozen=True)
class Overlays:
    """Overlays of the hardest images, and the colours of the classes."""

    legend: tuple[tuple[str, str], ...]
    """(class, colour), the classes with the most pixels first"""
    images: tuple[Overlay, ...]


def draw_overlays(
    hardest: Sequence[HardMask], names: Sequence[str], dataset: Dataset | None, places: Mapping[int, int]
) -> Overlays:
    """Return the overlays of as many images as fit in `BYTES`; `places` are the data set's rows by row of the split.

    Without the image of a row, the masks alone are drawn.
    """
    pixels = np.zeros(IGNORED + 1, np.int64)
    for one in hardest:
        for mask in (one.truth, one.predicted):
            pixels += np.bincount(mask.reshape(-1), minlength=IGNORED + 1)
    legend, colours = class_colours(pixels[: len(names)], names)
    images: list[Overlay] = []
    left = BYTES
    for one in hardest:
        own = _drawings(one, colours, dataset, places.get(one.row))
        left -= sum(len(address) for _, address in own)
        if left < 0:
            break
        images.append(Overlay(one.row, one.loss, one.wrong, own))
    return Overlays(legend, tuple(images))


def class_colours(pixels: Ints, names: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], NDArray[np.uint8]]:
    """Return the legend, and red, green and blue of each class, (classes, 3), from its `pixels` (classes,).

    With more classes than colours, those with the fewest pixels share the last one.
    """
    order = np.argsort(-pixels, kind="stable")
    own = len(names) if len(names) <= len(PALETTE) else len(PALETTE) - 1
    legend = [(names[c], colour) for c, colour in zip(order[:own], PALETTE, strict=False) if pixels[c]]
    if pixels[order[own:]].any():
        legend.append((OTHERS, PALETTE[-1]))
    table = np.array([_red_green_blue(colour) for colour in PALETTE], np.uint8)
    colours = np.empty((len(names), 3), np.uint8)
    colours[order] = table[np.minimum(np.arange(len(names)), len(PALETTE) - 1)]
    return tuple(legend), colours


def _red_green_blue(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def _drawings(
    hard: HardMask, colours: NDArray[np.uint8], dataset: Dataset | None, place: int | None
) -> tuple[tuple[str, str], ...]:
    picture = None if dataset is None or place is None else picture_of(dataset, place)
    if picture is not None and picture.shape[:2] != hard.truth.shape:
        picture = None  # imported predictions of another size
    drawn = [] if picture is None else [("image", _address(picture))]
    for what, mask in (("truth", hard.truth), ("prediction", hard.predicted)):
        drawn.append((what, _address(overlay(mask, colours, picture))))
    return tuple(drawn)


def overlay(mask: Masks, colours: NDArray[np.uint8], picture: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return a mask in its `colours` (classes, 3) over a picture in grey, (height, width, 3).

    Ignored pixels have no colour. Without a picture they are white.
    """
    ground = np.full(mask.shape, 255.0) if picture is None else picture.astype(np.float64)
    grey = ground.mean(axis=-1) if ground.ndim == 3 else ground
    counted = mask != IGNORED
    share = np.where(counted, SHARE if picture is not None else 1.0, 0.0)[..., None]
    drawn: NDArray[Any] = share * colours[np.where(counted, mask, 0)] + (1 - share) * grey[..., None]
    return np.asarray(drawn.round().astype(np.uint8))


def _address(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
