"""Adapters for other libraries' data sets: Hugging Face `datasets`, PyTorch `Dataset`, and mappings of splits to them.

A split may also be a pair of arrays (images, labels). The other libraries are not imported: a data set is recognised by
its interface. A Hugging Face data set has `features` and rows that are mappings; a PyTorch one has items (image, label,
...). Both are read once, item by item.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.data.image_io import resize, to_pixels
from ripieno.data.npz import IMAGES, LABELS
from ripieno.data.pixels import channels_first
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.splits import splits_of
from ripieno.errors import DataError, error_summary
from ripieno.tasks.labels import read_labels

MANY = 4096
"""Approximate number of items in a checksum that distinguishes data sets."""
EXPECTED = "it must give (image, label) items, or rows with an image and a label column"


class Items(Protocol):
    """Minimal interface of another library's data set: item access."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the item, or the column, at `index`."""


Pair = tuple[ArrayLike, ArrayLike]
ExternalData = Items | Mapping[str, Items | Pair]


def is_external_dataset(source: object) -> bool:
    """Return whether `source` is another library's data set, or a mapping of splits to such or to (images, labels)."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_external_dataset(part) or is_pair(part) for part in source.values())
    if isinstance(source, str | bytes | tuple | list | np.ndarray):
        return False
    return hasattr(source, "__getitem__") or hasattr(source, "__iter__")


def is_pair(source: object) -> bool:
    """Return whether `source` is (images, labels): the labels have one axis, or two as one-hot rows or a column."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    try:
        counts = [len(part) for part in source]
        axes = np.ndim(source[1])
        return counts[0] == counts[1] and (axes == 1 or (axes == 2 and np.ndim(source[0]) > 2))
    except (TypeError, ValueError):
        return False


def pair_arrays(source: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the arrays of a pair (images, labels). Raises DataError for any other source."""
    if not isinstance(source, tuple) or len(source) != 2:
        expected = "a path, a Dataset, a pair (images, labels), or a Hugging Face or PyTorch data set"
        raise DataError(f"data is {type(source).__name__}: it must be {expected}")
    try:
        return np.asanyarray(source[0]), np.asanyarray(source[1])
    except ValueError as error:
        raise DataError(f"images or labels are no arrays: {error}") from error


def read_external(source: Any, size: int | None, notes: list[str]) -> Samples:
    """Read the samples of another library's data set; images of different sizes need `size`.

    A mapping names its splits: train, valid (validation, val, dev), test; each may also be (images, labels). Raises
    DataError naming the unusable item and its split, and the expectation.
    """
    if isinstance(source, Mapping):
        named, given = splits_of(map(str, source)), ", ".join(map(str, source))
        unknown = [name for name, split in named.items() if split is None]
        if unknown:
            raise DataError(
                f"data has a split {unknown[0]!r}; expected train, valid and test; leave it out or rename it"
            )
        splits = {split: part for split, part in zip(named.values(), source.values(), strict=True) if split}
        if len(splits) < len(source) or "train" not in splits:
            raise DataError(f"data has the splits {given}; expected train, and each split at most once")
    else:
        splits = {"train": source}
    parts: list[SplitArrays] = []
    names: list[str] | None = None
    own: dict[int, list[str]] = {}
    for split, part in splits.items():
        where = f"the {split} split" if len(splits) > 1 else "the data"
        if is_pair(part):
            parts.append(SplitArrays(np.asanyarray(part[0]), np.asarray(part[1]), where, split))
            continue
        items, labels, classes = _read(part, where, size)
        names = names or classes
        if classes is not None:
            own[len(parts)] = classes
        parts.append(SplitArrays(_stacked(items, where), np.asarray(labels), where, split, channels_last=True))
    if any(classes != names and not set(classes).isdisjoint(names or []) for classes in own.values()):
        # the splits number the same classes differently, so their labels are joined by name
        parts = [_with_names(part, own.get(place, names or [])) for place, part in enumerate(parts)]
    return join(_name(source), parts, names, notes, positions=True)


def _with_names(part: SplitArrays, classes: Sequence[str]) -> SplitArrays:
    """Replace index labels by the names of their classes. Raises DataError for an index outside `classes`."""
    if part.labels.dtype.kind not in "iu":
        return part
    labels = read_labels(part.labels, len(classes), f"labels of {part.where}", DataError)
    return dataclasses.replace(part, labels=np.array(classes)[labels])


def sample(source: Any) -> tuple[str, str]:
    """Return the size of another library's data set as text, and a checksum of its items, at most some thousand.

    Images that random augmentation changes on every access are not hashed; their labels are.
    """
    count = len(source) if hasattr(source, "__len__") and hasattr(source, "__getitem__") else 0
    size, rows = f"{count:,} items of {_name(source)}", range(0, count, max(1, count // MANY))
    try:
        columns = _columns(getattr(source, "features", None), "the data")
        found, again = (_checksum((source[i] for i in rows), columns) for _ in range(2))
        if found != again:
            found = _checksum((source[i] for i in rows), columns, images=False)
    except Exception:  # any error of the user's data set: the full read reports which item
        return size, size
    return size, f"{size}, {found:08x}"


def _checksum(items: Iterable[Any], columns: tuple[str, str] | None, images: bool = True) -> int:
    """Return the CRC-32 of images and labels, or of labels alone."""
    found = 0
    for item in items:
        columns = columns or _columns(item, "the data")
        image, label = (item[columns[0]], item[columns[1]]) if columns else (item[0], item[1])
        pixels = _pixels(image) if images else np.empty(0)
        found = crc32(pixels.tobytes(), crc32(f"{pixels.shape} {pixels.dtype} {_label(label)}".encode(), found))
    return found


def _read(part: Any, where: str, size: int | None) -> tuple[list[NDArray[Any]], list[Any], list[str] | None]:
    """Read images, labels and, where they are known, the names of the classes."""
    features = getattr(part, "features", None)
    columns = _columns(features, where)
    classes = _classes(part, features, columns)
    images: list[NDArray[Any]] = []
    labels: list[Any] = []
    for item in _items(part, where):
        with _item_errors(len(images), where):
            columns = columns or _columns(item, where)
            image, label = (item[columns[0]], item[columns[1]]) if columns else (item[0], item[1])
            pixels = _pixels(image)
            labels.append(_label(label))
            images.append(pixels if size is None else _resized(pixels, size))
    if not images:
        raise DataError(f"{where} holds no items: {EXPECTED}")
    return images, labels, classes


def images_of(source: Any) -> Iterator[tuple[str, Any]]:
    """Yield the images of another library's data set, or of a mapping of splits, without their labels.

    Each comes with its name: Pillow images unchanged, others as arrays (height, width, channels), or whole arrays of
    images. Raises DataError naming an item without an image.
    """
    if isinstance(source, Mapping):
        for split, part in source.items():
            pieces = [("", np.asanyarray(part[0]))] if is_pair(part) else images_of(part)
            yield from ((f"{split}{name}", image) for name, image in pieces)
        return
    column = _column_of_images(getattr(source, "features", None))
    for number, item in enumerate(_items(source, "the data")):
        with _item_errors(number, "the data"):
            column = column or _column_of_images(item)
            image = item[column] if column else item[0] if isinstance(item, tuple | list) else item
            image = image if hasattr(image, "convert") else _pixels(image)
        yield f"[{number}]", image


def _items(part: Any, where: str) -> Iterator[Any]:
    """Yield items in order; an indexed data set is read up to its length, because its iterator may not end."""
    indexed = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    number, end = 0, object()
    items: Iterator[Any] = iter(())
    with _item_errors(0, where):
        items = (part[i] for i in range(len(part))) if indexed else iter(part)
    while True:
        with _item_errors(number, where):
            item = next(items, end)
        if item is end:
            return
        yield item
        number += 1


@contextmanager
def _item_errors(number: int, where: str) -> Iterator[None]:
    """Convert any error of the user's data set into a DataError that names the item."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"item {number} of {where} cannot be used ({error_summary(error)}): {EXPECTED}") from error


def _columns(features: Any, where: str) -> tuple[str, str] | None:
    """Find the image and label columns, by their types, else by their names; None when there are no columns."""
    if not isinstance(features, Mapping):
        return None
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    labels = [n for n, kind in kinds.items() if kind == "ClassLabel"]
    labels = [n for n in labels if n.lower() in LABELS] or labels or [n for n in kinds if n.lower() in LABELS]
    if len(_images(kinds)) != 1 or len(labels) != 1:
        raise DataError(
            f"{where} has the columns {', '.join(kinds)}; expected one of images and one of labels; "
            "choose two with select_columns, rename them image and label with rename_column"
        )
    return _images(kinds)[0], labels[0]


def _column_of_images(features: Any) -> str | None:
    """Find the image column; None when there are no columns."""
    if not isinstance(features, Mapping):
        return None
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    if len(_images(kinds)) != 1:
        raise DataError(f"the data has the columns {', '.join(kinds)}; expected one of images; name it image")
    return _images(kinds)[0]


def _images(kinds: Mapping[str, str]) -> list[str]:
    """Return the names of image columns, given the types of all columns."""
    typed = [n for n, kind in kinds.items() if kind in ("Image", "Array2D", "Array3D")]
    return typed or [n for n in kinds if n.lower() in IMAGES]


def _classes(part: Any, features: Any, columns: tuple[str, str] | None) -> list[str] | None:
    """Return the class names: of a ClassLabel column, or torchvision's `classes` (a subset's in its whole data set)."""
    names = getattr(features[columns[1]], "names", None) if columns else getattr(part, "classes", None)
    if names is None and columns is None and hasattr(part, "dataset"):
        return _classes(part.dataset, None, None)
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) < 2:
        return None
    return [str(name) for name in names]


def _pixels(image: Any) -> NDArray[Any]:
    """Convert an image to (height, width, channels): from Pillow, a tensor (channels first), or an array."""
    if hasattr(image, "convert"):
        return to_pixels(image)
    tensor = hasattr(image, "detach")
    pixels = np.asarray(image.detach().cpu().numpy() if tensor else image)
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    if pixels.ndim == 2:
        return pixels[..., np.newaxis]
    if pixels.ndim != 3:
        raise ValueError(f"an image has shape {pixels.shape}")
    first, _ = channels_first(pixels.shape, tensor)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)) if first else pixels


def _resized(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    if pixels.dtype in (np.uint8, np.float32):
        return np.asarray(resize(pixels[None], size)[0])
    return np.asarray(resize(pixels[None].astype(np.float32), size)[0].round().astype(pixels.dtype))


def _label(label: Any) -> Any:
    """Convert a label to a plain number or name."""
    plain = label.item() if hasattr(label, "item") else label
    if not isinstance(plain, int | float | str) or plain is None:
        raise ValueError(f"a label is {type(label).__name__}")
    return plain


def _stacked(images: list[NDArray[Any]], where: str) -> NDArray[Any]:
    """Stack images of one type and shape; grey images among coloured ones get three channels."""
    types = {image.dtype: i for i, image in reversed(list(enumerate(images)))}
    if len({"f" if dtype.kind == "f" else dtype for dtype in types}) > 1:
        text = " and ".join(f"item {i} {dtype}" for dtype, i in sorted(types.items(), key=lambda t: t[1])[:2])
        raise DataError(f"images of {where} differ, {text}; expected one type and one range; convert them")
    shapes = {image.shape for image in images}
    if {shape[2] for shape in shapes} == {1, 3}:  # grey images among coloured ones
        images = [np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image for image in images]
        shapes = {image.shape for image in images}
    if len(shapes) > 1:
        few = " and ".join(map(str, sorted(shapes)[:2]))
        raise DataError(f"images of {where} have shapes {few}; expected one shape; resize them with --size (size=)")
    return np.stack(images)


def _name(source: Any) -> str:
    part = next(iter(source.values())) if isinstance(source, Mapping) else source
    if is_pair(part):
        return "arrays"
    info = getattr(getattr(part, "info", None), "dataset_name", None)
    return str(info) if info else type(part).__name__
