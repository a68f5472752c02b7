"""Prepared data set: a folder of arrays that every trial maps and none copies.

FOLDER/images.npy     (samples, height, width, channels) uint8 or float32
FOLDER/labels.npy     (samples,) int64
FOLDER/split.npy      (samples,) uint8
FOLDER/dataset.json   names, mean, std, metric, range; written last: its presence marks a complete data set
"""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.samples import blocks
from ripieno.errors import DataError, LibraryError
from ripieno.tasks.labels import check_classes
from ripieno.types import SPLITS, Dataset, Metric, PixelRange

BATCH = 64
"""Images that a network predicts at a time, where the user sets no batch size."""


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
    """Content of `dataset.json`."""

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metric: Metric
    range: PixelRange | None = None
    """absent in data sets of older versions"""


def write_dataset(dataset: Dataset, folder: str | Path) -> Dataset:
    """Write `dataset` to `folder`, block by block, and return it memory-mapped from there.

    Arrays already mapped from the folder are not rewritten. Raises DataError when the data set is inconsistent,
    RipienoError when it cannot be written.
    """
    folder = Path(folder)
    check_dataset(dataset, dataset.path or dataset.name)
    arrays = {"images": dataset.images, "labels": dataset.labels, "split": dataset.split}
    for name, array in arrays.items():
        if not is_mapped(array, folder / f"{name}.npy"):
            invalidate(folder)
            with files.array_writer(folder / f"{name}.npy", array.shape[1:], array.dtype) as append:
                for block in blocks(array):
                    append(array[block])
    metadata = DatasetMetadata(dataset.name, dataset.classes, dataset.mean, dataset.std, dataset.metric, dataset.range)
    files.write_json(folder / "dataset.json", metadata)
    return open_dataset(folder)


def open_dataset(folder: str | Path) -> Dataset:
    """Map the data set in `folder`.

    Raises DataError when the folder holds none, a file is broken or the files are inconsistent with each other.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").is_file():
        raise DataError(f"{folder} holds no data set (it has no dataset.json); prepare it again from its source")
    try:
        metadata = files.read_json(folder / "dataset.json", DatasetMetadata)
        images, labels, split = (files.read_array(folder / f"{name}.npy") for name in ("images", "labels", "split"))
    except LibraryError as error:
        raise DataError(f"{error}; prepare the data set again from its source") from error
    fields = (metadata.classes, metadata.mean, metadata.std, metadata.metric)
    dataset = Dataset(metadata.name, images, labels, split, *fields, path=folder, range=metadata.range)
    check_dataset(dataset, folder)
    return dataset


def find_dataset(folder: Path) -> Dataset | None:
    """Map the data set in `folder`; None where it holds none. Raises DataError as `open_dataset`."""
    return open_dataset(folder) if (folder / "dataset.json").exists() else None


def check_dataset(dataset: Dataset, where: str | Path) -> None:
    """Raise DataError, naming `where`, unless labels, splits and names are consistent; pixels are not checked."""
    images, labels, split = dataset.images, dataset.labels, dataset.split
    classes, samples = len(dataset.classes), len(images)
    channels = images.shape[-1] if images.ndim else 0
    rules = (
        (images.ndim == 4, f"images have shape {images.shape}, they must be (samples, height, width, channels)"),
        (images.dtype in (np.uint8, np.float32), f"images hold {images.dtype}, they must hold uint8 or float32"),
        (labels.shape == (samples,), f"labels have shape {labels.shape}, they must be ({samples},) like the images"),
        (split.shape == (samples,), f"split has shape {split.shape}, it must be ({samples},) like the images"),
        (labels.dtype == np.int64, f"labels hold {labels.dtype}, they must hold int64"),
        (split.dtype == np.uint8, f"split holds {split.dtype}, it must hold uint8"),
        (len(dataset.mean) == channels == len(dataset.std), f"mean and std must have {channels} values, one a channel"),
        (samples > 0, "there are no images"),
    )
    for holds, message in rules:
        if not holds:
            raise DataError(f"the data set {where} is inconsistent: {message}; prepare it again")
    check_classes(dataset.classes, f"the data set {where}", DataError)
    if labels.min() < 0 or labels.max() >= classes:
        span = f"labels run from {labels.min()} to {labels.max()}, they must be 0 to {classes - 1}"
        raise DataError(f"the data set {where} is inconsistent: {span}; prepare it again")
    if split.max() >= len(SPLITS):
        raise DataError(f"the data set {where} is inconsistent: split holds {split.max()}, it must hold 0, 1 and 2")
    absent = np.flatnonzero(np.bincount(labels[split == 0], minlength=classes) == 0)
    if len(absent):
        name = dataset.classes[absent[0]]
        raise DataError(f"the data set {where} has no training image of class {name!r}; add some or leave it out")
    for i in (1, 2):
        if not (split == i).any():
            raise DataError(f"the data set {where} has an empty {SPLITS[i]} split: every split must hold images")


def moments(images: NDArray[Any], rows: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel of the images at `rows`, in their unit; 1 for a constant channel.

    Blocks are merged by the update of Chan, Golub and LeVeque (1979): pixels are squared only after subtraction of the
    mean, and at most one block is in memory as float64.
    """
    count, mean, squares = 0, np.zeros(images.shape[3]), np.zeros(images.shape[3])
    for part in blocks(images, len(rows)):
        block = images[rows[part]].reshape(-1, images.shape[3])
        for channel in range(images.shape[3]):
            values = block[:, channel].astype(np.float64)
            middle = float(values.mean())
            values -= middle
            share = len(values) / (count + len(values))
            off = middle - mean[channel]
            mean[channel] += off * share
            squares[channel] += float(values @ values) + off * off * count * share
        count += len(block)
    std = np.sqrt(squares / max(1, count))
    # a deviation below the resolution of float32 counts as none
    std[std <= 1e-7 * np.abs(mean)] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def batches(images: NDArray[Any], rows: NDArray[np.int64], size: int = BATCH) -> Iterator[NDArray[Any]]:
    """Read the images at `rows`, `size` at a time: a mapped file is read one batch at a time."""
    for start in range(0, len(rows), size):
        yield np.asarray(images[rows[start : start + size]])


def spread_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Select at most `count` of `rows`, evenly: image folders are sorted by class."""
    return rows[np.linspace(0, len(rows), min(count, len(rows)), endpoint=False).astype(np.int64)]


def is_mapped(array: NDArray[Any], path: Path) -> bool:
    """Return whether `array` is the memory map of the whole file `path`, not of a part of it."""
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap):
        return False
    return array.filename is not None and path.exists() and path.samefile(array.filename)


def invalidate(folder: Path) -> None:
    """Remove `dataset.json` until it is written again, so that the old one never describes new arrays."""
    (folder / "dataset.json").unlink(missing_ok=True)
