"""Data sets of the benchmarks on tasks, made from real images. A seed draws the images and the split.

fashion14: Fashion-MNIST at 14 x 14 pixels, 10 classes; 4,000 training, 2,000 validation, 4,000 test images.
cifar20: CIFAR-100 at 16 x 16 pixels by its 20 superclasses; 6,000, 2,000, 4,000 images.
plankton20: the 20 most frequent classes of the plankton, padded to 24 x 24 pixels; 3,000, 1,500, 4,000 images.
words: the plankton, 24 x 24 pixels; several labels an image, the words of its class's name that at least 1,000 images
have. A class such as "copepod_calanoid_eggs" has three.
sizes: the plankton, padded to 24 x 24 pixels; two values an image, the base-2 logarithms of the height and width in
pixels that it had. The aspect shows in the padding; the scale only in the sharpness and the look of what is pictured.

For fine-tuning (`fine_tuning.py`), in larger images and fewer of them:
shapes20: the 20 most frequent classes of the plankton, padded to 64 x 64 pixels; 3,000, 1,500, 4,000 images.
shapes88: the 88 classes of at least 50 images, likewise; 6,000, 2,000, 4,000 images.
few20: CIFAR-100 at 32 x 32 pixels, 100 classes; 20 training and 10 validation images a class, 4,000 test images.
few100: the same with 100 training and 20 validation images a class.

For segmentation (`segmentation.py`, `tiles.py`), with the split of the source, whatever the seed:
camvid: CamVid at 256 x 192 pixels, 11 classes; unlabelled pixels are ignored. 367, 101, 233 images.
quarters: the four quarters of each, 128 x 96 pixels.
"""

from __future__ import annotations

import io
import json
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ripieno.data import load_dataset, write_dataset
from ripieno.types import SPLITS, Dataset

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs" / "tasks"
WORDS = 1000
"""Least number of images with a word."""
LARGE = 32


def read_packed(path: Path) -> Any:
    """Return the array or the mapping of arrays in a file of NumPy packed with xz."""
    with lzma.open(path) as file:
        found = np.load(io.BytesIO(file.read()))
    return found if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}


def parts(inputs: NDArray[Any], targets: NDArray[Any], counts: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Return pairs by split, drawn from the samples."""
    rows = np.random.default_rng(seed).permutation(len(inputs))[: sum(counts)]
    train, valid, test = np.split(rows, np.cumsum(counts)[:-1])
    return {n: (inputs[r], targets[r]) for n, r in (("train", train), ("valid", valid), ("test", test))}


def fashion14(data: Path, seed: int) -> Dataset:
    """Return Fashion-MNIST at 14 x 14 pixels."""
    folder = data / "fashion_mnist"
    images = read_packed(folder / "train_images.npy.xz").astype(np.uint8)[..., None]
    labels = np.load(folder / "train_labels.npy").astype(np.int64)
    return load_dataset(parts(images, labels, (4000, 2000, 4000), seed), size=14)


def _cifar(data: Path, stem: str) -> NDArray[np.uint8]:
    """Return the images of a split of CIFAR-100, sheet by sheet."""
    sheets = []
    for path in sorted((data / "cifar100").glob(f"{stem}_*.webp")):
        with Image.open(path) as picture:
            sheet = np.asarray(picture.convert("RGB"))
        sheets.append(sheet.reshape(100, LARGE, 100, LARGE, 3).swapaxes(1, 2).reshape(-1, LARGE, LARGE, 3))
    return np.concatenate(sheets)


def cifar20(data: Path, seed: int) -> Dataset:
    """Return CIFAR-100 at 16 x 16 pixels by its superclasses."""
    labels = np.load(data / "cifar100" / "labels.npz")["train_coarse"].astype(np.int64)
    return load_dataset(parts(_cifar(data, "train"), labels, (6000, 2000, 4000), seed), size=16)


def _few(data: Path, seed: int, train: int, valid: int) -> Dataset:
    """Return CIFAR-100 with so many training and validation images a class."""
    packed, rng = np.load(data / "cifar100" / "labels.npz"), np.random.default_rng(seed)
    images, labels = _cifar(data, "train"), packed["train_fine"].astype(np.int64)
    of_class = [rng.permutation(np.flatnonzero(labels == label)) for label in range(100)]
    rows = {"train": [r[:train] for r in of_class], "valid": [r[train : train + valid] for r in of_class]}
    pairs = {name: (images[np.concatenate(r)], labels[np.concatenate(r)]) for name, r in rows.items()}
    test = rng.permutation(10000)[:4000]
    pairs["test"] = _cifar(data, "test")[test], packed["test_fine"].astype(np.int64)[test]
    return load_dataset(pairs)


def few20(data: Path, seed: int) -> Dataset:
    """Return CIFAR-100 with 20 training images a class."""
    return _few(data, seed, 20, 10)


def few100(data: Path, seed: int) -> Dataset:
    """Return CIFAR-100 with 100 training images a class."""
    return _few(data, seed, 100, 20)


def padded_plankton(rows: NDArray[np.int64], packed: dict[str, NDArray[Any]], side: int = 24) -> NDArray[np.uint8]:
    """Return the images at `rows`, padded with white to a square of `side` pixels."""
    images = np.empty((len(rows), side, side, 1), np.uint8)
    jpeg, offset = packed["jpeg"], packed["offset"]
    for place, row in enumerate(rows):
        with Image.open(io.BytesIO(jpeg[offset[row] : offset[row + 1]].tobytes())) as picture:
            images[place, ..., 0] = np.asarray(ImageOps.pad(picture, (side, side), color=255))
    return images


def _classes(
    data: Path, seed: int, side: int, classes: int, counts: tuple[int, int, int]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return pairs of the most frequent classes of the plankton, by split."""
    packed = read_packed(data / "plankton" / "plankton.npz.xz")
    frequent = [label for label, _ in Counter(packed["label"].tolist()).most_common(classes)]
    rows = np.flatnonzero(np.isin(packed["label"], frequent))
    rows = np.random.default_rng(seed).permutation(rows)[: sum(counts)]
    labels = np.array([frequent.index(n) for n in packed["label"][rows].tolist()], np.int64)
    return parts(padded_plankton(rows, packed, side), labels, counts, seed)


def plankton20(data: Path, seed: int) -> Dataset:
    """Return the 20 most frequent classes of the plankton."""
    return load_dataset(_classes(data, seed, 24, 20, (3000, 1500, 4000)))


def shapes20(data: Path, seed: int) -> Dataset:
    """Return the 20 most frequent classes of the plankton in larger images."""
    return load_dataset(_classes(data, seed, 64, 20, (3000, 1500, 4000)))


def shapes88(data: Path, seed: int) -> Dataset:
    """Return the 88 most frequent classes of the plankton in larger images."""
    return load_dataset(_classes(data, seed, 64, 88, (6000, 2000, 4000)))


def words(data: Path, seed: int) -> Dataset:
    """Return the plankton with the words of their classes' names."""
    packed = read_packed(data / "plankton" / "plankton.npz.xz")
    classes = json.loads((data / "plankton" / "classes.json").read_text())["classes"]
    of_class = [set(name.replace("-", "_").split("_")) for name in classes]
    counts = Counter(word for label in packed["label"] for word in of_class[label])
    names = sorted(word for word, count in counts.items() if count >= WORDS)
    rows = np.random.default_rng(seed).permutation(len(packed["label"]))[:9000]
    targets = np.array([[w in of_class[packed["label"][r]] for w in names] for r in rows], np.uint8)
    pairs = parts(padded_plankton(rows, packed), targets, (4000, 2000, 3000), seed)
    return load_dataset(pairs, task="multilabel")


def sizes(data: Path, seed: int) -> Dataset:
    """Return the plankton with the logarithms of their heights and widths."""
    packed = read_packed(data / "plankton" / "plankton.npz.xz")
    rows = np.random.default_rng(seed).permutation(len(packed["label"]))[:9000]
    targets = np.log2(packed["shape"][rows].astype(np.float32))
    pairs = parts(padded_plankton(rows, packed), targets, (4000, 2000, 3000), seed)
    return load_dataset(pairs, task="regression")


def camvid(data: Path, seed: int) -> Dataset:  # noqa: ARG001  the split is that of the source
    """Return CamVid with its own split."""
    return _masks(data, 1)


def quarters(data: Path, seed: int) -> Dataset:  # noqa: ARG001
    """Return the quarters of the images of CamVid, those of an image one after another."""
    return _masks(data, 2)


def _masks(data: Path, cuts: int) -> Dataset:
    """Return CamVid, each image cut into `cuts` x `cuts` parts."""
    packed = dict(np.load(data / "camvid" / "images.npz"))
    jpeg, offset = packed["jpeg"], packed["offset"]
    masks, split = read_packed(data / "camvid" / "masks.npy.xz"), packed["split"]
    pictures = []
    for row in range(len(masks)):
        with Image.open(io.BytesIO(jpeg[offset[row] : offset[row + 1]].tobytes())) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    pairs = {
        name: (_cut(np.stack(pictures)[split == number], cuts), _cut(masks[split == number], cuts))
        for number, name in enumerate(SPLITS)
    }
    names = json.loads((data / "camvid" / "classes.json").read_text())
    found = load_dataset(pairs, task="segmentation", ignore=names["void"])
    named = tuple(name for number, name in enumerate(names["classes"]) if number != names["void"])
    return replace(found, name="camvid", task=replace(found.task, names=named))


def _cut(images: NDArray[Any], cuts: int) -> NDArray[Any]:
    """Return the parts of images (n, height, width, ...), (n * cuts * cuts, height / cuts, width / cuts, ...)."""
    count, height, width, *rest = images.shape
    grid = images.reshape(count, cuts, height // cuts, cuts, width // cuts, *rest)
    return grid.swapaxes(2, 3).reshape(-1, height // cuts, width // cuts, *rest)


SETS: dict[str, Callable[[Path, int], Dataset]] = {
    f.__name__: f for f in (fashion14, cifar20, plankton20, words, sizes)
}
FEW: dict[str, Callable[[Path, int], Dataset]] = {f.__name__: f for f in (shapes20, shapes88, few20, few100)}
"""Sets for fine-tuning."""
MASKS: dict[str, Callable[[Path, int], Dataset]] = {f.__name__: f for f in (camvid, quarters)}
"""Sets for segmentation."""


def camvid_run(seed: int, method: str = "from nothing") -> Path:
    """Return the folder of a search of CamVid by `segmentation.py`."""
    return RUNS / "segmentation" / f"camvid-{seed}-{method.replace(' ', '-')}"


def prepared(name: str, seed: int, data: Path) -> Path:
    """Prepare a data set unless its folder exists; return the folder."""
    folder = RUNS / "data" / f"{name}-{seed}"
    if not (folder / "dataset.json").exists():
        if not data.exists():
            raise SystemExit(f"Folder {data.name} does not exist: pass the folder of the data sets with --data.")
        write_dataset({**SETS, **FEW, **MASKS}[name](data, seed), folder)
    return folder
