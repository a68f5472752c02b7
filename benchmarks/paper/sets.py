"""The data sets of the paper's tables, or what stands in for them, as prepared data set folders under runs/.

Fashion-MNIST: the first images of its training set, 72/8/20. Plankton: images of the 88 classes with at least 50,
drawn evenly, padded to 32 x 32 on white, 60/20/20, judged by macro-F1: for the paper's microfossils (91 classes of 50
to 2,500 images, F1). CIFAR-100: the paper's own split, 480/20/100 a class.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.types import Dataset, Metric

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
RUNS = Path("runs") / "paper"


@dataclass(frozen=True)
class Set:
    """A data set: how it is read, split and judged, and what a processor searches on it unless told otherwise."""

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
    """The first `count` training images."""
    images = _packed(data / "fashion_mnist" / "train_images.npy.xz")
    assert isinstance(images, np.ndarray)
    labels = np.load(data / "fashion_mnist" / "train_labels.npy")
    return load_dataset((images[:count, ..., None], labels[:count].astype(np.int64)))


def fashion14(data: Path, count: int) -> Dataset:
    """The same at 14 x 14 pixels: an epoch takes a second, so that minutes make a library."""
    return load_dataset(fashion(data, count), size=14)


def plankton(data: Path, count: int) -> Dataset:
    """`count` images of the larger classes."""
    z = _packed(data / "plankton" / "plankton.npz.xz")
    assert isinstance(z, dict)
    label = z["label"].astype(np.int64)
    kept = np.flatnonzero(z["class_ge50"][label])
    kept = np.sort(np.random.default_rng(0).permutation(kept)[:count])
    images = np.full((len(kept), 32, 32, 1), 255, np.uint8)
    for row, n in enumerate(kept):
        with Image.open(io.BytesIO(z["jpeg"][z["offset"][n] : z["offset"][n + 1]].tobytes())) as picture:
            images[row, ..., 0] = np.asarray(ImageOps.pad(picture, (32, 32), color=255))
    labels = np.unique(label[kept], return_inverse=True)[1].astype(np.int64)
    return load_dataset((images, labels), split=(0.6, 0.2, 0.2), metric="macro-f1")


def cifar100(data: Path, count: int) -> Dataset:
    """All of it for `count` 60,000; else `count` images drawn evenly from each of the paper's splits."""
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
    seen = images[split == 0].reshape(-1, 3)
    mean, std = (tuple(float(v) for v in getattr(seen, f)(0, dtype=np.float64)) for f in ("mean", "std"))
    return Dataset("cifar100", images, labels, split, classes, mean, std)


def _sheet(path: Path) -> NDArray[np.uint8]:
    """A sheet of 100 images a row, 32 x 32 pixels each."""
    with Image.open(path) as picture:
        a = np.asarray(picture.convert("RGB"))
    return a.reshape(a.shape[0] // 32, 32, 100, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


SETS = {
    "fashion": Set(fashion, 5000, "resnet-small", 27, "accuracy"),
    "fashion14": Set(fashion14, 5000, "resnet-tiny", 9, "accuracy"),
    "plankton": Set(plankton, 6000, "resnet-small", 27, "macro-f1"),
    "cifar100": Set(cifar100, 60000, "resnet", 27, "accuracy"),
}


def prepared(name: str, data: Path, count: int) -> Path:
    """The folder of a data set, made once."""
    folder = RUNS / f"{name}-{count}"
    if not (folder / "dataset.json").exists():
        if not data.exists():
            raise SystemExit(f"{data} is not there: the data sets are not part of the project; name theirs with --data")
        write_dataset(SETS[name].read(data, count), folder)
    return folder


def metric(folder: Path) -> Metric:
    """What a prepared data set is judged by."""
    return open_dataset(folder).metric
