"""Image folders: one folder per class, optionally inside `train`, `valid` and `test` folders.

    images/cat/1.jpg  images/dog/2.png                     split by ripieno
    images/train/cat/1.jpg  images/test/cat/7.jpg  ...     the source's own test split is kept

All pictures of a folder are decoded by `ripieno.data.pictures`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data.image_io import suffixes
from ripieno.data.pictures import CountCallback, read_pictures
from ripieno.data.samples import Samples, file_names, given_of
from ripieno.data.splits import check_sizes, splits_of
from ripieno.data.walk import NO_CLASS, NO_IMAGE, OURS, Walk, shown
from ripieno.errors import DataError
from ripieno.types import Split, classification


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
    for_training: bool = True,
) -> Samples:
    """Decode all pictures below `folder` except in `apart`; write to the .npy file `target` and map it, when given.

    Raises DataError (one line) as `read_pictures`, for a folder without classes or pictures, and `for_training` for
    classes with too few pictures.
    """
    pictures, names = find_pictures(folder, notes, apart)
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[picture.label] for picture in pictures], np.int64)
    given = _fixed_splits(pictures)
    task = classification(names)
    images, rows = read_pictures(
        [picture.path for picture in pictures],
        str(folder),
        size=size,
        skip_bad=skip_bad,
        progress=progress,
        notes=notes,
        target=target,
        check=lambda rows: check_sizes(labels[rows], given[rows], task, for_training),
    )
    name = shown(Path(folder.resolve().name))
    named = file_names([pictures[row].path for row in rows], folder)
    return Samples(name, images, labels[rows], given[rows], task, "image", files=named)


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
