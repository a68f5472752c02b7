"""Images to predict: a file, a folder of files or an array, brought to a member's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno import files
from ripieno.errors import DataError
from ripieno.types import Input


def read_inputs(source: Path, wanted: Input) -> tuple[list[str], NDArray[Any]]:
    """Names and images (samples, *wanted.shape) of `source`: an image, a folder of images (searched whole) or a .npy.

    Images are converted to the channels wanted and resized when their size differs.
    Raises DataError naming the file that cannot be read or does not fit.
    """
    if source.suffix == ".npy":
        array = files.read_array(source)
        if array.ndim == len(wanted.shape):
            array = array[None]
        if array.shape[1:] != wanted.shape:
            raise DataError(f"{source} has shape {array.shape}, must be (samples, {', '.join(map(str, wanted.shape))})")
        return [f"{source.name}[{i}]" for i in range(len(array))], np.asarray(array)
    if not source.exists():
        raise DataError(f"{source} does not exist: give an image, a folder of images or a .npy file")
    Image.init()
    known = set(Image.registered_extensions())
    paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in known) if source.is_dir() else [source]
    if not paths:
        raise DataError(f"{source} holds no images: give an image, a folder of images or a .npy file")
    return [str(p.relative_to(source)) if source.is_dir() else p.name for p in paths], np.stack(
        [_read(p, wanted) for p in paths]
    )


def _read(path: Path, wanted: Input) -> NDArray[Any]:
    height, width, channels = wanted.shape
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
            if image.size != (width, height):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
    return np.asarray(image, dtype=wanted.dtype).reshape(wanted.shape)
