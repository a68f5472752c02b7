"""Data sets of the paper's tables, or replacements for them, as prepared data set folders under runs/.

The number of images covers training (four fifths) and validation (one fifth), because those determine a search's cost.
All test images are used, because they are predicted once, after the search: with a thousand of them a standard error
is a whole point. Fashion-MNIST: the first images of its training set, and its own 10,000 test images. Plankton: images
of the 88 classes with at least 50, padded to 32 x 32 on white, drawn evenly from those outside its test split, and the
5,900 of that split; scored by macro-F1. It replaces the paper's microfossils (91 classes of 50 to 2,500 images, F1).
CIFAR-100: the paper's own split, 480/20/100 per class. fashion14: the first images of the training set alone, 72/8/20.
cifar20: colour images of CIFAR-100 at 16 x 16 pixels with its 20 coarse classes, and all of its test images.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.types import Dataset, Metric, classification

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
RUNS = Path("runs") / "paper"


@dataclass(frozen=True)
class Set:
    """A data set: its reader, split and metric, and the default search space and epochs."""

    read: Callable[[Path, int], Dataset]
    images: int
    space: str
    epochs: int
    metric: Metric


def _packed(path: Path) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    with lzma.open(path) as file:
        found = np.load(io.BytesIO(file.read()))
    return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}


def fashion(data: Path, count: int) -> Dataset:
    """Return the first `count` training images, and the test set."""
    images, labels = _fashion(data, "train")
    kept, known = _fashion(data, "test")
    split = np.concatenate([_fifth(count), np.full(len(kept), 2, np.uint8)])
    return _dataset("fashion", np.concatenate([images[:count], kept]), np.concatenate([labels[:count], known]), split)


def fashion14(data: Path, count: int) -> Dataset:
    """Return the first `count` training images at 14 x 14 pixels.

    An epoch takes a second, so that minutes fill a library.
    """
    images, labels = _fashion(data, "train")
    return load_dataset((images[:count], labels[:count]), size=14)


def _fashion(data: Path, part: str) -> Arrays:
    images = _packed(data / "fashion_mnist" / f"{part}_images.npy.xz")
    assert isinstance(images, np.ndarray)
    return images.astype(np.uint8)[..., None], np.load(data / "fashion_mnist" / f"{part}_labels.npy").astype(np.int64)


def plankton(data: Path, count: int) -> Dataset:
    """Return `count` images of the larger classes, and their test images."""
    z = _packed(data / "plankton" / "plankton.npz.xz")
    assert isinstance(z, dict)
    label, tested = z["label"].astype(np.int64), z["split"].astype(np.int64) == 2
    seen, test = (np.flatnonzero(z["class_ge50"][label] & of) for of in (~tested, tested))
    kept = np.concatenate([np.random.default_rng(0).permutation(seen)[:count], test])
    images = np.full((len(kept), 32, 32, 1), 255, np.uint8)
    for row, n in enumerate(kept):
        with Image.open(io.BytesIO(z["jpeg"][z["offset"][n] : z["offset"][n + 1]].tobytes())) as picture:
            images[row, ..., 0] = np.asarray(ImageOps.pad(picture, (32, 32), color=255))
    split = np.concatenate([_fifth(len(kept) - len(test)), np.full(len(test), 2, np.uint8)])
    return _dataset("plankton", images, np.unique(label[kept], return_inverse=True)[1], split, "macro-f1")


def _fifth(count: int) -> NDArray[np.uint8]:
    """Return the split of images in random order: the last fifth validates."""
    return (np.arange(count) >= count - count // 5).astype(np.uint8)


def _dataset(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    split: NDArray[np.uint8],
    metric: Metric = "accuracy",
) -> Dataset:
    """Return a data set with the training split's mean and standard deviation."""
    seen = images[split == 0].reshape(-1, images.shape[-1])
    mean, std = (tuple(float(v) for v in getattr(seen, f)(0, dtype=np.float64)) for f in ("mean", "std"))
    classes = tuple(str(n) for n in range(int(labels.max()) + 1))
    return Dataset(name, images, labels.astype(np.int64), split, classification(classes, metric), mean, std)


def cifar100(data: Path, count: int) -> Dataset:
    """Return all images if `count` is 60,000, otherwise `count` images drawn evenly from the paper's splits."""
    folder = data / "cifar100"
    kept = np.load(folder / "labels.npz")
    images = np.concatenate([_sheet(folder / f"{name}.webp") for name in (*(f"train_{k}" for k in range(5)), "test_0")])
    labels = np.concatenate([kept["train_fine"], kept["test_fine"]]).astype(np.int64)
    split = np.zeros(len(labels), np.uint8)
    split[kept["val_index"]] = 1
    split[len(kept["train_fine"]) :] = 2
    if count < len(labels):
        rows = np.sort(np.random.default_rng(0).permutation(len(labels))[:count])
        images, labels, split = images[rows], labels[rows], split[rows]
    classes = tuple(json.loads((folder / "classes.json").read_text())["fine"])
    return replace(_dataset("cifar100", images, labels, split), task=classification(classes))


def cifar20(data: Path, count: int) -> Dataset:
    """Return `count` training images of CIFAR-100, and its test set, at 16 x 16 pixels with the 20 coarse classes."""
    folder = data / "cifar100"
    kept = np.load(folder / "labels.npz")
    images = np.concatenate([_sheet(folder / "train_0.webp")[:count], _sheet(folder / "test_0.webp")])
    labels = np.concatenate([kept["train_coarse"][:count], kept["test_coarse"]]).astype(np.int64)
    halved = images.reshape(len(images), 16, 2, 16, 2, 3).mean((2, 4)).round().astype(np.uint8)
    split = np.concatenate([_fifth(count), np.full(len(labels) - count, 2, np.uint8)])
    return _dataset("cifar20", halved, labels, split)


def _sheet(path: Path) -> NDArray[np.uint8]:
    """Read a sheet of 100 images per row, 32 x 32 pixels each."""
    with Image.open(path) as picture:
        a = np.asarray(picture.convert("RGB"))
    return a.reshape(a.shape[0] // 32, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


SETS = {
    "fashion": Set(fashion, 5000, "resnet-small", 27, "accuracy"),
    "fashion14": Set(fashion14, 5000, "resnet-tiny", 9, "accuracy"),
    "plankton": Set(plankton, 6000, "resnet-small", 27, "macro-f1"),
    "cifar20": Set(cifar20, 6000, "resnet-tiny", 9, "accuracy"),
    "cifar100": Set(cifar100, 60000, "resnet", 27, "accuracy"),
}


def prepared(name: str, data: Path, count: int) -> Path:
    """Prepare a data set unless its folder exists; return the folder."""
    folder = RUNS / f"{name}-{count}"
    if not (folder / "dataset.json").exists():
        if not data.exists():
            raise SystemExit(
                f"Folder {data} does not exist: data sets are not part of the project. Pass their folder with --data."
            )
        write_dataset(SETS[name].read(data, count), folder)
    return folder


def metric(folder: Path) -> Metric:
    """Return the metric of a prepared data set."""
    return open_dataset(folder).task.metric
