"""Images to predict: all sources that `tune` accepts, and single images, converted like the training images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

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
from ripieno.data.image_io import WHITE, Depth, Kind, depth_of, opened, read_pixels, stretched, suffixes
from ripieno.data.long_table import SeriesColumns, read_long_series
from ripieno.data.npz import read_images
from ripieno.data.pictures import fault
from ripieno.data.pixels import check_range, fit_array, spoken, white_of
from ripieno.data.series import fit_series, pad, unequal_series
from ripieno.data.series_files import find_series, is_series_file, read_series_file
from ripieno.data.table_file import TABLES
from ripieno.data.walk import Walk, shown
from ripieno.data_kinds import is_series, noun_of
from ripieno.errors import DataError, error_summary
from ripieno.notes import Notes
from ripieno.types import Dataset, Input

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
    height, width, channels = wanted.shape
    with opened(source) as image:
        depth = depth_of(image)
        scale = _scale(depth, wanted)
        shallow: Kind = "colour" if channels == 3 else "grey"
        pixels = read_pixels(image, shallow if depth == "8 bits" else "deep", width if width == height else None)
    pixels = stretched(pixels, width, height)
    if scale != 1:
        pixels = pixels.astype(np.float32) * np.float32(scale)
    if wanted.dtype == "uint8" and pixels.dtype != np.uint8:
        pixels = np.clip(pixels.round(), 0, 255)
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, wanted.shape), wanted.dtype)
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


def count_inputs(source: Any) -> int | None:
    """Return the number of samples that `stream_inputs` reads at most; None where only reading shows it."""
    if isinstance(source, list | tuple) and any(isinstance(part, str | Path) for part in source):
        counts = [count_inputs(part) for part in source]
        return None if None in counts else sum(count or 0 for count in counts)
    if not isinstance(source, str | Path):
        return len(source) if isinstance(source, np.ndarray) else None
    path = Path(source)
    if path.is_dir():
        walked = not ((path / "dataset.json").is_file() or is_cifar(path) or is_idx(path) or find_series(path))
        return sum(1 for _ in Walk(path).pictures(path)) if walked else None
    if path.suffix.lower() == ".npy" and path.is_file():
        return len(files.read_array(path))
    return 1 if path.suffix.lower() in suffixes() else None


def _parts(
    source: Any, wanted: Input, notes: list[str] | None, skip_bad: bool, columns: SeriesColumns | None
) -> Iterator[tuple[str, NDArray[Any], bool]]:
    """Yield the name and samples of each picture or array, and whether the samples are numbered in their names."""
    notes = Notes() if notes is None else notes
    bad, used, first = 0, 0, ""
    tables = _TableReader(wanted, columns or SeriesColumns(), notes)
    for name, found in _images(source, notes, tables):
        try:
            part = _fitted(name, found, wanted, notes)
        except DataError as error:
            if not (skip_bad and isinstance(found, Path | Image.Image) and accepts_images(wanted)):
                raise
            bad, first = bad + 1, first or str(error)
            notes += [f"skipped: {error}"]
            continue
        used += 1
        yield name, part, len(part) != 1 or (isinstance(found, np.ndarray) and found.ndim > len(wanted.shape))
    if bad and not used:
        raise DataError(f"none of {bad:,} pictures can be used; the first: {first}")
    if not used:
        raise DataError(f"there are no images; pass {FORMS}")


def _fitted(name: str, found: Path | Image.Image | NDArray[Any], wanted: Input, notes: list[str]) -> NDArray[Any]:
    """Convert one image or array, named `name`, to samples of `wanted`."""
    if is_series(wanted) and isinstance(found, np.ndarray):
        return fit_series(found, wanted, name, notes)
    try:
        if isinstance(found, np.ndarray):
            return fit_array(found, wanted, noun_of(wanted))
        if accepts_images(wanted):
            return load_image(found, wanted)[np.newaxis]
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything for a broken file
        path = found if isinstance(found, Path) else Path(name)
        raise DataError(f"{name} is not a readable image: it {fault(error, path)}") from error
    accepted = f"the members take {wanted.dtype} of shape {wanted.shape}"
    raise DataError(f"{name}: {accepted}, not pictures; pass arrays (an .npy file) in the range of the training images")


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
        count = sum(1 for _ in walk.pictures(folder))  # the whole walk, for its notes
        notes += walk.notes()
        if not count:
            skipped = "".join(f" ({note})" for note in walk.notes())
            raise DataError(f"{shown(folder)} holds no images{skipped}; pass {FORMS}")
        yield from ((shown(path.relative_to(folder)), path) for path in Walk(folder).pictures(folder))
