"""Arrays of inputs and targets from readers, converted to one form: channels last, uint8 or float32; targets of a task.

A reader returns one `SplitArrays` per split; `join` checks them and makes one `Samples`. Arrays that have the form
already are never copied.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.blocks import blocks
from ripieno.data.pixels import channels_last, check_finite
from ripieno.data.raw_columns import RawColumns
from ripieno.data.raw_targets import RawTargets, as_array
from ripieno.data.series import join_series, pad, unequal_series
from ripieno.data.targets import SEGMENTATION, read_targets
from ripieno.data_kinds import DATA_KINDS, infer_data_kind
from ripieno.errors import DataError
from ripieno.types import SPLITS, Column, DataKind, Split, Task

UNASSIGNED = -1
"""Value of `Samples.fixed_split` for a sample without a split."""


@dataclass(frozen=True, eq=False)
class SplitArrays:
    """Inputs and targets of one split, as read: images (samples, height, width[, channels]), series or rows.

    The split "train" is divided further when the source has no validation or test split. `where` names the arrays in
    messages.
    """

    inputs: Any
    """array, or a list of series of unequal lengths"""
    targets: Any
    """array (samples,) or (samples, columns), lists of labels, or masks (samples, height, width)"""
    where: str
    split: Split = "train"
    channels_last: bool = False
    """whether the reader knows that the channels come last; otherwise the shape decides"""


@dataclass(frozen=True, eq=False)
class Samples:
    """Content of a source: inputs (uint8 or float32, channels last) and targets as in `Dataset`.

    `fixed_split` (samples,) is an index into `SPLITS` where the source names valid or test, else `UNASSIGNED`.
    """

    name: str
    inputs: NDArray[Any]
    targets: NDArray[Any]
    fixed_split: NDArray[np.int8]
    task: Task
    kind: DataKind = "image"
    table: RawColumns | None = None
    """of a table with named columns, which the split of its samples says how to encode; `inputs` are empty until then
    """
    files: NDArray[np.bytes_] | None = None
    """as in `Dataset`"""
    columns: tuple[Column, ...] = ()
    """of a table whose `inputs` are encoded already"""


def join(
    name: str,
    parts: Sequence[SplitArrays],
    names: Sequence[str] | None,
    notes: list[str],
    positions: bool = False,
    task: str | None = None,
    kind: DataKind | None = None,
    columns: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Samples:
    """Join all parts into one `Samples`; `names` are those of classes or labels, `columns` those of columns of targets.

    `ignore` names values and classes of masks whose pixels are ignored.

    With `positions`, numbers are indices into `names` by the definition of the source; without, they are first
    matched as names, see `ripieno.tasks.labels`. The kind of `task` and the `kind` of data are inferred when not given.

    Raises DataError (one line) for shapes, types, values or targets that cannot be used.
    """
    raw = [_array(part, kind) for part in parts]
    if kind is None and any(unequal_series(part.inputs) is not None for part in parts):
        kind = "series"
    kind = kind or _infer_kind(raw[0], parts[0].where, notes)
    laid_out = [_laid_out(array, part, kind, notes) for array, part in zip(raw, parts, strict=True)]
    if kind == "series":
        inputs: list[NDArray[Any]] = [*join_series(laid_out, [part.where for part in parts], notes)]
    elif kind == "table":
        inputs = _numbers(laid_out, parts)
    else:
        inputs = _one_type(laid_out, parts)
    read = [RawTargets(as_array(part.targets, part.where), part.where) for part in parts]
    for array, part in zip(inputs, read, strict=True):
        if len(part.values) != len(array):
            counts = f"{len(array):,} inputs but {len(part.values):,} targets"
            raise DataError(f"{part.where}: {counts}; expected one target for each input")
    targets, made = read_targets(read, names, notes, task=task, positions=positions, columns=columns, ignore=ignore)
    if made.kind == SEGMENTATION:
        _check_masks(inputs, targets, parts, kind)
    given = [given_of(part.split, len(array)) for part, array in zip(parts, inputs, strict=True)]
    if len(parts) == 1:
        return Samples(name, inputs[0], targets[0], given[0], made, kind)
    return Samples(name, np.concatenate(inputs), np.concatenate(targets), np.concatenate(given), made, kind)


def _check_masks(
    inputs: Sequence[NDArray[Any]], masks: Sequence[NDArray[Any]], parts: Sequence[SplitArrays], kind: DataKind
) -> None:
    """Raise DataError unless inputs are images of the size of their masks."""
    if not DATA_KINDS[kind].is_picture:
        raise DataError(f"masks of {parts[0].where} belong to images, but its inputs are of kind {kind} (--kind)")
    for array, own, part in zip(inputs, masks, parts, strict=True):
        if own.shape[1:] != array.shape[1:3]:
            (height, width), (rows, columns) = array.shape[1:3], own.shape[1:]
            sizes = f"{width} x {height} pixels and masks {columns} x {rows}"
            raise DataError(f"images of {part.where} have {sizes}; expected one size for both")


def given_of(split: Split, samples: int) -> NDArray[np.int8]:
    """Return `Samples.fixed_split` of `samples` samples from `split`."""
    return np.full(samples, UNASSIGNED if split == "train" else SPLITS.index(split), np.int8)


def file_names(paths: Sequence[Path], folder: Path) -> NDArray[np.bytes_]:
    """Return the names (samples,) of files: their paths below `folder`, whole paths of others."""
    below = (path.relative_to(folder) if path.is_relative_to(folder) else path for path in paths)
    return np.array([os.fsencode(path.as_posix()) for path in below])


def extremes(images: NDArray[Any]) -> NDArray[np.float64]:
    """Return the least and the largest pixel of each image (samples, 2)."""
    found = np.empty((len(images), 2))
    for block in blocks(images):
        rows = images[block].reshape(len(found[block]), -1)
        found[block, 0], found[block, 1] = rows.min(axis=1), rows.max(axis=1)
    return found


def _array(part: SplitArrays, kind: DataKind | None) -> NDArray[Any]:
    """Return the inputs of a part as an array; series of unequal lengths are padded with NaN."""
    unequal = unequal_series(part.inputs) if kind in (None, "series") else None
    return np.asanyarray(part.inputs) if unequal is None else pad(unequal)


def _infer_kind(inputs: NDArray[Any], where: str, notes: list[str]) -> DataKind:
    """Return the kind of data, see `infer_data_kind`; that three axes are a series is noted."""
    kind = infer_data_kind(inputs.shape[1:], inputs.dtype)
    if kind == "series":
        shape = f"inputs of {where} have shape {inputs.shape}"
        notes.append(f"{shape}: they are read as series {DATA_KINDS[kind].shape}; --kind image reads grey images")
        if inputs.ndim == 3 and inputs.shape[1] < inputs.shape[2]:
            turned = "if the channels come first, pass inputs.transpose(0, 2, 1)"
            notes.append(f"series of {where} have {inputs.shape[1]} points of {inputs.shape[2]} channels; {turned}")
    return kind


def _laid_out(inputs: NDArray[Any], part: SplitArrays, kind: DataKind, notes: list[str]) -> NDArray[Any]:
    """Return the inputs of a part with channels last; a layout known to the reader is not guessed from the shape."""
    traits = DATA_KINDS[kind]
    if traits.is_picture:
        known = part.channels_last and inputs.ndim == 4 and 0 not in inputs.shape
        return inputs if known else channels_last(inputs, part.where, notes)
    if inputs.ndim == len(traits.axes) and traits.axes[-1] == "channels":
        inputs = inputs[..., np.newaxis]
    if inputs.ndim != 1 + len(traits.axes) or 0 in inputs.shape:
        held = f"inputs of {part.where} have shape {inputs.shape}"
        raise DataError(f"{held}; {kind} data must be {traits.shape}, none of them 0")
    if isinstance(inputs, np.ma.MaskedArray):
        if np.ma.is_masked(inputs):
            raise DataError(f"inputs of {part.where} have masked values; fill them, for example with inputs.filled(0)")
        return inputs.data
    return inputs


def _numbers(arrays: list[NDArray[Any]], parts: Sequence[SplitArrays]) -> list[NDArray[Any]]:
    """Convert the rows of tables to float32, in which NaN is a missing value."""
    _check_alike(arrays, parts)
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        arrays = [array.astype(np.float32, copy=False) for array in arrays]
    for array, part in zip(arrays, parts, strict=True):
        for block in blocks(array):
            if (infinite := np.isinf(array[block]).any(axis=1)).any():
                held = f"sample {block.start + int(infinite.argmax())} of {part.where} holds infinity"
                raise DataError(f"{held}; inputs must be finite numbers, or NaN where they are missing; replace it")
    return arrays


def _check_alike(arrays: Sequence[NDArray[Any]], parts: Sequence[SplitArrays]) -> None:
    """Raise DataError unless all arrays hold numbers, in samples of one shape."""
    for array, part in zip(arrays, parts, strict=True):
        if array.dtype.kind not in "biuf":
            raise DataError(f"inputs of {part.where} hold {array.dtype}; expected numbers; convert them")
        if array.shape[1:] != arrays[0].shape[1:]:
            shapes = f"{arrays[0].shape[1:]} and {array.shape[1:]}"
            raise DataError(f"inputs of {parts[0].where} and {part.where} have shapes {shapes}; expected one shape")


def _one_type(arrays: list[NDArray[Any]], parts: Sequence[SplitArrays]) -> list[NDArray[Any]]:
    """Convert all arrays to uint8 (whole numbers 0 to 255, or booleans) or all to float32, with one image shape."""
    _check_alike(arrays, parts)
    first = parts[0].where
    for array, part in zip(arrays, parts, strict=True):
        if (array.dtype.kind == "f") != (arrays[0].dtype.kind == "f"):
            types = f"{arrays[0].dtype} and {array.dtype}"
            raise DataError(f"inputs of {first} and {part.where} hold {types}; expected one type and one unit")
    if all(a.dtype == np.uint8 for a in arrays):
        return arrays
    if arrays[0].dtype.kind == "f":
        # a float64 beyond the range of float32 becomes infinity, which check_finite reports
        with np.errstate(over="ignore"):
            arrays = [a.astype(np.float32, copy=False) for a in arrays]
        for array, part in zip(arrays, parts, strict=True):
            check_finite(extremes(array), f" of {part.where}")
        return arrays
    if all(a.dtype.kind == "b" for a in arrays):
        return [a.view(np.uint8) * np.uint8(255) for a in arrays]
    bytes_only = all(int(a.min()) >= 0 and int(a.max()) <= 255 for a in arrays)
    return [a.astype(np.uint8 if bytes_only else np.float32) for a in arrays]
