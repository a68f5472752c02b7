"""Thumbnails of a data set's images, embedded in the page; limited in number and bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Dataset

SIDE = 64
"""Maximum pixels of the longer side."""
NUMBER = 240
"""Maximum number of thumbnails."""
BYTES = 1_000_000
"""Maximum total bytes of all thumbnails, as encoded in the page."""


def pick(wanted: Sequence[Iterable[int]], most: int = NUMBER) -> tuple[int, ...]:
    """Return the rows to draw: the first of each list, then the second of each, until there are `most`."""
    queues = [list(rows) for rows in wanted]
    picked: dict[int, None] = {}
    for rank in range(max(map(len, queues), default=0)):
        for queue in queues:
            if rank < len(queue) and len(picked) < most:
                picked.setdefault(queue[rank])
    return tuple(picked)


def thumbnails(dataset: Dataset, rows: Sequence[int], most: int = BYTES) -> dict[int, str]:
    """Return thumbnails of the first rows as `data:` addresses, as many as fit in `most` bytes."""
    addresses: dict[int, str] = {}
    left = most
    for row in rows:
        address = _address(picture_of(dataset, row))
        left -= len(address)
        if left < 0:
            break
        addresses[row] = address
    return addresses


def picture_of(dataset: Dataset, row: int) -> NDArray[np.uint8]:
    """Return an image with any number of channels as grey (height, width) or RGB (height, width, 3)."""
    image = np.asarray(dataset.inputs[row])
    image = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    if image.dtype != np.uint8:
        # map the mean +- 2.5 standard deviations to black..white: floats need not be in 0..1
        channels = image.shape[-1]
        mean, std = np.array(dataset.mean[:channels]), np.array(dataset.std[:channels])
        image = np.clip(np.nan_to_num((image - mean) / (5 * std) + 0.5), 0, 1) * 255
    return np.asarray(image if image.shape[-1] == 3 else image[..., 0]).astype(np.uint8)


def _address(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    # small images are kept exactly; WebP would blur their details
    if max(picture.size) <= 32:
        picture.save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    picture.save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
