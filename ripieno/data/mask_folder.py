"""Folders of images with a mask each: `images` and `masks`, perhaps with the splits above or below them.

    data/images/1.jpg        data/masks/1.png              split by ripieno
    data/train/images/1.jpg  data/train/masks/1.png  ...   the source's own splits
    data/images/train/1.jpg  data/masks/train/1.png  ...   the same
    data/classes.txt                                       names of the classes, see `ripieno.data.class_file`

Pairs have the same path below their folders but for the suffix; a mask's name may end in `_mask`, `_label` or alike.
The values of all masks are read first, so that mistakes are reported before the images are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data.class_file import CLASS_FILES, ClassFile, find_class_file
from ripieno.data.image_io import read_header, suffixes
from ripieno.data.mask_classes import MaskClasses, mask_classes, present_values
from ripieno.data.mask_io import fit_mask, read_mask
from ripieno.data.pictures import BLOCK, CountCallback, array_store, read_pictures, successful
from ripieno.data.samples import UNASSIGNED, Samples, file_names, given_of
from ripieno.data.splits import check_count, splits_of
from ripieno.data.walk import NO_IMAGE, Walk, shown
from ripieno.errors import DataError
from ripieno.resources import usable_cores
from ripieno.types import Ints, Split, Task

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpegimages")
"""Lower-case names of folders of images."""
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "annotation", "segmentations", "segmentationclass")
"""Lower-case names of folders of masks."""
BLOCK_BYTES = 1 << 26
"""Bytes of masks read between two writes, at most; a single larger mask is allowed."""
EXPECTED = "expected images/1.jpg with masks/1.png, perhaps inside train, valid and test"
FEW = 20
"""JSON files that are searched for the keys of COCO, at most."""
_ENDING = re.compile(r"(.+?)[ ._-](masks?|labels?|labelids|seg|segmentation|annotation|gt|l)", re.IGNORECASE)


@dataclass(frozen=True)
class MaskedPicture:
    """A picture, its mask and its split."""

    path: Path
    mask: Path
    split: Split


@dataclass(frozen=True, eq=False)
class MaskFolder:
    """Content of a folder of pictures with masks, in order of their paths."""

    pictures: tuple[MaskedPicture, ...]
    class_file: ClassFile | None

    @property
    def files(self) -> list[Path]:
        """All files that are read."""
        pairs = [path for picture in self.pictures for path in (picture.path, picture.mask)]
        return pairs if self.class_file is None else [*pairs, self.class_file.path]


def is_mask_folder(folder: Path) -> bool:
    """Return whether a folder, or each of its splits, has folders of images and of masks."""
    return bool(_places(folder))


def image_folders(folder: Path) -> list[Path]:
    """Return the folders of images below `folder` where it holds masks too, else `folder` itself.

    A split may have no masks.
    """
    return [images for _, images, _ in _splits(folder)] or [folder]


def find_masked_pictures(
    folder: Path, notes: list[str], *, apart: Collection[Path] = (), skip_bad: bool = False
) -> MaskFolder:
    """List all pictures of `folder` with their masks; skip folders in `apart`.

    Notes count what is skipped, masks without a picture among it. Raises DataError for annotations that are no
    pictures, for two pictures or masks of one name, and for pictures without a mask unless `skip_bad`.
    """
    places = _places(folder)
    if not places:
        raise DataError(f"{shown(folder)} has no folders of images and masks; {EXPECTED}")
    pictures: list[MaskedPicture] = []
    bare: list[Path] = []
    walk = Walk(folder, apart)
    for split, images, masks in places:
        found = _by_name(walk, images, "pictures of one mask")
        known = _by_name(walk, masks, "masks of one picture")
        if found and not known:
            _refuse_annotations(masks)
        exact = {name: path for name, path in known.items() if name in found}
        for name, path in known.items():
            if name not in found and (match := _ENDING.fullmatch(name.name)):
                exact.setdefault(name.with_name(match[1]), path)
        pictures += [MaskedPicture(path, exact[name], split) for name, path in found.items() if name in exact]
        bare += [path for name, path in found.items() if name not in exact]
        used = set(exact.values()) if found else set()
        for path in known.values():
            if path not in used:
                walk.skip("without a picture of this name", path)
    notes += walk.notes()
    if bare:
        count = f"{len(bare):,} pictures have" if len(bare) > 1 else "1 picture has"
        line = f"{count} no mask in {shown(folder)}, the first: {shown(bare[0].relative_to(folder))}"
        if not skip_bad or not pictures:
            raise DataError(f"{line}; {EXPECTED}; or skip such pictures with --skip-bad")
        notes.append(f"{line}; skipped")
    if not pictures:
        raise DataError(f"{shown(folder)} holds no picture with a mask; {EXPECTED}")
    first = min(places, key=lambda place: place[0] != "train")[1]
    return MaskFolder(tuple(pictures), find_class_file(folder) or find_class_file(first.parent))


@dataclass(frozen=True, eq=False)
class MaskValues:
    """Values of the masks of a folder, and their classes."""

    pictures: tuple[MaskedPicture, ...]
    """those whose masks can be used"""
    held: NDArray[np.bool_]
    """(pictures, classes): which classes a mask holds"""
    classes: MaskClasses
    colours: tuple[tuple[int, int, int], ...]

    def masks(self, rows: Ints, height: int, width: int, target: Path | None = None) -> NDArray[np.uint8]:
        """Read the masks of the pictures `rows` as classes (samples, height, width), into a .npy file when given."""

        def read(row: int) -> NDArray[np.uint8]:
            return fit_mask(self.classes.table[read_mask(self.pictures[row].mask, self.colours)], height, width)

        with (
            ThreadPoolExecutor(min(16, len(usable_cores()))) as pool,
            array_store(len(rows), (height, width), np.uint8, target) as (append, masks),
        ):
            step = max(1, min(BLOCK, BLOCK_BYTES // (height * width)))
            for start in range(0, len(rows), step):
                append(np.stack(list(pool.map(read, rows[start : start + step].tolist()))))
        return masks()


def read_values(
    found: MaskFolder,
    where: str,
    notes: list[str],
    *,
    ignore: Sequence[str] = (),
    names: Sequence[str] | None = None,
    namer: str = "the data",
    skip_bad: bool = False,
) -> MaskValues:
    """Read the values of all masks. `names`, which `namer` gives, are those of the classes without a class file.

    Raises DataError for masks of another size than their picture, for broken files unless `skip_bad`, and for values
    without a class.
    """
    colours = found.class_file.colours if found.class_file else ()

    def values_of(path: Path) -> NDArray[np.bool_]:
        mask, shape = read_mask(path, colours), shapes[path]
        if mask.shape != shape:
            sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its picture {shape[1]} x {shape[0]}"
            raise DataError(f"has {sizes}")
        return present_values(mask)

    bad: list[str] = []
    with ThreadPoolExecutor(min(16, len(usable_cores()))) as pool:
        paths = [(row, picture.path) for row, picture in enumerate(found.pictures)]
        headers = successful(pool, read_header, paths, skip_bad, bad)
        shapes = {found.pictures[row].mask: header.shape for row, header in headers}
        read = successful(pool, values_of, [(row, found.pictures[row].mask) for row, _ in headers], skip_bad, bad)
    if not read:
        raise DataError(f"{where} holds no readable picture with a mask: {bad[0]}")
    if bad:
        held = "pictures or masks" if len(bad) > 1 else "picture or mask"
        notes.append(f"skipped {len(bad):,} broken {held}, the first: {bad[0]}")
    kept = tuple(found.pictures[row] for row, _ in read)
    present = np.stack([values for _, values in read])
    if found.class_file is not None:
        names, namer = found.class_file.names, str(found.class_file)
    classes = mask_classes(present, names, ignore, where, notes, namer)
    for row in np.flatnonzero(present[:, ~classes.known].any(axis=1))[:1]:
        raise DataError(f"{shown(kept[row].mask)} holds the value {classes.unknown(present[row])}")
    return MaskValues(kept, classes.held(present), classes, colours)


def read_mask_folder(
    folder: Path,
    *,
    size: int | None,
    ignore: Sequence[str],
    skip_bad: bool,
    progress: CountCallback | None,
    notes: list[str],
    place: Path | None,
    apart: Collection[Path] = (),
    for_training: bool = True,
) -> Samples:
    """Decode all pictures of `folder` with their masks; write both into the folder `place` and map them, when given.

    Raises DataError (one line) as `find_masked_pictures`, `read_values` and `read_pictures`, without a train split, and
    `for_training` for a class that no mask of the training pictures holds.
    """
    where = shown(folder)
    found = find_masked_pictures(folder, notes, apart=apart, skip_bad=skip_bad)
    splits = dict.fromkeys(picture.split for picture in found.pictures)
    if "train" not in splits:
        raise DataError(f"{where} has {' and '.join(splits)} but no train folder; training images are required")
    values = read_values(found, where, notes, ignore=ignore, skip_bad=skip_bad)
    given = np.concatenate([given_of(picture.split, 1) for picture in values.pictures])

    def check(rows: Ints) -> None:
        check_count(given[rows])
        if for_training:
            check_held(values.held[rows], given[rows], values.classes.names, where)

    images, rows = read_pictures(
        [picture.path for picture in values.pictures],
        where,
        size=size,
        skip_bad=skip_bad,
        progress=progress,
        notes=notes,
        target=None if place is None else place / "inputs.npy",
        check=check,
    )
    height, width = images.shape[1:3]
    masks = values.masks(rows, height, width, None if place is None else place / "targets.npy")
    names = values.classes.names
    task = Task("segmentation", (height, width, len(names)), names)
    named = file_names([values.pictures[row].path for row in rows], folder)
    return Samples(shown(Path(folder.resolve().name)), images, masks, given[rows], task, "image", files=named)


def check_held(held: NDArray[np.bool_], given: NDArray[np.int8], names: Sequence[str], where: str) -> None:
    """Raise DataError unless each class is in a mask that may be trained on; `held` are (samples, classes)."""
    absent = np.flatnonzero(~held[given == UNASSIGNED].any(axis=0))
    if len(absent):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"{where}: no training mask holds class {names[absent[0]]!r}{more}; add some, or ignore it (--ignore)"
        )


def _places(folder: Path) -> list[tuple[Split, Path, Path]]:
    """Return the folders of images and masks with their splits; none where a folder has other folders.

    Raises DataError for a split without masks, and for two of one split.
    """
    places = _splits(folder)
    for split, images, masks in places:
        if masks is None:
            raise DataError(f"{shown(folder)} has no masks for the {split} split, {shown(images)}; {EXPECTED}")
    if len({split for split, _, _ in places}) < len(places):
        raise DataError(f"{shown(folder)} has two folders for one split; expected at most train, valid and test")
    return [(split, images, masks) for split, images, masks in places if masks is not None]


def _splits(folder: Path) -> list[tuple[Split, Path, Path | None]]:
    """Return the folders of images with their splits and masks; none where a folder has other folders."""
    if not folder.is_dir():
        return []
    tops = _folders(folder)
    if pair := _pair(tops):
        images, masks = (_folders(path) for path in pair)
        splits, others = splits_of(images), splits_of(masks)
        if splits and others and all(splits.values()) and all(others.values()):
            by_split = {split: masks[name] for name, split in others.items()}
            return [(s, images[name], by_split.get(s)) for name, s in splits.items() if s]
        return [("train", *pair)]
    splits = {name: split for name, split in splits_of(tops).items() if split is not None}
    pairs = {name: _pair(_folders(tops[name])) for name in splits}
    if not splits or not any(pairs.values()):
        return []
    return [(split, *(pairs[name] or (tops[name], None))) for name, split in splits.items()]


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in Walk(folder).entries(folder)[0]}


def _pair(folders: Mapping[str, Path]) -> tuple[Path, Path] | None:
    """Return the folders of images and of masks among `folders`; None without both.

    Of several with such a name, those with pictures count: PASCAL VOC has `Annotations` without any. Raises DataError
    where several have some.
    """
    found: list[list[Path]] = []
    for names in (IMAGE_FOLDERS, MASK_FOLDERS):
        own = [path for name, path in folders.items() if name.lower() in names]
        if not own:
            return None
        if len(own) > 1:
            own = [path for path in own if any(Walk(path).pictures(path))] or own[:1]
        found.append(own)
    for own in found:
        if len(own) > 1:
            raise DataError(f"{shown(own[0])} and {shown(own[1])} have the same purpose by name; move one elsewhere")
    return found[0][0], found[1][0]


def _by_name(walk: Walk, folder: Path, twice: str) -> dict[Path, Path]:
    """Return the files below `folder` by their paths there without suffix.

    Raises DataError for two of one name, which are `twice`.
    """
    named: dict[Path, Path] = {}
    for path in walk.pictures(folder):
        name = path.relative_to(folder).with_suffix("")
        if name in named:
            raise DataError(f"{shown(named[name])} and {shown(path)} are {twice}; leave one out")
        named[name] = path
    return named


def _refuse_annotations(folder: Path) -> None:
    """Raise DataError for a folder of annotations that are no pictures; COCO's are named."""
    others = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix.lower() not in suffixes()]
    if any(path.suffix.lower() == ".json" for path in others):
        first = next(path for path in others if path.suffix.lower() == ".json")
        raise DataError(f"{shown(first)} holds annotations as JSON, as COCO has them; {MASKS_OF_COCO}")
    held = f"it holds {others[0].name} and alike" if others else "it is empty"
    raise DataError(f"{shown(folder)} holds no mask that Pillow can read ({held}, {NO_IMAGE}); {EXPECTED}")


MASKS_OF_COCO = "draw them as masks first, for example with annToMask of pycocotools, one PNG for each image"
"""Advice on annotations of COCO."""


def is_coco(path: Path) -> bool:
    """Return whether a file, or one in a folder or in the folders there, holds annotations as COCO has them."""
    found = [path] if path.is_file() else [*sorted(path.glob("*.json")), *sorted(path.glob("*/*.json"))]
    files = [file for file in found if file.suffix.lower() == ".json" and file.name not in CLASS_FILES]
    return any(_has_keys_of_coco(file) for file in files[:FEW])


def _has_keys_of_coco(file: Path) -> bool:
    """Return whether a JSON file has the keys of COCO, which may be long after its beginning."""
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            text = stream.read(1 << 16)
            stream.seek(max(0, size - (1 << 16)))
            text += stream.read()
    except OSError:
        return False
    return sum(key in text for key in (b'"annotations"', b'"images"', b'"categories"', b'"segmentation"')) >= 2
