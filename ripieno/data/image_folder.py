"""Image folders: one folder per class, optionally inside `train`, `valid` and `test` folders.

    images/cat/1.jpg  images/dog/2.png                     split by ripieno
    images/train/cat/1.jpg  images/test/cat/7.jpg  ...     the source's own test split is kept

First all headers are read for sizes and colours. Then threads decode all pictures (Pillow releases Python's lock),
block by block, into memory or, for folders larger than memory, into the data set's file.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.dataset import invalidate
from ripieno.data.image_io import Header, Kind, read_header, read_pixels, suffixes
from ripieno.data.samples import Samples, given_of
from ripieno.data.splits import check_class_sizes, splits_of
from ripieno.data.walk import NO_CLASS, NO_IMAGE, OURS, Walk, shown
from ripieno.errors import DataError, error_summary
from ripieno.resources import usable_cores
from ripieno.types import Split

BLOCK = 256
"""Pictures decoded between two writes and between two progress reports, at most."""
BLOCK_BYTES = 1 << 28
"""Bytes of pictures decoded between two writes, at most; a single larger picture is allowed."""
CountCallback = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A file, its class and its split."""

    path: Path
    label: str
    split: Split


def read_folder(
    folder: Path,
    *,
    size: int | None,
    skip_bad: bool,
    progress: CountCallback | None,
    notes: list[str],
    target: Path | None,
    apart: Collection[Path] = (),
) -> Samples:
    """Decode all pictures below `folder` except in `apart`; write to the .npy file `target` and map it, when given.

    Pictures get one channel if all are grey, else RGB. Raises DataError (one line) for a folder without classes or
    pictures, a broken picture unless `skip_bad`, different sizes without `size`, and classes with too few pictures.
    """
    pictures, names = find_pictures(folder, notes, apart)
    index = {name: i for i, name in enumerate(names)}
    bad: list[str] = []
    # the pool's threads end with this block, even when it raises
    with ThreadPoolExecutor(min(16, len(usable_cores()))) as pool:
        headers = _successful(pool, lambda p: read_header(p.path), pictures, skip_bad, bad)
        if not headers:
            raise DataError(f"{folder} holds no readable picture: {bad[0]}")
        kind = _one_kind(headers)
        side = _one_size(headers, size)
        reduced = sum(header.reduced for _, header in headers)
        if reduced:
            notes.append(f"{reduced:,} pictures have 16 bits per colour channel; they are read with 8 bits")
        readable = [p for p, _ in headers]
        labels = np.array([index[p.label] for p in readable], np.int64)
        check_class_sizes(labels, _fixed_splits(readable), names)  # before the long work, not after
        channels = 3 if kind == "colour" else 1
        dtype = np.float32 if kind == "deep" else np.uint8
        _check_disk_space(len(readable), (*side, channels), dtype, target)
        step = max(1, min(BLOCK, BLOCK_BYTES // (math.prod(side) * channels * np.dtype(dtype).itemsize)))
        decoded: list[Picture] = []
        with _image_store(len(readable), (*side, channels), dtype, target) as (append, images):
            for start in range(0, len(readable), step):
                block = readable[start : start + step]
                kept = _successful(pool, lambda p: _pixels(p, kind, size), block, skip_bad, bad)
                if kept:
                    append(np.stack([pixels for _, pixels in kept]))
                decoded += [p for p, _ in kept]
                if progress is not None:
                    progress(start + len(block), len(readable))
            labels = np.array([index[p.label] for p in decoded], np.int64)
            check_class_sizes(labels, _fixed_splits(decoded), names)  # again, while the file can still be discarded
    if bad:
        notes.append(f"skipped {len(bad):,} broken image{'s' * (len(bad) > 1)}, the first: {bad[0]}")
    return Samples(shown(Path(folder.resolve().name)), images(), labels, _fixed_splits(decoded), names)


def find_pictures(
    folder: Path, notes: list[str], apart: Collection[Path] = ()
) -> tuple[list[Picture], tuple[str, ...]]:
    """List all pictures below `folder`, by class and path, and the class names; skip folders in `apart`.

    One note counts what is skipped. Raises DataError for a folder without classes or pictures, for class names that
    are not UTF-8, and for folders of which only some are splits.
    """
    walk, known = Walk(folder, apart), suffixes()
    tops, strays = walk.entries(folder)
    splits = _splits(folder, tops)
    places: list[tuple[Split, Path]] = [("train", top) for top in tops]
    if splits:
        places = []
        for split, top in splits:
            classes, plain = walk.entries(top)
            places += [(split, place) for place in classes]
            strays += plain
    pictures: list[Picture] = []
    names: set[str] = set()
    for split, place in places:
        label, ours = place.name, walk.skipped[OURS]
        if shown(Path(label)) != label:
            raise DataError(f"the folder {shown(place)} has a name that is not UTF-8; rename it, as it names the class")
        found = [Picture(path, label, split) for path in walk.pictures(place)]
        pictures += found
        # an empty folder is a class, so that its lack of images is reported; one with only runs of ripieno is none
        if found or walk.skipped[OURS] == ours:
            names.add(label)
    for path in strays:
        walk.skip(NO_CLASS if path.suffix.lower() in known else NO_IMAGE, path)
    if not pictures:
        _raise_empty(folder, tops, walk.skipped[NO_CLASS])
    notes += walk.notes()
    for split in {split for split, _ in splits} - {picture.split for picture in pictures}:
        notes.append(f"the {split} folder of {shown(folder)} holds no images of a class; other images are split for it")
    if not splits:
        _check_nested(folder, pictures, notes)
    return sorted(pictures, key=lambda p: (p.label, str(p.path))), tuple(sorted(names))


def _splits(folder: Path, tops: Sequence[Path]) -> list[tuple[Split, Path]]:
    """Return the folders among `tops` with their splits when all of them are splits; none when they are classes."""
    named = splits_of(top.name for top in tops)
    splits = [(split, top) for split, top in zip(named.values(), tops, strict=True) if split is not None]
    found = [split for split, _ in splits]
    if splits and len(splits) == len(tops):
        if len(set(found)) != len(found):
            raise DataError(f"{folder} has two folders for one split; expected at most train, valid and test")
        if "train" not in found:
            names = " and ".join(found)
            raise DataError(f"{folder} has {names} but no train folder; training images are required")
        return splits
    if "train" in found and len(set(found)) > 1:
        # split folders would become classes only because of another folder among them
        other = next(top.name for top, split in zip(tops, named.values(), strict=True) if split is None)
        names = " and ".join(top.name for _, top in splits)
        remedy = f"move {other} elsewhere; or, if all of them are classes, rename {names}"
        raise DataError(f"{folder} has split folders ({names}) and the folder {other}, which is no split; {remedy}")
    return []


def _raise_empty(folder: Path, tops: Sequence[Path], strays: int) -> None:
    expected = "expected one folder of images per class, such as cat/1.jpg and dog/2.jpg"
    if strays:
        raise DataError(f"{shown(folder)} holds {strays:,} images {NO_CLASS}; {expected}")
    if tops:
        raise DataError(f"{shown(folder)} holds no image that Pillow can read; {expected}")
    raise DataError(f"{shown(folder)} {'holds no folder' if any(folder.iterdir()) else 'is empty'}; {expected}")


def _check_nested(folder: Path, pictures: Sequence[Picture], notes: list[str]) -> None:
    """Add a note when the folders inside the classes may be the classes; raise DataError where one class remains."""
    inner: dict[str, set[str]] = {}
    for picture in pictures:
        below = picture.path.relative_to(folder).parts[1:-1]
        inner.setdefault(picture.label, set()).add(below[0] if below else "")
    common = set.intersection(*inner.values())
    if len(common) < 2 or any("" in names for names in inner.values()):
        return
    few = " and ".join(sorted(common)[:2])
    if len(inner) == 1:
        top = folder / next(iter(inner))
        must = "the path must be that of the folder with the class folders"
        raise DataError(f"{shown(folder)} holds one folder, which holds {few} ...; {must}: {shown(top)}")
    tops = " and ".join(sorted(inner)[:2])
    remedy = "if those are the classes, name the folders above them train, valid and test"
    notes.append(f"{tops} are read as classes, though each holds folders such as {few}; {remedy}")


def _fixed_splits(pictures: Sequence[Picture]) -> NDArray[np.int8]:
    return np.concatenate([given_of(p.split, 1) for p in pictures] or [np.empty(0, np.int8)])


def _pixels(picture: Picture, kind: Kind, size: int | None) -> NDArray[Any]:
    pixels = read_pixels(picture.path, kind, size)
    if kind == "deep" and not np.isfinite(pixels).all():
        raise ValueError("holds NaN or infinity")
    return pixels


def _successful(
    pool: Executor, work: Callable[[Picture], T], pictures: Sequence[Picture], skip_bad: bool, bad: list[str]
) -> list[tuple[Picture, T]]:
    """Return pictures with the results of `work`; append a line per broken picture to `bad`, or raise the line."""
    futures = [pool.submit(work, picture) for picture in pictures]
    kept = []
    for picture, future in zip(pictures, futures, strict=True):
        try:
            kept.append((picture, future.result()))
        except Exception as error:  # Pillow's plugins raise many types for broken files
            line = f"{picture.path} {fault(error, picture.path)}"
            if not skip_bad:
                for other in futures:
                    other.cancel()
                remedy = "repair or remove it, or skip all broken pictures with --skip-bad"
                raise DataError(f"{line}; {remedy}") from error
            bad.append(line)
    return kept


def fault(error: Exception, path: Path) -> str:
    """Return the fault of a picture as a predicate for its name."""
    if isinstance(error, DataError):  # its message states the fault
        return str(error).partition("; ")[0]
    reason = error_summary(error).replace(str(path), "file")
    return f"needs too much memory ({reason})" if isinstance(error, MemoryError) else f"is broken ({reason})"


def _one_kind(headers: Sequence[tuple[Picture, Header]]) -> Kind:
    kinds: dict[Kind, Path] = {}
    for picture, header in headers:
        kinds.setdefault(header.kind, picture.path)
    if "deep" in kinds and len(kinds) > 1:
        shallow = next(path for kind, path in kinds.items() if kind != "deep")
        expected = "expected the same depth for all; convert them"
        raise DataError(f"{kinds['deep']} has more than 8 bits a sample and {shallow} has 8; {expected}")
    depths = {header.depth: picture.path for picture, header in headers}
    if "floats" in depths and len(depths) > 1:
        depth = next(depth for depth in depths if depth != "floats")
        raise DataError(f"{depths['floats']} holds floats and {depths[depth]} {depth}; convert them to one type")
    return next(iter(kinds)) if len(kinds) == 1 else "colour"


def _one_size(headers: Sequence[tuple[Picture, Header]], size: int | None) -> tuple[int, int]:
    """Return the height and width that all pictures will have."""
    if size is not None:
        return size, size
    first, other = headers[0], next((h for h in headers if h[1].shape != headers[0][1].shape), None)
    if other is None:
        return first[1].shape
    sizes = " but ".join(f"{p.path} has {h.shape[1]} x {h.shape[0]} pixels" for p, h in (first, other))
    raise DataError(f"{sizes}; expected one size; resize all to N x N with --size N")


def _check_disk_space(rows: int, shape: tuple[int, ...], dtype: type[np.generic], target: Path | None) -> None:
    """Raise DataError when the disk of `target` has too little free space for the decoded images."""
    if target is None:
        return
    there = next(p for p in target.absolute().parents if p.exists())
    needed, free = rows * math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(there).free
    if needed > free:
        sizes = f"{rows:,} images of {shape[0]} x {shape[1]} pixels take {needed / 1e9:.1f} GB, {there} has"
        raise DataError(f"{sizes} {free / 1e9:.1f} GB free; choose a smaller --size or another folder")


@contextmanager
def _image_store(
    rows: int, shape: tuple[int, ...], dtype: type[np.generic], target: Path | None
) -> Iterator[tuple[Callable[[NDArray[Any]], None], Callable[[], NDArray[Any]]]]:
    """Provide a store for at most `rows` images: a function to append a block, and one to get all after the block."""
    if target is not None:
        with files.array_writer(target, shape, dtype) as append:
            yield append, lambda: files.read_array(target)
            invalidate(target.parent)
        return
    images, filled = np.empty((rows, *shape), dtype), 0

    def fill(block: NDArray[Any]) -> None:
        nonlocal filled
        images[filled : filled + len(block)] = block
        filled += len(block)

    yield fill, lambda: images[:filled]
