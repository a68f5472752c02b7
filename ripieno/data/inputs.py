"""Images to predict: a file, a folder of files or an array, brought to a member's input as training pictures are."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno import files
from ripieno.data.pictures import Kind, read_pixels, suffixes
from ripieno.data.walk import NO_IMAGE, Walk, shown
from ripieno.errors import DataError
from ripieno.types import Input

_KINDS: dict[tuple[str, int], Kind] = {("uint8", 1): "grey", ("uint8", 3): "colour", ("float32", 1): "deep"}


def takes_pictures(wanted: Input) -> bool:
    """Whether a picture file can be brought to `wanted`."""
    return len(wanted.shape) == 3 and (wanted.dtype, wanted.shape[2]) in _KINDS


def fit_picture(source: Path | IO[bytes], wanted: Input) -> NDArray[Any]:
    """A picture as one sample of `wanted` (which `takes_pictures`): square ones are sized as in training.

    For inputs that are not square pictures are stretched, as no training picture could be. Raises whatever Pillow's
    plugins raise for a broken file.
    """
    height, width, channels = wanted.shape
    pixels = read_pixels(source, _KINDS[wanted.dtype, channels], width if width == height else None)
    if pixels.shape != wanted.shape:
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).reshape(wanted.shape)
    return np.ascontiguousarray(pixels)


def read_inputs(source: Path, wanted: Input, notes: list[str] | None = None) -> tuple[list[str], NDArray[Any]]:
    """Names and images (samples, *wanted.shape) of `source`: an image, a folder of images (searched whole) or a .npy.

    A folder is searched as for training, and a note counts what was left out. Raises DataError naming the file that
    cannot be read or does not fit.
    """
    if source.suffix.lower() == ".npy":
        array = files.read_array(source)
        if array.ndim == len(wanted.shape):
            array = array[None]
        if array.shape[1:] != wanted.shape:
            raise DataError(f"{source} has shape {array.shape}, must be (samples, {', '.join(map(str, wanted.shape))})")
        return [f"{source.name}[{i}]" for i in range(len(array))], np.asarray(array)
    if not source.exists():
        raise DataError(f"{source} does not exist: give an image, a folder of images or a .npy file")
    if not takes_pictures(wanted):
        raise DataError(f"{source}: the members take {wanted.dtype} of shape {wanted.shape}, not pictures: give a .npy")
    paths = _pictures(source, [] if notes is None else notes)
    names = [shown(p.relative_to(source) if source.is_dir() else Path(p.name)) for p in paths]
    return names, np.stack([_read(p, wanted) for p in paths])


def _pictures(source: Path, notes: list[str]) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source} is neither file nor folder: give an image, a folder of images or a .npy file")
    walk, known, paths = Walk(source), suffixes(), []
    for path in walk.files(source):
        if path.suffix.lower() in known:
            paths.append(path)
        else:
            walk.left_out.add(NO_IMAGE, path)
    notes += walk.left_out.notes()
    if not paths:
        left_out = "".join(f" ({note})" for note in walk.left_out.notes())
        raise DataError(f"{source} holds no images{left_out}: give an image, a folder of images or a .npy file")
    return sorted(paths)


def _read(path: Path, wanted: Input) -> NDArray[Any]:
    try:
        return fit_picture(path, wanted)
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        raise DataError(f"{path} is not a readable image: {error}") from error
