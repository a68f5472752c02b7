"""Adapters for other libraries' data sets: Hugging Face `datasets`, PyTorch `Dataset`, and mappings of splits to them.

A split may also be a pair of arrays (inputs, targets). The other libraries are not imported: a data set is recognised
by its interface. A Hugging Face data set has `features` and rows that are mappings; a PyTorch one has items (inputs,
target, ...). Both are read once, item by item. Inputs are pictures, or arrays of one to three axes, whose kind of data
`ripieno.data_kinds.infer_data_kind` defines. A target is a number, a name, a list of labels, an array of numbers, or a
mask: a picture or an array of two axes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from zlib import adler32, crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.data.hugging_face import FeatureColumns, find_columns, find_input_column, plain_rows, split_row
from ripieno.data.image_io import resize, to_pixels
from ripieno.data.mask_classes import read_masks
from ripieno.data.mask_io import fit_mask, read_mask
from ripieno.data.pictures import propose_size
from ripieno.data.pixels import channels_first
from ripieno.data.raw_targets import RawTargets, as_array
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.series import pad, unequal_series
from ripieno.data.splits import splits_of
from ripieno.data.targets import SEGMENTATION
from ripieno.data_kinds import DATA_KINDS, infer_data_kind
from ripieno.errors import DataError, error_summary
from ripieno.tasks.labels import read_labels
from ripieno.types import DataKind, Split

MANY = 4096
"""Approximate number of items in a checksum that distinguishes data sets."""
EXPECTED = "it must give (input, target) items, such as an image and its label, or rows with a column of each"


class Items(Protocol):
    """Minimal interface of another library's data set: item access."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the item, or the column, at `index`."""


Pair = tuple[ArrayLike, Any]
ExternalData = Items | Mapping[str, Items | Pair]


def is_external_dataset(source: object) -> bool:
    """Return whether `source` is another library's data set, or a mapping of splits to such or to (inputs, targets)."""
    if isinstance(source, Mapping):
        return bool(source) and all(is_external_dataset(part) or is_pair(part) for part in source.values())
    if isinstance(source, str | bytes | tuple | list | np.ndarray):
        return False
    return hasattr(source, "__getitem__") or hasattr(source, "__iter__")


def is_pair(source: object) -> bool:
    """Return whether `source` is (inputs, targets): as many of both, targets of one or two axes, lists or masks."""
    if not isinstance(source, tuple) or len(source) != 2:
        return False
    try:
        counts = [len(part) for part in source]
        inputs = 3 if unequal_series(source[0]) is not None else np.ndim(source[0])
        targets = as_array(source[1], "a pair").ndim
        both_arrays = isinstance(source[0], np.ndarray) and isinstance(source[1], np.ndarray)
        has_masks = targets > 2 and inputs > 2 and both_arrays
        return counts[0] == counts[1] and (targets == 1 or has_masks or (targets == 2 and (inputs > 2 or both_arrays)))
    except (TypeError, ValueError, DataError):
        return False


def pair_arrays(source: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the arrays of a pair (inputs, targets), series of unequal lengths padded. Raises DataError for others."""
    if not isinstance(source, tuple) or len(source) != 2:
        expected = "a path, a Dataset, a pair (inputs, targets), or a Hugging Face or PyTorch data set"
        raise DataError(f"data is {type(source).__name__}: it must be {expected}")
    try:
        unequal = unequal_series(source[0])
        inputs = np.asanyarray(source[0]) if unequal is None else pad(unequal)
        return inputs, as_array(source[1], "the arrays")
    except ValueError as error:
        raise DataError(f"inputs are no arrays: {error}") from error


def read_external(
    source: Any,
    size: int | None,
    notes: list[str],
    task: str | None = None,
    target: Sequence[str] = (),
    kind: DataKind | None = None,
    ignore: Sequence[str] = (),
) -> Samples:
    """Read the samples of another library's data set; without `size`, images of several sizes get one.

    A mapping names its splits: train, valid (validation, val, dev), test; each may also be (inputs, targets). `task`,
    `target`, `kind` and `ignore` are those of `load_dataset`. Raises DataError naming the unusable item and its split,
    and the expectation.
    """
    splits = {split: plain_rows(part) for split, part in _splits(source).items()}
    wheres = {split: f"the {split} split" if len(splits) > 1 else "the data" for split in splits}
    if size is not None and (kind is None or DATA_KINDS[kind].is_picture):
        kind = "image"
    items = {s: _read(part, wheres[s], size, target, kind) for s, part in splits.items() if not is_pair(part)}
    if not items and target:
        raise DataError(f"target {target[0]!r} names a column, but arrays have none; leave target out")
    inputs = [one for part in items.values() for one in part.inputs]
    unequal = any(len({one.shape for one in part.inputs}) > 1 for part in items.values())
    if kind is None and unequal and not _are_pictures(inputs, kind):
        kind = "series"  # of unequal lengths
    if inputs and _are_pictures(inputs, kind):
        kind = "image"
        for part in items.values():
            part.inputs[:] = [_as_picture(one) for one in part.inputs]
        if size is None:
            _make_one_size([part.inputs for part in items.values()], notes)
    parts: list[SplitArrays] = []
    names: list[str] | None = None
    if any(_is_mask(target) for part in items.values() for target in part.targets):
        classes = _code_masks(items, wheres, ignore, notes)
        items = {split: part._replace(classes=classes) for split, part in items.items()}
        task, ignore = task or SEGMENTATION, ("-1",)
    columns: Sequence[str] = target
    own: dict[int, list[str]] = {}
    for split, part in splits.items():
        where = wheres[split]
        if is_pair(part):
            parts.append(SplitArrays(part[0], as_array(part[1], where), where, split))
            continue
        read = items[split]
        names, columns = names or read.classes, columns or read.columns
        if read.classes is not None:
            own[len(parts)] = read.classes
        array = _stacked(read.inputs, where, kind)
        parts.append(SplitArrays(array, _target_array(read.targets, where), where, split, channels_last=True))
    if any(classes != names and not set(classes).isdisjoint(names or []) for classes in own.values()):
        # the splits number the same classes differently, so their labels are joined by name
        parts = [_with_names(part, own.get(place, names or [])) for place, part in enumerate(parts)]
    return join(
        _name(source), parts, names, notes, positions=True, task=task, kind=kind, columns=columns, ignore=ignore
    )


def _are_pictures(inputs: Sequence[NDArray[Any]], kind: DataKind | None) -> bool:
    """Return whether inputs of items are images: by `kind`, else where one has three axes, else as the first is."""
    if kind is None:
        has_channels = any(one.ndim == 3 for one in inputs)
        kind = "image" if has_channels else infer_data_kind(inputs[0].shape, inputs[0].dtype)
    return DATA_KINDS[kind].is_picture


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


def _make_one_size(splits: Sequence[list[NDArray[Any]]], notes: list[str]) -> None:
    """Resize all images to one proposed size, in place, where they have several."""
    shapes = [(image.shape[0], image.shape[1]) for images in splits for image in images]
    if len(set(shapes)) > 1:
        size = propose_size(shapes, notes)
        for images in splits:
            images[:] = [_resized(image, size) for image in images]


def _code_masks(
    items: Mapping[Split, _Items], wheres: Mapping[Split, str], ignore: Sequence[str], notes: list[str]
) -> list[str]:
    """Replace the values of all masks by classes, in place, at the size of their images; return the classes' names."""
    names = next((part.classes for part in items.values() if part.classes is not None), None)
    masks = [
        RawTargets(np.asarray(target)[np.newaxis], wheres[split], (f"item {number}",))
        for split, part in items.items()
        for number, target in enumerate(part.targets)
    ]
    coded, classes = read_masks(masks, names, ignore, notes)
    rest = iter(coded)
    for part in items.values():
        part.targets[:] = [fit_mask(next(rest)[0], *image.shape[:2]) for image in part.inputs]
    return list(classes)


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

    Inputs that random augmentation changes on every access are not hashed; their targets are.
    """
    count = len(source) if hasattr(source, "__len__") and hasattr(source, "__getitem__") else 0
    size, rows = f"{count:,} items of {_name(source)}", range(0, count, max(1, count // MANY))
    try:
        source = plain_rows(source)
        columns = find_columns(getattr(source, "features", None), "the data", target)
        found, again = (_checksum((source[i] for i in rows), columns) for _ in range(2))
        if found != again:
            found = _checksum((source[i] for i in rows), columns, with_inputs=False)
    except Exception:  # any error of the user's data set: the full read reports which item
        return size, size
    return size, f"{size}, {found:08x}"


def _checksum(items: Iterable[Any], columns: FeatureColumns | None, with_inputs: bool = True) -> int:
    """Return the CRC-32 of inputs and targets, or of targets alone."""
    found = 0
    for item in items:
        columns = columns or find_columns(item, "the data", ())
        given, target = _split_item(item, columns)
        array, own = _input_array(given) if with_inputs else np.empty(0), _target(target)
        shown = adler32(own.tobytes()) if _is_mask(own) else own  # the text of a mask leaves most pixels out
        found = crc32(array.tobytes(), crc32(f"{array.shape} {array.dtype} {shown}".encode(), found))
    return found


class _Items(NamedTuple):
    """Content of a data set that is read item by item."""

    inputs: list[NDArray[Any]]
    targets: list[Any]
    classes: list[str] | None
    """names of the classes or labels, where they are known"""
    columns: tuple[str, ...]
    """names of the columns of targets, where there are any"""


def _read(part: Any, where: str, size: int | None, target: Sequence[str], kind: DataKind | None) -> _Items:
    """Read inputs and targets; images are resized to `size` at once, when given."""
    columns = find_columns(getattr(part, "features", None), where, target)
    inputs: list[NDArray[Any]] = []
    targets: list[Any] = []
    for item in _items(part, where):
        with _item_errors(len(inputs), where):
            columns = columns or find_columns(item, where, target)
            given, one = _split_item(item, columns)
            array = _input_array(given)
            targets.append(_target(one))
            _check_mask(targets[-1], array)
            inputs.append(_resized(_as_picture(array), size) if size is not None and kind == "image" else array)
    if not inputs:
        raise DataError(f"{where} holds no items: {EXPECTED}")
    if target and columns is None:
        raise DataError(f"target {target[0]!r} names a column, but items of {where} have none; leave target out")
    if columns is None:
        return _Items(inputs, targets, _classes(part), ())
    return _Items(inputs, targets, columns.classes, columns.targets)


def _split_item(item: Any, columns: FeatureColumns | None) -> tuple[Any, Any]:
    """Return inputs and target of an item. Raises ValueError for an item without a target."""
    if columns is not None:
        return split_row(item, columns)
    if hasattr(item, "convert") or hasattr(item, "__array__") or (isinstance(item, Sequence) and len(item) < 2):
        raise ValueError("it has no target")
    return item[0], item[1]


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
    source = plain_rows(source)
    column = find_input_column(getattr(source, "features", None))
    for number, item in enumerate(_items(source, "the data")):
        with _item_errors(number, "the data"):
            column = column or find_input_column(item)
            image = item[column] if column else item[0] if isinstance(item, tuple | list) else item
            image = image if hasattr(image, "convert") else _input_array(image)
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


def _classes(part: Any) -> list[str] | None:
    """Return the class names in torchvision's `classes`; those of a subset are in its whole data set."""
    names = getattr(part, "classes", None)
    if names is None and hasattr(part, "dataset"):
        return _classes(part.dataset)
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) < 2:
        return None
    return [str(name) for name in names]


def _input_array(given: Any) -> NDArray[Any]:
    """Convert inputs to an array of one to three axes, three being (height, width, channels).

    They are a Pillow picture, a tensor (three axes: channels first) or an array. Raises ValueError for anything else.
    """
    if hasattr(given, "convert"):
        return to_pixels(given)
    tensor = hasattr(given, "detach")
    array = np.asarray(given.detach().cpu().numpy() if tensor else given)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"its input is {type(given).__name__}, no picture or array of numbers")
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    if array.ndim not in (1, 2, 3):
        raise ValueError(f"its input has shape {array.shape}, expected one to three axes")
    if array.ndim < 3:
        return array
    first, _ = channels_first(array.shape, tensor)
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if first else array


def _as_picture(array: NDArray[Any]) -> NDArray[Any]:
    """Return an image as (height, width, channels). Raises DataError for an array of one axis."""
    if array.ndim < 2:
        raise DataError(f"an image has shape {array.shape}; expected (height, width[, channels])")
    return array if array.ndim == 3 else array[..., np.newaxis]


def _resized(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    if pixels.dtype in (np.uint8, np.float32):
        return np.asarray(resize(pixels[None], size)[0])
    return np.asarray(resize(pixels[None].astype(np.float32), size)[0].round().astype(pixels.dtype))


def _target(target: Any) -> Any:
    """Convert a target to a plain number or name, a tuple of labels, an array of numbers, or a mask (height, width)."""
    if hasattr(target, "detach"):
        target = target.detach().cpu().numpy()
    if hasattr(target, "convert"):
        return read_mask(target)
    if isinstance(target, np.ndarray) and target.ndim > 1:
        return target.squeeze() if target.ndim > 2 else target
    if isinstance(target, np.ndarray) and target.ndim == 1:
        return target
    if isinstance(target, list | tuple | set | frozenset):
        return tuple(_target(label) for label in target)
    plain = target.item() if hasattr(target, "item") else target
    if not isinstance(plain, int | float | str) or plain is None:
        raise ValueError(f"a target is {type(target).__name__}")
    return plain


def _check_mask(target: Any, image: NDArray[Any]) -> None:
    """Raise ValueError for a mask of another size than its image."""
    if _is_mask(target) and target.shape != image.shape[:2]:
        raise ValueError(f"its mask has shape {target.shape}, its image {image.shape}")


def _is_mask(target: Any) -> bool:
    return isinstance(target, np.ndarray) and target.ndim > 1


def _stacked(inputs: list[NDArray[Any]], where: str, kind: DataKind | None) -> NDArray[Any]:
    """Stack inputs of one type and shape; grey images among coloured ones get three channels."""
    types = {one.dtype: i for i, one in reversed(list(enumerate(inputs)))}
    if len({"f" if dtype.kind == "f" else dtype for dtype in types}) > 1:
        text = " and ".join(f"item {i} {dtype}" for dtype, i in sorted(types.items(), key=lambda t: t[1])[:2])
        raise DataError(f"inputs of {where} differ, {text}; expected one type and one range; convert them")
    shapes = {one.shape for one in inputs}
    if {shape[2:] for shape in shapes} == {(1,), (3,)}:  # grey images among coloured ones
        inputs = [np.repeat(one, 3, axis=2) if one.shape[2] == 1 else one for one in inputs]
        shapes = {one.shape for one in inputs}
    if len(shapes) > 1 and kind == "series" and (series := unequal_series(inputs)) is not None:
        return pad(series)
    if len(shapes) > 1:
        few = " and ".join(map(str, sorted(shapes)[:2]))
        advice = "resize them with --size (size=)" if kind == "image" else "cut or pad them"
        raise DataError(f"inputs of {where} have shapes {few}; expected one shape; {advice}")
    return np.stack(inputs)


def _name(source: Any) -> str:
    part = next(iter(source.values())) if isinstance(source, Mapping) else source
    if is_pair(part):
        return "arrays"
    info = getattr(getattr(part, "info", None), "dataset_name", None)
    return str(info) if info else type(part).__name__
