"""Loading of a `Dataset` from any supported source."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.data.adapters import ExternalData, is_external_dataset, pair_arrays, read_external
from ripieno.data.cifar import is_cifar, is_tar, read_cifar
from ripieno.data.dataset import check_dataset, moments, open_dataset, write_dataset
from ripieno.data.idx import is_idx, read_idx
from ripieno.data.image_folder import CountCallback, read_folder
from ripieno.data.image_io import resize
from ripieno.data.npz import read_npz
from ripieno.data.pixels import check_size, training_range
from ripieno.data.samples import UNASSIGNED, Samples, SplitArrays, extremes, join
from ripieno.data.splits import balance_notes, check_ratios, duplicate_notes, split_samples
from ripieno.errors import DataError
from ripieno.notes import Notes
from ripieno.types import Dataset, Metric, PixelRange, classification

Source = str | Path | Dataset | tuple[ArrayLike, ArrayLike] | ExternalData

FORMS = "an image folder, an .npz file, a CIFAR archive (.tar.gz or folder) or a folder of idx files"


def load_dataset(
    source: Source,
    *,
    size: int | None = None,
    split: Sequence[float] = (0.72, 0.08, 0.20),
    seed: int = 0,
    metric: Metric = "accuracy",
    skip_bad: bool = False,
    progress: CountCallback | None = None,
    notes: list[str] | None = None,
    folder: str | Path | None = None,
) -> Dataset:
    """Read images and labels, and split them into train, valid and test.

    `source` is the path of an image folder, an `.npz` file, a CIFAR-10 or -100 archive (python or binary, packed or
    not), a folder of idx files or a data set prepared before; or a pair of arrays (images, labels); or a `Dataset`; or
    a Hugging Face or PyTorch data set, or a mapping of splits to such (`ripieno.data.adapters`).

    - `size`: every image becomes `size` x `size` pixels, at most 4,096; its aspect ratio is kept, its border repeated.
    - `split`: shares of train, valid and test (appendix A.1: 72/8/20), stratified by class and seeded by `seed`.
      A test or validation split of the source is kept, and the other shares apply to the rest.
      A prepared data set keeps its splits.
    - `metric`: the score shown for trials and ensembles; trials are always ranked by cross-entropy. A prepared data
      set keeps its own unless this differs from the default.
    - `skip_bad`: skip broken image files instead of raising.
    - `progress`: called with the images done and the number of images while an image folder is decoded.
    - `notes`: warnings for the user are appended: images skipped, imbalance, ...; without it they are logged.
    - `folder`: also write the data set there and return it memory-mapped; an image folder is then decoded directly
      into its file, so that it may be larger than memory.

    Raises DataError, in one line, for a source that cannot be used.
    """
    notes = Notes() if notes is None else notes
    check_arguments(size, split, metric)
    target = None if folder is None else Path(folder)
    try:
        dataset = _prepared(source, size, metric, notes)
        if dataset is None:
            samples = _read(source, size, skip_bad, progress, notes, target)
            dataset = dataset_of(samples, size, split, seed, metric, notes)
    except PermissionError as error:
        raise DataError(f"{error.filename} may not be read; change its permissions") from error
    notes += duplicate_notes(dataset.inputs, dataset.split)
    return dataset if target is None else write_dataset(dataset, target)


def check_arguments(size: int | None, split: Sequence[float] | None, metric: str | None) -> None:
    """Raise DataError for unusable arguments, before any data is read; None is the default of each."""
    if split is not None:
        check_ratios(split)
    check_size(size)
    if metric is not None and metric not in get_args(Metric):
        raise DataError(f"metric is {metric!r}: it must be {' or '.join(get_args(Metric))}")


def _prepared(source: Source, size: int | None, metric: Metric, notes: list[str]) -> Dataset | None:
    """Return a source that is already a data set; None when it is not."""
    if isinstance(source, str | Path):
        if not (Path(source) / "dataset.json").is_file():
            return None
        source = open_dataset(source)
    if not isinstance(source, Dataset):
        return None
    check_dataset(source, source.path or source.name)
    if size is not None and source.inputs.shape[1:3] != (size, size):
        images = resize(source.inputs, size)
        mean, std = moments(images, source.rows("train"))
        source = dataclasses.replace(source, inputs=images, mean=mean, std=std, path=None)
    if source.range is None:  # from an older version, or made by hand
        splits = [i for i in (1, 2) if (source.split == i).any()]
        source = dataclasses.replace(source, range=_range(source.inputs, source.split, splits, notes))
    if metric not in ("accuracy", source.task.metric):
        source = dataclasses.replace(source, task=dataclasses.replace(source.task, metric=metric))
    return source


def _read(
    source: Source,
    size: int | None,
    skip_bad: bool,
    progress: CountCallback | None,
    notes: list[str],
    target: Path | None,
) -> Samples:
    if is_external_dataset(source):
        return read_external(source, size, notes)
    if not isinstance(source, str | Path):
        images, labels = pair_arrays(source)
        return join("arrays", [SplitArrays(images, labels, "the arrays")], None, notes)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist: it must be {FORMS}")
    if path.is_file() and path.suffix.lower() == ".npz":
        return read_npz(path, notes)
    if (path.is_file() and is_tar(path)) or (path.is_dir() and is_cifar(path)):
        return read_cifar(path, notes)
    if not path.is_dir():
        raise DataError(f"{path} is a file of no known kind: it must be {FORMS}")
    if is_idx(path):
        return read_idx(path, notes)
    file = None if target is None else target / "inputs.npy"
    apart = [] if target is None else [target]
    if target is not None and (target.parent / "lock").exists():  # a new run inside its own image folder
        apart.append(target.parent)
    return read_folder(path, size=size, skip_bad=skip_bad, progress=progress, notes=notes, target=file, apart=apart)


def read_samples(source: Source, size: int | None, notes: list[str]) -> Samples:
    """Read images and labels of a source other than a `Dataset`, without a split of its samples. Raises DataError."""
    return _read(source, size, False, None, notes, None)


def dataset_of(
    samples: Samples, size: int | None, ratios: Sequence[float], seed: int, metric: Metric, notes: list[str]
) -> Dataset:
    """Split `samples` into a data set; arguments and errors are those of `load_dataset`."""
    check_arguments(size, ratios, metric)
    images = samples.images
    if size is not None and images.shape[1:3] != (size, size):
        images = resize(images, size)
    split = split_samples(samples.labels, samples.fixed_split, samples.classes, ratios, seed)
    notes += balance_notes(samples.labels, split, samples.classes)
    mean, std = moments(images, np.flatnonzero(split == 0))
    from_source = sorted({int(i) for i in np.unique(samples.fixed_split)} - {UNASSIGNED, 0})
    span = _range(images, split, from_source, notes)
    task = classification(samples.classes, metric)
    return Dataset(samples.name, images, samples.labels, split, task, mean, std, range=span)


def _range(
    images: NDArray[Any], split: NDArray[np.uint8], given: Collection[int], notes: list[str]
) -> PixelRange | None:
    """Return the range of the training images' pixels; None for tables (images of one pixel): columns differ."""
    table = images.shape[1:3] == (1, 1)
    return None if table else training_range(extremes(images), split, given, notes)
