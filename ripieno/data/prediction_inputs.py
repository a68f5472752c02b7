"""Images to predict: all sources that `tune` accepts, and single images, converted like the training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripieno import files
from ripieno.data.adapters import images_of, is_external_dataset, is_pair
from ripieno.data.cifar import is_cifar, is_tar, read_cifar
from ripieno.data.data_frame import is_data_frame
from ripieno.data.dataset import check_columns, open_dataset
from ripieno.data.feature_table import open_table, read_features
from ripieno.data.idx import is_idx, read_idx
from ripieno.data.image_io import (
    WHITE,
    Depth,
    Kind,
    content_box,
    depth_of,
    opened,
    read_pixels,
    stretched,
    suffixes,
)
from ripieno.data.image_io import resize as resize_images
from ripieno.data.long_table import SeriesColumns, read_long_series
from ripieno.data.mask_folder import image_folders
from ripieno.data.npz import read_images
from ripieno.data.pictures import fault
from ripieno.data.pixels import check_range, fit_array, spoken, white_of
from ripieno.data.series import fit_series, pad, unequal_series
from ripieno.data.series_files import find_series, is_series_file, read_series_file
from ripieno.data.table_file import TABLES
from ripieno.data.tiles import OVERLAP, PictureSamples, ResizedPicture, TiledPicture, check_overlap
from ripieno.data.walk import Walk, shown
from ripieno.data_kinds import is_series, noun_of
from ripieno.errors import DataError, error_summary
from ripieno.notes import Notes
from ripieno.types import Dataset, Input

T = TypeVar("T")
BATCH = 256
"""Default number of samples in a batch of a stream."""
FORMS = "an image, a folder of images, an .npy or .npz file, a file of series or rows, or a data set as for training"


def accepts_images(wanted: Input) -> bool:
    """Return whether a picture file can be converted to `wanted`."""
    if len(wanted.shape) != 3 or wanted.shape[2] not in (1, 3):
        return False
    return (wanted.dtype, wanted.shape[2]) == ("float32", 1) or white_of(wanted) is not None


def load_image(source: Path | IO[bytes] | Image.Image, wanted: Input) -> NDArray[Any]:
    """Load a picture as one sample of `wanted` (see `accepts_images`); square inputs are resized as in training.

    Its depth is scaled to that of the training images: 16 bits to 8, and both to floats of 0 to 1. For inputs that are
    not square the picture is stretched. Raises DataError, to be read after the picture's name, for a depth or range of
    another unit, and any exception of Pillow's plugins for a broken file.
    """
    height, width, _ = wanted.shape
    with opened(source) as image:
        return _load_pixels(image, wanted, width if width == height else None, (height, width))


def load_pixels(source: Path | IO[bytes] | Image.Image, wanted: Input) -> NDArray[Any]:
    """Load a picture as `load_image`, at its own size: (height, width, channels of `wanted`). Raises as it."""
    with opened(source) as image:
        return _load_pixels(image, wanted, None, None)


def _load_pixels(image: Image.Image, wanted: Input, size: int | None, shape: tuple[int, int] | None) -> NDArray[Any]:
    """Return the pixels of a picture, padded to the square of `size` and stretched to `shape` where these are given."""
    depth = depth_of(image)
    scale = _scale(depth, wanted)
    shallow: Kind = "colour" if wanted.shape[2] == 3 else "grey"
    pixels = read_pixels(image, shallow if depth == "8 bits" else "deep", size)
    if shape is not None:
        pixels = stretched(pixels, shape[1], shape[0])
    if scale != 1:
        pixels = pixels.astype(np.float32) * np.float32(scale)
    if wanted.dtype == "uint8" and pixels.dtype != np.uint8:
        pixels = np.clip(pixels.round(), 0, 255)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], wanted.shape[2])), wanted.dtype)
    check_range(pixels, wanted, "its pixels")
    return pixels


def _scale(depth: Depth, wanted: Input) -> float:
    """Return the factor for pixels of `depth`. Raises DataError when they cannot have the training images' unit."""
    own, white = WHITE.get(depth), white_of(wanted)
    if wanted.dtype == "uint8" and own is None:
        raise DataError(f"it holds {depth}, but the network was trained on 8 bits; convert it to 8 bits")
    if depth == "8 bits" and white is None and wanted.range is not None:
        trained = f"{wanted.dtype} of {spoken(wanted.range)}"
        raise DataError(f"it holds 8 bits, but the network was trained on {trained}; pass arrays or pictures of it")
    return white / own if white is not None and own is not None and (wanted.dtype == "uint8" or white == 1) else 1.0


def read_inputs(
    source: Any,
    wanted: Input,
    notes: list[str] | None = None,
    *,
    skip_bad: bool = False,
    columns: SeriesColumns | None = None,
) -> tuple[list[str], NDArray[Any]]:
    """Read the names and images (samples, *wanted.shape) of `source`.

    `source` is an array of samples, or of one; a Pillow picture; the path of a picture, of a folder of pictures
    (searched as for training: a note counts what is skipped), of an .npy or .npz file or of any other data set that
    can be trained on; such a data set itself: a pair (images, labels), a `Dataset`, one of Hugging Face or PyTorch, a
    mapping of splits; or a list of arrays, pictures and paths. Labels are not read. Series may be shorter than those of
    the network, and are read from their files alone: NAME_TEST without NAME_TRAIN. `columns` are those of a table of
    series. Rows of a table with named columns are also a .csv or .parquet file, a data frame, a mapping of names to
    values, or a list of such mappings; further columns are ignored.

    With `skip_bad` unusable pictures are skipped, each named in a line of `notes`, which are logged where None is
    given. Raises DataError naming the unusable image and the reason.
    """
    names: list[str] = []
    parts: list[NDArray[Any]] = []
    for name, part, numbered in _parts(source, wanted, notes, skip_bad, columns):
        names += [f"{name}[{i}]" for i in range(len(part))] if numbered else [name]
        parts.append(part)
    return names, parts[0] if len(parts) == 1 else np.concatenate(parts)


def stream_inputs(
    source: Any,
    wanted: Input,
    notes: list[str] | None = None,
    *,
    skip_bad: bool = False,
    size: int = BATCH,
    columns: SeriesColumns | None = None,
) -> Iterator[tuple[list[str], NDArray[Any]]]:
    """Yield names and images of `source` in batches of at most `size`; see `read_inputs` for arguments and errors.

    Pictures of one batch are in memory at a time; a mapped array is read one batch at a time.
    """
    names: list[str] = []
    images: list[NDArray[Any]] = []
    for name, part, numbered in _parts(source, wanted, notes, skip_bad, columns):
        if not numbered:
            names.append(name)
            images.append(part)
        if images and (numbered or len(images) == size):
            yield names, np.concatenate(images)
            names, images = [], []
        if numbered:
            for start in range(0, len(part), size):
                block = part[start : start + size]
                yield [f"{name}[{i}]" for i in range(start, start + len(block))], block
    if images:
        yield names, np.concatenate(images)


def stream_pictures(
    source: Any,
    wanted: Input,
    notes: list[str] | None = None,
    *,
    skip_bad: bool = False,
    resize: bool = False,
    overlap: float = OVERLAP,
) -> Iterator[tuple[str, PictureSamples]]:
    """Yield the name and the samples of each picture of `source`, one picture in memory at a time.

    Arguments and errors are those of `read_inputs`; arrays of pictures may have another height and width than
    `wanted`. See `split_picture` for `resize` and `overlap`.
    """
    check_overlap(overlap)
    notes = Notes() if notes is None else notes

    def convert(name: str, found: Path | Image.Image | NDArray[Any]) -> NDArray[Any]:
        with _named(name, found):
            if isinstance(found, np.ndarray):
                return _picture_arrays(found, wanted)
            _check_accepted(wanted)
            return load_pixels(found, wanted)[np.newaxis]

    for name, found, pictures in _usable(source, wanted, notes, skip_bad, None, convert):
        numbered = len(pictures) > 1 or (isinstance(found, np.ndarray) and found.ndim > len(wanted.shape))
        for number, pixels in enumerate(pictures):
            yield f"{name}[{number}]" if numbered else name, split_picture(pixels, wanted, resize, overlap)


def split_picture(
    pixels: NDArray[Any], wanted: Input, resize: bool = False, overlap: float = OVERLAP
) -> PictureSamples:
    """Return a picture (height, width, channels), of the dtype and range of `wanted`, as its samples.

    It is cut into tiles that overlap by the share `overlap` where it is larger than `wanted` in any direction, unless
    `resize`. A smaller one is resized, and so is a larger one with `resize`, as for training.
    """
    height, width = wanted.shape[:2]
    shape = pixels.shape[0], pixels.shape[1]
    if shape == (height, width) or not (resize or (shape[0] <= height and shape[1] <= width)):
        return TiledPicture(pixels, (height, width), overlap)
    if height != width:
        return ResizedPicture(stretched(pixels, width, height), shape, (0, height, 0, width))
    return ResizedPicture(resize_images(pixels[np.newaxis], height)[0], shape, content_box(shape, height))


def _picture_arrays(array: NDArray[Any], wanted: Input) -> NDArray[Any]:
    """Return an array of pictures of any one size as (samples, height, width, channels) in the dtype of `wanted`."""
    channels = wanted.shape[2]
    if array.ndim in (2, 3) and channels == 1 and array.shape[-1] != 1:
        array = array[..., np.newaxis]
    if array.ndim in (3, 4) and array.shape[-1] != channels and array.shape[-3] == channels:
        shape = array.shape[-2:]  # channels first
    else:
        shape = array.shape[-3:-1]
    if array.ndim not in (3, 4) or 0 in array.shape:
        return fit_array(array, wanted)  # which states what is wrong
    return fit_array(array, replace(wanted, shape=(*shape, channels)))


def count_inputs(source: Any, wanted: Input) -> int | None:
    """Return the number of samples that `stream_inputs` reads at most; None where only reading shows it."""
    if isinstance(source, list | tuple) and any(isinstance(part, str | Path) for part in source):
        counts = [count_inputs(part, wanted) for part in source]
        return None if None in counts else sum(count or 0 for count in counts)
    if not isinstance(source, str | Path):
        return _count_samples(source, wanted) if isinstance(source, np.ndarray) else None
    path = Path(source)
    if path.is_dir():
        walked = not ((path / "dataset.json").is_file() or is_cifar(path) or is_idx(path) or find_series(path))
        return sum(1 for one in image_folders(path) for _ in Walk(path).pictures(one)) if walked else None
    if path.suffix.lower() == ".npy" and path.is_file():
        return _count_samples(files.read_array(path), wanted)
    return 1 if path.suffix.lower() in suffixes() else None


def _count_samples(array: NDArray[Any], wanted: Input) -> int:
    """Return the number of samples in an array of any layout that `fit_array` takes."""
    if array.dtype == object:  # series of unequal lengths
        return len(array)
    axes = array.ndim + (wanted.shape[-1] == 1 and array.shape[-1:] != (1,))
    return len(array) if axes > len(wanted.shape) else 1


def _parts(
    source: Any, wanted: Input, notes: list[str] | None, skip_bad: bool, columns: SeriesColumns | None
) -> Iterator[tuple[str, NDArray[Any], bool]]:
    """Yield the name and samples of each picture or array, and whether the samples are numbered in their names."""
    notes = Notes() if notes is None else notes

    def convert(name: str, found: Path | Image.Image | NDArray[Any]) -> NDArray[Any]:
        return _fitted(name, found, wanted, notes)

    for name, found, part in _usable(source, wanted, notes, skip_bad, columns, convert):
        yield name, part, len(part) != 1 or (isinstance(found, np.ndarray) and found.ndim > len(wanted.shape))


def _usable(
    source: Any,
    wanted: Input,
    notes: list[str],
    skip_bad: bool,
    columns: SeriesColumns | None,
    convert: Callable[[str, Path | Image.Image | NDArray[Any]], T],
) -> Iterator[tuple[str, Path | Image.Image | NDArray[Any], T]]:
    """Yield the name of each picture or array of `source`, itself, and what `convert` makes of it.

    With `skip_bad` pictures for which it raises DataError are skipped. Raises DataError where none is left.
    """
    bad, used, first = 0, 0, ""
    tables = _TableReader(wanted, columns or SeriesColumns(), notes)
    for name, found in _images(source, notes, tables):
        try:
            converted = convert(name, found)
        except DataError as error:
            if not (skip_bad and isinstance(found, Path | Image.Image) and accepts_images(wanted)):
                raise
            bad, first = bad + 1, first or str(error)
            notes += [f"skipped: {error}"]
            continue
        used += 1
        yield name, found, converted
    if bad and not used:
        raise DataError(f"none of {bad:,} pictures can be used; the first: {first}")
    if not used:
        raise DataError(f"there are no images; pass {FORMS}")


def _fitted(name: str, found: Path | Image.Image | NDArray[Any], wanted: Input, notes: list[str]) -> NDArray[Any]:
    """Convert one image or array, named `name`, to samples of `wanted`."""
    if is_series(wanted) and isinstance(found, np.ndarray):
        return fit_series(found, wanted, name, notes)
    with _named(name, found):
        if isinstance(found, np.ndarray):
            return fit_array(found, wanted, noun_of(wanted))
        _check_accepted(wanted)
        return load_image(found, wanted)[np.newaxis]


@contextmanager
def _named(name: str, found: Path | Image.Image | NDArray[Any]) -> Iterator[None]:
    """Convert errors of reading `found` to a DataError that begins with its name."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        path = found if isinstance(found, Path) else Path(name)
        raise DataError(f"{name} is not a readable image: it {fault(error, path)}") from error


def _check_accepted(wanted: Input) -> None:
    """Raise DataError unless pictures can be converted to `wanted`."""
    if not accepts_images(wanted):
        accepted = f"the members take {wanted.dtype} of shape {wanted.shape}"
        raise DataError(f"{accepted}, not pictures; pass arrays (an .npy file) in the range of the training images")


@dataclass(frozen=True, eq=False)
class _TableReader:
    """Reader of the tables that suit an input: rows in long form for series, columns for tables with names."""

    wanted: Input
    series: SeriesColumns
    notes: list[str]

    def takes_file(self, path: Path) -> bool:
        """Return whether `path` names a table that can be read."""
        return path.suffix.lower() in TABLES and (is_series(self.wanted) or bool(self.wanted.columns))

    def rows_of(self, dataset: Dataset) -> NDArray[Any]:
        """Return the inputs of a data set. Raises DataError where they are encoded for other columns."""
        check_columns(dataset, self.wanted)
        return dataset.inputs

    def takes(self, source: Any) -> bool:
        """Return whether `source` is a data frame, or alike, of columns that have names."""
        return bool(self.wanted.columns) and is_data_frame(source)

    def read_file(self, path: Path, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield series, or all rows, of a table."""
        if self.wanted.columns:
            yield name, self.read(path)
            return
        names, series = read_long_series(path, self.series, self.notes)
        yield from ((f"{name}[{one}]", values) for one, values in zip(names, series, strict=True))

    def read(self, source: Any) -> NDArray[Any]:
        """Return the encoded rows (rows, values) of a file or a data frame."""
        return read_features(open_table(source), self.wanted.columns, self.notes)


def _images(
    source: Any, notes: list[str], tables: _TableReader
) -> Iterator[tuple[str, Path | Image.Image | NDArray[Any]]]:
    """Yield pictures, and arrays of one or more samples, each with its name."""
    noun = noun_of(tables.wanted)
    if isinstance(source, str | Path):
        yield from _files(Path(source), notes, tables)
    elif tables.takes(source):
        yield noun, tables.read(source)
    elif isinstance(source, Image.Image):
        yield str(getattr(source, "filename", "") or "image"), source
    elif isinstance(source, Dataset):
        yield noun, tables.rows_of(source)
    elif is_pair(source):
        yield from _images(source[0], notes, tables)
    elif hasattr(source, "__array__") or not (is_external_dataset(source) or isinstance(source, Sequence)):
        yield noun, _array(source, noun)
    elif is_external_dataset(source):
        yield from images_of(source)
    elif any(isinstance(part, str | Path | Image.Image) for part in source):
        for number, part in enumerate(source):
            for name, found in _images(part, notes, tables):
                yield _in_list(name, part, number), found
    else:
        yield noun, _array(source, noun)


def _in_list(name: str, part: Any, number: int) -> str:
    """Return a name for `part`'s image `name` that is unique among the parts of a list."""
    if not isinstance(part, str | Path):
        return f"{name}[{number}]"
    path = Path(part)
    return shown((path if path.is_dir() else path.parent) / name)


def _array(source: Any, called: str) -> NDArray[Any]:
    if (series := unequal_series(source)) is not None:
        return pad(series)
    try:
        # a tensor may be on a GPU
        return np.asanyarray(source.detach().cpu() if hasattr(source, "detach") else source)
    except (TypeError, ValueError) as error:  # lists of unequal lengths, tensors of bfloat16
        message = f"{called} are no array ({error_summary(error)})"
        raise DataError(f"{message}; all must have one shape and a type that NumPy has") from error


def _files(path: Path, notes: list[str], tables: _TableReader) -> Iterator[tuple[str, Path | NDArray[Any]]]:
    """Yield the images of a file or folder."""
    name, suffix = shown(Path(path.name)), path.suffix.lower()
    if not path.exists():
        raise DataError(f"{shown(path)} does not exist; pass {FORMS}")
    if path.is_dir():
        yield from _folder(path, name, notes, tables)
    elif not path.is_file():
        raise DataError(f"{shown(path)} is neither file nor folder; pass {FORMS}")
    elif suffix == ".npy":
        yield name, files.read_array(path)
    elif suffix == ".npz":
        yield from ((f"{name}:{key}", array) for key, array in read_images(path).items())
    elif is_series_file(path):
        yield name, read_series_file(path).series
    elif tables.takes_file(path):
        yield from tables.read_file(path, name)
    elif is_tar(path):
        yield name, read_cifar(path, notes).inputs
    else:
        yield name, path


def _folder(
    folder: Path, name: str, notes: list[str], tables: _TableReader
) -> Iterator[tuple[str, Path | NDArray[Any]]]:
    """Yield the images of a folder: a prepared data set, a published one, or pictures at any depth."""
    if (folder / "dataset.json").is_file():
        yield name, tables.rows_of(open_dataset(folder))
    elif is_cifar(folder):
        yield name, read_cifar(folder, notes).inputs
    elif is_idx(folder):
        yield name, read_idx(folder, notes).inputs
    elif (found := find_series(folder, notes)) is not None:
        yield from ((shown(Path(path.name)), read_series_file(path).series) for path in found.files.values())
    else:
        walk = Walk(folder)
        folders = image_folders(folder)
        count = sum(1 for one in folders for _ in walk.pictures(one))  # the whole walk, for its notes
        notes += walk.notes()
        if not count:
            skipped = "".join(f" ({note})" for note in walk.notes())
            raise DataError(f"{shown(folder)} holds no images{skipped}; pass {FORMS}")
        for one in folders:
            yield from ((shown(path.relative_to(folder)), path) for path in Walk(folder).pictures(one))
