"""Values of masks as classes: by the names of the classes where they are known, else each value is a class.

The value 255 is an ignored pixel by convention (PASCAL VOC, Cityscapes), unless the masks hold 0 and 255 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.blocks import blocks
from ripieno.data.raw_targets import RawTargets
from ripieno.errors import DataError
from ripieno.tasks.labels import shown
from ripieno.types import IGNORED

VALUES = 256
"""Number of the values of a mask, 0 to 255."""
_NEGATIVE = (-1, -100)
"""Ignored pixels of arrays by the conventions of libraries: 255 in a signed byte, and PyTorch's `ignore_index`."""
_BINARY = (0, 255)


@dataclass(frozen=True, eq=False)
class MaskClasses:
    """Classes of a source's masks."""

    names: tuple[str, ...]
    table: NDArray[np.uint8]
    """(256,): the index of a value's class, or `IGNORED`"""
    known: NDArray[np.bool_]
    """(256,): whether a value has a class or is ignored"""
    namer: str = ""
    """what names the classes, in messages; empty: the values do"""

    def unknown(self, present: NDArray[np.bool_]) -> str:
        """Return a message on the first of the values `present` (256,) without a class; empty: there is none."""
        values = np.flatnonzero(present & ~self.known)
        if not len(values):
            return ""
        held = f"{values[0]}, but {self.namer or 'the data'} names {len(self.names)} classes: {shown(self.names)}"
        return f"{held}; name its class, or ignore it with --ignore {values[0]} (ignore=)"

    def held(self, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which classes masks hold, (samples, classes), from their values `present` (samples, 256)."""
        columns = [present[:, self.table == index].any(axis=1) for index in range(len(self.names))]
        return np.stack(columns, axis=1)

    @property
    def is_identity(self) -> bool:
        """True where each value is the index of its class already."""
        return bool((self.table[self.known] == np.arange(VALUES)[self.known]).all())


def mask_classes(
    present: NDArray[np.bool_],
    names: Sequence[str] | None,
    ignore: Sequence[str],
    where: str,
    notes: list[str],
    namer: str = "",
) -> MaskClasses:
    """Return the classes of masks that hold the values `present` (samples, 256).

    `names` are those of the values from 0, which `namer` gives; None: the values are the names. `ignore` names values
    and classes whose pixels are ignored; later classes move up. A note reports values with gaps. Raises DataError for
    an unknown name, for more names than values, and where no two classes remain.
    """
    if names is not None and len(names) > VALUES:
        raise DataError(f"{namer or 'the data'} names {len(names)} classes; masks hold at most {IGNORED}")
    ignored, found = _ignored_values(names, ignore), np.flatnonzero(present.sum(axis=0)).tolist()
    binary = set(found) == set(_BINARY) and not ignored
    if not binary:
        ignored.add(IGNORED)
    table, known = np.full(VALUES, IGNORED, np.uint8), np.zeros(VALUES, np.bool_)
    known[list(ignored)] = True
    if names is None:
        values = [value for value in found if value not in ignored]
        kept = tuple(str(value) for value in values)
        if values != list(range(len(values))):
            notes.append(
                f"masks of {where} hold the values {shown(kept)}: each is a class; name classes from 0 in a "
                "classes.txt next to their folder"
            )
    else:
        values = [value for value in range(len(names)) if value not in ignored]
        kept = tuple(str(names[value]) for value in values)
        if binary and len(names) == 2:
            values = [*_BINARY]
    if len(kept) < 2:
        held = f"only the class {kept[0]!r}" if kept else "no class"
        raise DataError(f"masks of {where} hold {held}; expected at least two classes, indices from 0")
    table[values] = np.arange(len(values))
    known[values] = True
    return MaskClasses(kept, table, known, namer)


def _ignored_values(names: Sequence[str] | None, ignore: Sequence[str]) -> set[int]:
    """Return the values that `ignore` names. Raises DataError for what is neither a class nor a value."""
    values = set()
    for one in ignore:
        if names is not None and one in names:
            values.add(list(names).index(one))
        elif one.isascii() and one.isdigit() and int(one) < VALUES:
            values.add(int(one))
        elif one in map(str, _NEGATIVE):
            values.add(IGNORED)  # as which they are read
        else:
            expected = "expected a value of masks, 0 to 255" + (f", or one of {shown(names)}" if names else "")
            raise DataError(f"ignore is {one!r}: {expected} (--ignore)")
    return values


def present_values(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which values occur in `masks`, of any shape: (256,)."""
    return np.bincount(masks.reshape(-1), minlength=VALUES) > 0


def read_masks(
    parts: Sequence[RawTargets], names: Sequence[str] | None, ignore: Sequence[str], notes: list[str]
) -> tuple[list[NDArray[np.uint8]], tuple[str, ...]]:
    """Read arrays of masks as uint8 (samples, height, width) of classes, and return them with the names of the classes.

    Masks hold whole numbers 0 to 255; -1 and -100 are ignored pixels. They may have a further axis of length 1. Masks
    that are indices of classes already are not copied. Raises DataError, in one line, for other shapes and values.
    """
    masks = [_whole_masks(part) for part in parts]
    present = [_presence(array) for array in masks]
    where = parts[0].where
    namer = "" if names is None else "the data"
    if any(_has_negative(part.values) for part in parts):
        ignore = (*ignore, str(_NEGATIVE[0]))  # so that what is read as 255 is no class next to 0
    classes = mask_classes(np.concatenate(present), names, ignore, where, notes, namer)
    for part, held in zip(parts, present, strict=True):
        for sample in np.flatnonzero(held[:, ~classes.known].any(axis=1))[:1]:
            raise DataError(f"masks of {part.where} hold, in {part.row(sample)}, {classes.unknown(held[sample])}")
    if classes.is_identity:
        return masks, classes.names
    return [_coded(array, classes.table) for array in masks], classes.names


def is_masks(values: NDArray[Any]) -> bool:
    """Return whether targets have the form of masks: whole numbers with two axes for each sample."""
    return values.ndim >= 3 and values.dtype.kind in "biu"


def _whole_masks(part: RawTargets) -> NDArray[np.uint8]:
    """Return masks (samples, height, width) as uint8. Raises DataError for other shapes and values."""
    array = part.values
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        held = f"targets of {part.where} have shape {part.values.shape}"
        raise DataError(f"{held}; expected masks (samples, height, width), an index of a class for each pixel")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise DataError(f"masks of {part.where} hold {array.dtype}; expected whole numbers, 0 to 255; convert them")
    masks = np.empty(array.shape, np.uint8)
    for block in blocks(array):
        values = array[block]
        ignored = np.isin(values, _NEGATIVE)
        wrong = ~ignored & ~((values >= 0) & (values < VALUES))
        if array.dtype.kind == "f":
            wrong |= values != np.floor(values)
        if wrong.any():
            sample = int(np.argwhere(wrong)[0, 0])
            held = f"{values[wrong][0]:g}, {part.row(block.start + sample)}"
            raise DataError(f"masks of {part.where} hold {held}; expected whole numbers, 0 to 255")
        masks[block] = np.where(ignored, IGNORED, values)
    return masks


def _has_negative(masks: NDArray[Any]) -> bool:
    """Return whether masks, of values that can be read, hold ignored pixels below 0."""
    return masks.dtype.kind in "if" and any((masks[block] < 0).any() for block in blocks(masks))


def _presence(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which values occur in each of `masks`, (samples, 256)."""
    return np.stack([present_values(np.asarray(mask)) for mask in masks])


def _coded(masks: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `masks` with each value replaced by that of `table`, block by block."""
    coded = np.empty(masks.shape, np.uint8)
    for block in blocks(masks):
        coded[block] = table[masks[block]]
    return coded
