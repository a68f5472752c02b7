"""Prepared data set: a folder of arrays that every trial maps and none copies.

FOLDER/inputs.npy     (samples, *shape) uint8 or float32; `images.npy` in version 1
FOLDER/targets.npy    (samples,) int64, or (samples, *task.output); `labels.npy` in version 1; masks: (samples,
                      height, width) uint8
FOLDER/split.npy      (samples,) uint8
FOLDER/folds.npy      (samples,) uint8; absent without folds
FOLDER/files.npy      (samples,) bytes, names of files; absent where samples are no files of their own
FOLDER/dataset.json   task, kind, mean, std, range, folds, ...; written last: its presence marks a complete data set
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
from ripieno.data.blocks import blocks, select_rows
from ripieno.data.folds import check_folds, has_form
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import DataError, LibraryError
from ripieno.tasks.registry import check_task, kind_of
from ripieno.types import NO_SPLIT, SPLITS, Column, DataKind, Dataset, Input, PixelRange, Task

BATCH = 64
"""Images that a network predicts at a time, where the user sets no batch size."""


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
    """Content of `dataset.json`."""

    name: str
    task: Task
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: DataKind = "image"
    range: PixelRange | None = None
    """absent in data sets of older versions"""
    folds: int = 0
    """number of folds; 0: none"""
    columns: tuple[Column, ...] = ()
    """of a table"""
    split_by: str = ""
    """of a table"""
    has_files: bool = False
    """whether there is a `files.npy`"""
    doubted: tuple[int, ...] = ()
    """as in `Dataset`"""
    environment: str = ""
    """as in `Dataset`"""


def write_dataset(dataset: Dataset, folder: str | Path) -> Dataset:
    """Write `dataset` to `folder`, block by block, and return it memory-mapped from there.

    Arrays already mapped from the folder are not rewritten. Raises DataError when the data set is inconsistent,
    RipienoError when it cannot be written.
    """
    folder = Path(folder)
    check_dataset(dataset, dataset.path or dataset.name)
    arrays = {"inputs": dataset.inputs, "targets": dataset.targets, "split": dataset.split}
    if dataset.folds is not None:
        arrays["folds"] = dataset.folds
    if dataset.files is not None:
        arrays["files"] = dataset.files
    for name, array in arrays.items():
        if not is_mapped(array, former := _array_path(folder, name)):
            invalidate(folder)
            path = folder / f"{name}.npy"
            with files.array_writer(path, array.shape[1:], array.dtype) as append:
                for block in blocks(array):
                    append(array[block])
            if former != path:  # of version 1
                files.remove_file(former)
    fields = (dataset.task, dataset.mean, dataset.std, dataset.kind, dataset.range, dataset.fold_count)
    named = dataset.files is not None, dataset.doubted, dataset.environment
    metadata = DatasetMetadata(dataset.name, *fields, dataset.columns, dataset.split_by, *named)
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
        inputs, targets, split = (files.read_array(_array_path(folder, n)) for n in ("inputs", "targets", "split"))
        folds = files.read_array(folder / "folds.npy") if metadata.folds else None
        names = files.read_array(folder / "files.npy") if metadata.has_files else None
    except LibraryError as error:
        raise DataError(f"{error}; prepare the data set again from its source") from error
    fields = (metadata.task, metadata.mean, metadata.std, metadata.kind, folder, metadata.range, folds)
    named = metadata.columns, metadata.split_by, names, metadata.doubted, metadata.environment
    dataset = Dataset(metadata.name, inputs, targets, split, *fields, *named)
    check_dataset(dataset, folder)
    return dataset


def find_dataset(folder: Path) -> Dataset | None:
    """Map the data set in `folder`; None where it holds none. Raises DataError as `open_dataset`."""
    return open_dataset(folder) if (folder / "dataset.json").exists() else None


def _array_path(folder: Path, name: str) -> Path:
    """Return the path of an array, under its name of version 1 where only that file exists."""
    former = folder / {"inputs": "images.npy", "targets": "labels.npy"}.get(name, f"{name}.npy")
    path = folder / f"{name}.npy"
    return former if former.exists() and not path.exists() else path


def check_dataset(dataset: Dataset, where: str | Path) -> None:
    """Raise DataError, naming `where`, unless targets, splits and names are consistent; inputs are not checked."""
    check_task(dataset.task, f"the data set {where}", DataError)
    inputs, targets, split, kind = dataset.inputs, dataset.targets, dataset.split, kind_of(dataset.task)
    samples, traits = len(inputs), DATA_KINDS.get(dataset.kind)
    channels, form = inputs.shape[-1] if inputs.ndim else 0, traits.shape if traits else ""
    width = sum(column.width for column in dataset.columns)
    rules = (
        (traits is not None, f"its kind is {dataset.kind!r}, it must be {', '.join(DATA_KINDS)}"),
        (not traits or inputs.ndim == 1 + len(traits.axes), f"inputs have shape {inputs.shape}, they must be {form}"),
        (inputs.dtype in (np.uint8, np.float32), f"inputs hold {inputs.dtype}, they must hold uint8 or float32"),
        (targets.shape[:1] == (samples,), f"targets have shape {targets.shape}, expected {samples} like the inputs"),
        (targets.ndim < 3 or targets.shape[1:] == inputs.shape[1:3], "masks do not have the size of the images"),
        (split.shape == (samples,), f"split has shape {split.shape}, it must be ({samples},) like the inputs"),
        (split.dtype == np.uint8, f"split holds {split.dtype}, it must hold uint8"),
        (dataset.files is None or dataset.files.shape == (samples,), f"files must be ({samples},) like the inputs"),
        (dataset.folds is None or has_form(dataset.folds, split), f"folds must be ({samples},) uint8 like the split"),
        (not dataset.columns or width == channels, f"its columns have {width} values, inputs have {channels}"),
        (len(dataset.mean) == channels == len(dataset.std), f"mean and std must have {channels} values, one a channel"),
        (samples > 0, "there are no samples"),
    )
    for holds, message in rules:
        if not holds:
            raise DataError(f"the data set {where} is inconsistent: {message}; prepare it again")
    kind.check_targets(targets, dataset.task, f"the data set {where} is inconsistent", DataError)
    if split.max() > NO_SPLIT:
        raise DataError(f"the data set {where} is inconsistent: split holds {split.max()}, it must hold 0, 1, 2 or 3")
    for name in SPLITS:
        if not len(dataset.rows(name)) and not (name == "train" and dataset.environment):
            raise DataError(f"the data set {where} has an empty {name} split: every split must hold samples")
    if dataset.folds is not None:
        check_folds(dataset, f"the data set {where} is inconsistent")


def check_columns(dataset: Dataset, wanted: Input) -> None:
    """Raise DataError for a data set whose values stand for other columns or categories than those of `wanted`."""
    if wanted.columns and dataset.columns and dataset.columns != wanted.columns:
        held = f"the data set {dataset.path or dataset.name} was prepared with other columns or categories"
        raise DataError(f"{held} than those trained on; pass the table that it was made from")


def check_trainable(dataset: Dataset, where: str | Path) -> None:
    """Raise DataError, naming `where`, unless a model can be trained on the training split of `dataset`."""
    trained = select_rows(dataset.targets, dataset.rows("train"))
    kind_of(dataset.task).check_training(trained, dataset.task, str(where), DataError)


def moments(images: NDArray[Any], rows: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel of the images at `rows`, in their unit; 1 for a constant channel.

    NaN, which is padding of series and missing values of tables, is left out.
    Blocks are merged by the update of Chan, Golub and LeVeque (1979): pixels are squared only after subtraction of the
    mean, and at most one block is in memory as float64.
    """
    channels = images.shape[-1]
    count, mean, squares = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    for part in blocks(images, len(rows)):
        block = images[rows[part]].reshape(-1, channels)
        for channel in range(channels):
            values = block[:, channel].astype(np.float64)
            if block.dtype.kind == "f" and (missing := np.isnan(values)).any():
                values = values[~missing]
            if not len(values):
                continue
            middle = float(values.mean())
            values -= middle
            share = len(values) / (count[channel] + len(values))
            off = middle - mean[channel]
            mean[channel] += off * share
            squares[channel] += float(values @ values) + off * off * count[channel] * share
            count[channel] += len(values)
    std = np.sqrt(squares / np.maximum(1, count))
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
