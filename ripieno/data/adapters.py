"""Adapters for other libraries' data sets: Hugging Face `datasets`, PyTorch `Dataset`, and mappings of splits to them.

A split may also be a pair of arrays (inputs, targets). The other libraries are not imported: a data set is recognised
by its interface. A Hugging Face data set has `features` and rows that are mappings; a PyTorch one has items (image,
target, ...). Both are read once, item by item. A target is a number, a name, a list of labels or an array of numbers.
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
from ripieno.data.pictures import propose_size
from ripieno.data.pixels import channels_first
from ripieno.data.raw_targets import as_array
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.splits import splits_of
from ripieno.errors import DataError, error_summary
from ripieno.tasks.labels import read_labels
from ripieno.types import DataKind, Split

MANY = 4096
"""Approximate number of items in a checksum that distinguishes data sets."""
EXPECTED = "it must give (image, label) items, or rows with an image and a label column"


class Items(Protocol):
    """Minimal interface of another library's data set: item access."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the item, or the column, at `index`."""


Pair = tuple[ArrayLike, Any]
ExternalData = Items | Mapping[str, Items | Pair]
Columns = tuple[str, tuple[str, ...]]
"""Names of the column of images, and of those of targets."""


def is_external_dataset(source: object) -> bool:
    """Return whether `source` is another library's data set, or a mapping of splits to such or to (inputs, targets)."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_external_dataset(part) or is_pair(part) for part in source.values())
    if isinstance(source, str | bytes | tuple | list | np.ndarray):
        return False
    return hasattr(source, "__getitem__") or hasattr(source, "__iter__")


def is_pair(source: object) -> bool:
    """Return whether `source` is (inputs, targets): as many of both, and targets of one or two axes, or lists."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    try:
        counts = [len(part) for part in source]
        inputs, targets = np.ndim(source[0]), as_array(source[1], "a pair").ndim
        both_arrays = isinstance(source[0], np.ndarray) and isinstance(source[1], np.ndarray)
        return counts[0] == counts[1] and (targets == 1 or (targets == 2 and (inputs > 2 or both_arrays)))
    except (TypeError, ValueError, DataError):
        return False


def pair_arrays(source: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the arrays of a pair (inputs, targets). Raises DataError for any other source."""
    if not isinstance(source, tuple) or len(source) != 2:
        expected = "a path, a Dataset, a pair (inputs, targets), or a Hugging Face or PyTorch data set"
        raise DataError(f"data is {type(source).__name__}: it must be {expected}")
    try:
        return np.asanyarray(source[0]), as_array(source[1], "the arrays")
    except ValueError as error:
        raise DataError(f"inputs are no arrays: {error}") from error


def read_external(
    source: Any,
    size: int | None,
    notes: list[str],
    task: str | None = None,
    target: Sequence[str] = (),
    kind: DataKind | None = None,
) -> Samples:
    """Read the samples of another library's data set; without `size`, images of several sizes get one.

    A mapping names its splits: train, valid (validation, val, dev), test; each may also be (inputs, targets). `task`,
    `target` and `kind` are those of `load_dataset`. Raises DataError naming the unusable item and its split, and the
    expectation.
    """
    splits = _splits(source)
    wheres = {split: f"the {split} split" if len(splits) > 1 else "the data" for split in splits}
    items = {s: _read(part, wheres[s], size, target) for s, part in splits.items() if not is_pair(part)}
    if not items and target:
        raise DataError(f"target {target[0]!r} names a column, but arrays have none; leave target out")
    if items and kind not in (None, "image"):
        raise DataError(f"items are read as images, not as {kind}; pass arrays for {kind}, or leave kind out")
    if size is None:
        _make_one_size([image for images, _, _ in items.values() for image in images], items, notes)
    parts: list[SplitArrays] = []
    names: list[str] | None = None
    own: dict[int, list[str]] = {}
    for split, part in splits.items():
        where = wheres[split]
        if is_pair(part):
            parts.append(SplitArrays(np.asanyarray(part[0]), as_array(part[1], where), where, split))
            continue
        images, targets, classes = items[split]
        names = names or classes
        if classes is not None:
            own[len(parts)] = classes
        array = _stacked(images, where)
        parts.append(SplitArrays(array, _target_array(targets, where), where, split, channels_last=True))
    if any(classes != names and not set(classes).isdisjoint(names or []) for classes in own.values()):
        # the splits number the same classes differently, so their labels are joined by name
        parts = [_with_names(part, own.get(place, names or [])) for place, part in enumerate(parts)]
    form: dict[str, Any] = {"task": task, "kind": "image" if items else kind, "columns": target}
    return join(_name(source), parts, names, notes, positions=True, **form)


def _splits(source: Any) -> dict[Split, Any]:
    """Return the parts of a source by their splits. Raises DataError for names that are no splits, or without train."""
    if not isinstance(source, Mapping):
        return {"train": source}
    named, given = splits_of(map(str, source)), ", ".join(map(str, source))
    unknown = [name for name, split in named.items() if split is None]
    if unknown:
        raise DataError(f"data has a split {unknown[0]!r}; expected train, valid and test; leave it out or rename it")
    splits = {split: part for split, part in zip(named.values(), source.values(), strict=True) if split}
    if len(splits) < len(source) or "train" not in splits:
        raise DataError(f"data has the splits {given}; expected train, and each split at most once")
    return splits


def _make_one_size(
    images: Sequence[NDArray[Any]], items: Mapping[Split, tuple[list[NDArray[Any]], Any, Any]], notes: list[str]
) -> None:
    """Resize all images of `items` to one proposed size, in place, where they have several."""
    shapes = [(image.shape[0], image.shape[1]) for image in images]
    if len(set(shapes)) > 1:
        size = propose_size(shapes, notes)
        for pictures, _, _ in items.values():
            pictures[:] = [_resized(image, size) for image in pictures]


def _target_array(targets: list[Any], where: str) -> NDArray[Any]:
    """Return the targets of items as one array. Raises DataError for arrays of several lengths."""
    if any(isinstance(target, np.ndarray) for target in targets):
        shapes = {np.shape(target) for target in targets}
        if len(shapes) > 1:
            few = " and ".join(map(str, sorted(shapes)[:2]))
            raise DataError(f"targets of {where} have shapes {few}; expected one shape, or lists of labels")
        return np.stack(targets)
    return as_array(targets, where)


def _with_names(part: SplitArrays, classes: Sequence[str]) -> SplitArrays:
    """Replace index labels by the names of their classes. Raises DataError for an index outside `classes`."""
    if part.targets.dtype.kind not in "iu" or part.targets.ndim != 1:
        return part
    labels = read_labels(part.targets, len(classes), f"labels of {part.where}", DataError)
    return dataclasses.replace(part, targets=np.array(classes)[labels])


def sample(source: Any, target: Sequence[str] = ()) -> tuple[str, str]:
    """Return the size of another library's data set as text, and a checksum of its items, at most some thousand.

    Images that random augmentation changes on every access are not hashed; their labels are.
    """
    count = len(source) if hasattr(source, "__len__") and hasattr(source, "__getitem__") else 0
    size, rows = f"{count:,} items of {_name(source)}", range(0, count, max(1, count // MANY))
    try:
        columns = _columns(getattr(source, "features", None), "the data", target)
        found, again = (_checksum((source[i] for i in rows), columns) for _ in range(2))
        if found != again:
            found = _checksum((source[i] for i in rows), columns, images=False)
    except Exception:  # any error of the user's data set: the full read reports which item
        return size, size
    return size, f"{size}, {found:08x}"


def _checksum(items: Iterable[Any], columns: Columns | None, images: bool = True) -> int:
    """Return the CRC-32 of images and targets, or of targets alone."""
    found = 0
    for item in items:
        columns = columns or _columns(item, "the data", ())
        image, target = _image_and_target(item, columns)
        pixels = _pixels(image) if images else np.empty(0)
        found = crc32(pixels.tobytes(), crc32(f"{pixels.shape} {pixels.dtype} {_target(target)}".encode(), found))
    return found


def _read(
    part: Any, where: str, size: int | None, target: Sequence[str]
) -> tuple[list[NDArray[Any]], list[Any], list[str] | None]:
    """Read images, targets and, where they are known, the names of the classes."""
    features = getattr(part, "features", None)
    columns = _columns(features, where, target)
    classes = _classes(part, features, columns)
    images: list[NDArray[Any]] = []
    targets: list[Any] = []
    for item in _items(part, where):
        with _item_errors(len(images), where):
            columns = columns or _columns(item, where, target)
            image, one = _image_and_target(item, columns)
            pixels = _pixels(image)
            targets.append(_target(one))
            images.append(pixels if size is None else _resized(pixels, size))
    if not images:
        raise DataError(f"{where} holds no items: {EXPECTED}")
    if target and columns is None:
        raise DataError(f"target {target[0]!r} names a column, but items of {where} have none; leave target out")
    return images, targets, classes


def _image_and_target(item: Any, columns: Columns | None) -> tuple[Any, Any]:
    """Return the image and the target of an item; several columns of targets are an array of numbers."""
    if columns is None:
        return item[0], item[1]
    image, targets = columns
    if len(targets) == 1:
        return item[image], item[targets[0]]
    missing = [name for name in targets if item[name] is None]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return item[image], np.array([item[name] for name in targets])


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


def _columns(features: Any, where: str, target: Sequence[str]) -> Columns | None:
    """Find the column of images and those of targets, by types, else by names; None when there are no columns.

    `target` names the columns of targets; without it a data set with one column besides the images needs no names.
    """
    if not isinstance(features, Mapping):
        return None
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    images = [name for name in _images(kinds) if name not in target]
    if target:
        unknown = next((name for name in target if name not in kinds), None)
        if unknown is not None:
            raise DataError(f"{where} has no target {unknown!r}; expected one of {', '.join(kinds)}")
        labels = list(target)
    else:
        labels = [n for n, feature in features.items() if _class_names(feature) is not None]
        labels = [n for n in labels if n.lower() in LABELS] or labels or [n for n in kinds if n.lower() in LABELS]
        labels = labels or [n for n in kinds if n not in images][: len(kinds) - 1 if len(kinds) == 2 else 0]
    if len(images) != 1 or (len(labels) != 1 and not target):
        raise DataError(
            f"{where} has the columns {', '.join(kinds)}; expected one of images and one of labels; "
            "choose two with select_columns, rename them image and label with rename_column, or name the target "
            "with --target"
        )
    return images[0], tuple(labels)


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel column, or of a column of lists of such; None for any other."""
    inner = feature[0] if isinstance(feature, list) and len(feature) == 1 else getattr(feature, "feature", feature)
    names = getattr(inner, "names", None) if type(inner).__name__ == "ClassLabel" else None
    return None if names is None else [str(name) for name in names]


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


def _classes(part: Any, features: Any, columns: Columns | None) -> list[str] | None:
    """Return the class names: of a ClassLabel column, or torchvision's `classes` (a subset's in its whole data set)."""
    if columns is not None:
        return _class_names(features[columns[1][0]]) if len(columns[1]) == 1 else None
    names = getattr(part, "classes", None)
    if names is None and hasattr(part, "dataset"):
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


def _target(target: Any) -> Any:
    """Convert a target to a plain number or name, a tuple of labels, or an array of numbers."""
    if hasattr(target, "detach"):
        target = target.detach().cpu().numpy()
    if isinstance(target, np.ndarray) and target.ndim == 1:
        return target
    if isinstance(target, list | tuple | set | frozenset):
        return tuple(_target(label) for label in target)
    plain = target.item() if hasattr(target, "item") else target
    if not isinstance(plain, int | float | str) or plain is None:
        raise ValueError(f"a target is {type(target).__name__}")
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
