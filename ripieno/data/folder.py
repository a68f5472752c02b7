"""Image folders: a folder a class, and perhaps `train`, `valid` and `test` folders on top of them.

    images/cat/1.jpg  images/dog/2.png                     split by us
    images/train/cat/1.jpg  images/test/cat/7.jpg  ...     the source's own test split is kept

First all headers are read, which tells sizes and colours, then all pictures are decoded by threads (Pillow releases
Python's lock), block by block, into memory or, for folders larger than that, into the data set's file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.dataset import unfinish
from ripieno.data.npz import SPLIT_WORDS
from ripieno.data.pictures import Header, Kind, read_header, read_pixels, suffixes
from ripieno.data.samples import Samples, given_of
from ripieno.data.splits import check_classes
from ripieno.errors import DataError
from ripieno.limits import usable_cores
from ripieno.types import Split

BLOCK = 256
"""Pictures decoded between two writes, and between two reports of progress."""

Progress = Callable[[int, int], None]
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
    progress: Progress | None,
    notes: list[str],
    target: Path | None,
) -> Samples:
    """Decode all pictures below `folder`; to the .npy file `target` and mapped, when given.

    Pictures are one channel if all are grey, else RGB. Raises DataError (one line) for a folder without classes or
    pictures, a broken picture unless `skip_bad`, sizes that differ without `size`, classes with too few pictures.
    """
    pictures, names = _find(folder, notes)
    index = {name: i for i, name in enumerate(names)}
    bad: list[str] = []
    # the pool's threads end with this block, whatever is raised in it
    with ThreadPoolExecutor(min(16, len(usable_cores()))) as pool:
        headers = _kept(pictures, pool.map(_attempt(lambda p: read_header(p.path)), pictures), skip_bad, bad)
        if not headers:
            raise DataError(f"{folder} holds no readable picture: {bad[0]}")
        kind = _one_kind(headers)
        side = _one_size(headers, size)
        readable = [p for p, _ in headers]
        labels = np.array([index[p.label] for p in readable], np.int64)
        check_classes(labels, _given(readable), names)  # before the long work, not after
        channels = 3 if kind == "colour" else 1
        dtype = np.float32 if kind == "deep" else np.uint8
        decoded: list[Picture] = []
        with _room(len(readable), (*side, channels), dtype, target) as (append, images):
            for start in range(0, len(readable), BLOCK):
                block = readable[start : start + BLOCK]
                kept = _kept(block, pool.map(_attempt(lambda p: _pixels(p, kind, size)), block), skip_bad, bad)
                if kept:
                    append(np.stack([pixels for _, pixels in kept]))
                decoded += [p for p, _ in kept]
                if progress is not None:
                    progress(start + len(block), len(readable))
            labels = np.array([index[p.label] for p in decoded], np.int64)
            check_classes(labels, _given(decoded), names)  # again, while the file can still be dropped
    if bad:
        notes.append(f"left out {len(bad):,} broken image{'s' * (len(bad) > 1)}, the first: {bad[0]}")
    return Samples(folder.resolve().name, images(), labels, _given(decoded), names)


def _find(folder: Path, notes: list[str]) -> tuple[list[Picture], tuple[str, ...]]:
    """All pictures, by class and path, and the names of the classes."""
    tops = _folders(folder)
    if not tops:
        must = "it must hold one folder of images a class, such as cat/1.jpg and dog/2.jpg"
        raise DataError(f"{folder} {'holds no folder' if any(folder.iterdir()) else 'is empty'}: {must}")
    words = [SPLIT_WORDS.get(p.name.lower()) for p in tops]
    splits = [(word, p) for word, p in zip(words, tops, strict=True) if word is not None]
    if len(splits) == len(tops):
        _check_tops(folder, [s for s, _ in splits])
    else:
        _check_mixed(folder, splits, tops[words.index(None)])
        splits = [("train", folder)]
    known, other, pictures = suffixes(), [], []
    for split, top in splits:
        for path, label in _walk(top):
            if path.suffix.lower() in known:
                pictures.append(Picture(path, label, split))
            else:
                other.append(path)
    if not pictures:
        raise DataError(f"{folder} holds no image that Pillow can read: it must hold one folder of images a class")
    if other:
        others = f"{len(other):,} file{'s' * (len(other) > 1)}"
        notes.append(f"ignored {others} that by name are no images, the first: {other[0]}")
    # an empty folder counts as a class, so that its want of images is told
    names = tuple(sorted({p.name for _, top in splits for p in _folders(top)}))
    return sorted(pictures, key=lambda p: (p.label, str(p.path))), names


def _check_tops(folder: Path, splits: Sequence[Split]) -> None:
    if len(set(splits)) != len(splits):
        raise DataError(f"{folder} has two folders for one split: it must have at most train, valid and test")
    if "train" not in splits:
        raise DataError(f"{folder} has {' and '.join(splits)} but no train folder: it must have images to train on")


def _check_mixed(folder: Path, splits: Sequence[tuple[Split, Path]], other: Path) -> None:
    """Raise DataError where folders named as splits would become classes, only because `other` lies beside them."""
    found = {split for split, _ in splits}
    if "train" in found and len(found) > 1:
        names = " and ".join(p.name for _, p in splits)
        mend = f"move {other.name} elsewhere; or, if all of them are classes, give {names} other names"
        raise DataError(f"{folder} has folders of splits ({names}) beside {other.name}, which is none: {mend}")


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _walk(top: Path) -> Iterator[tuple[Path, str]]:
    """Visible files below the class folders of `top`, at any depth, each with its class."""
    for folder in _folders(top):
        for place, _, names in os.walk(folder):
            for name in names:
                if not name.startswith("."):
                    yield Path(place, name), folder.name


def _given(pictures: Sequence[Picture]) -> NDArray[np.int8]:
    return np.concatenate([given_of(p.split, 1) for p in pictures] or [np.empty(0, np.int8)])


def _pixels(picture: Picture, kind: Kind, size: int | None) -> NDArray[Any]:
    pixels = read_pixels(picture.path, kind, size)
    if kind == "deep" and not np.isfinite(pixels).all():
        raise ValueError("holds NaN or infinity")
    return pixels


def _attempt(work: Callable[[Picture], T]) -> Callable[[Picture], T | Exception]:
    """`work` that gives back what it raised: Pillow's plugins raise all kinds of exceptions for broken files."""

    def attempt(picture: Picture) -> T | Exception:
        try:
            return work(picture)
        except Exception as error:
            return error

    return attempt


def _kept(
    pictures: Sequence[Picture], results: Iterator[T | Exception], skip_bad: bool, bad: list[str]
) -> list[tuple[Picture, T]]:
    """Pictures with their results; the broken ones go to `bad` as lines, or raise the line."""
    kept = []
    for picture, result in zip(pictures, results, strict=True):
        if not isinstance(result, Exception):
            kept.append((picture, result))
            continue
        reason = str(result).replace(str(picture.path), "file").partition("\n")[0]
        if not skip_bad:
            mend = "mend or remove it, or leave out all such with --skip-bad"
            raise DataError(f"{picture.path} is broken ({reason}): {mend}") from result
        bad.append(f"{picture.path} ({reason})")
    return kept


def _one_kind(headers: Sequence[tuple[Picture, Header]]) -> Kind:
    kinds: dict[Kind, Path] = {}
    for picture, header in headers:
        kinds.setdefault(header.kind, picture.path)
    if "deep" in kinds and len(kinds) > 1:
        shallow = next(path for kind, path in kinds.items() if kind != "deep")
        must = "all must have the same depth; convert them"
        raise DataError(f"{kinds['deep']} has more than 8 bits a sample and {shallow} has 8: {must}")
    return next(iter(kinds)) if len(kinds) == 1 else "colour"


def _one_size(headers: Sequence[tuple[Picture, Header]], size: int | None) -> tuple[int, int]:
    """Height and width that all pictures will have."""
    if size is not None:
        return size, size
    first, other = headers[0], next((h for h in headers if _shape(h[1]) != _shape(headers[0][1])), None)
    if other is None:
        return _shape(first[1])
    sizes = " but ".join(f"{p.path} has {h.width} x {h.height} pixels" for p, h in (first, other))
    raise DataError(f"{sizes}: all must have one size; bring them to N x N with --size N")


def _shape(header: Header) -> tuple[int, int]:
    return header.height, header.width


@contextmanager
def _room(
    rows: int, shape: tuple[int, ...], dtype: type[np.generic], target: Path | None
) -> Iterator[tuple[Callable[[NDArray[Any]], None], Callable[[], NDArray[Any]]]]:
    """Where at most `rows` images go: how to append a block, and how to have them all once the block has ended."""
    if target is not None:
        with files.array_writer(target, shape, dtype) as append:
            yield append, lambda: files.read_array(target)
            unfinish(target.parent)
        return
    images, filled = np.empty((rows, *shape), dtype), 0

    def fill(block: NDArray[Any]) -> None:
        nonlocal filled
        images[filled : filled + len(block)] = block
        filled += len(block)

    yield fill, lambda: images[:filled]
