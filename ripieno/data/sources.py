"""Reading of any supported source: its kind is found, and its reader called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ripieno.data.adapters import ExternalData, is_external_dataset, pair_arrays, read_external
from ripieno.data.cifar import is_cifar, is_tar, read_cifar
from ripieno.data.column_values import ColumnValues
from ripieno.data.data_frame import is_data_frame
from ripieno.data.feature_table import NO_OPTIONS, TableOptions, is_feature_table, read_feature_table
from ripieno.data.idx import is_idx, read_idx
from ripieno.data.image_folder import read_folder
from ripieno.data.image_table import read_image_table, table_path
from ripieno.data.kept_samples import is_kept_folder, read_kept
from ripieno.data.long_table import UNNAMED, SeriesColumns, read_long_table
from ripieno.data.mask_folder import EXPECTED, MASKS_OF_COCO, is_coco, is_mask_folder, read_mask_folder
from ripieno.data.npz import read_npz
from ripieno.data.pictures import CountCallback
from ripieno.data.raw_columns import check_kinds
from ripieno.data.samples import Samples, SplitArrays, join
from ripieno.data.series import unequal_series
from ripieno.data.series_files import find_series, read_series_files
from ripieno.data.table_file import TABLES
from ripieno.data.targets import KINDS, SEGMENTATION
from ripieno.errors import DataError
from ripieno.tasks.registry import DEFAULT_TASK
from ripieno.types import DataKind, Dataset, Folds

Source = str | Path | Dataset | tuple[ArrayLike, ArrayLike] | ExternalData | Mapping[str, ColumnValues]

FORMS = (
    "an image folder, an .npz file, folders of images and masks, a CIFAR archive (.tar.gz or folder), a folder of idx "
    "files, a .csv or .parquet file of image paths, of series or of rows, or a .ts, .tsv or .arff file of series"
)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Arguments of `load_dataset` on reading a source."""

    size: int | None = None
    skip_bad: bool = False
    task: str | None = None
    target: tuple[str, ...] = ()
    kind: DataKind | None = None
    for_training: bool = True
    folds: Folds = "auto"
    seed: int = 0
    """of the folds"""
    columns: SeriesColumns = UNNAMED
    table: TableOptions = NO_OPTIONS
    ignore: tuple[str, ...] = ()
    """values and classes of masks"""
    alone: bool = False
    """whether a file of series stands for itself, not for the whole data set that it is part of"""


def read_samples(
    source: Source,
    options: ReadOptions,
    notes: list[str],
    progress: CountCallback | None = None,
    place: Path | None = None,
) -> Samples:
    """Read inputs and targets of a source other than a `Dataset`, without a split of its samples.

    Large arrays are written to the folder `place`, if one is given. Raises DataError.
    """
    if options.task is not None and options.task not in KINDS:
        raise DataError(f"task {options.task} is that of an environment, not of data; leave task out")
    check_kinds(options.table.column)
    if is_data_frame(source):
        _check_rows(options, "the data")
        return read_feature_table(source, options.table, options.target, notes, options.task)
    if not isinstance(source, str | Path) or Path(source).suffix.lower() not in TABLES:
        check_no_table(options, str(source) if isinstance(source, str | Path) else "the data")
    if is_external_dataset(source):
        return read_external(source, options.size, notes, options.task, options.target, options.kind, options.ignore)
    if not isinstance(source, str | Path):
        _check_no_target(options, "arrays")
        parts = [SplitArrays(*pair_arrays(source), "the arrays")]
        given: Any = source
        of_series = options.kind is None and unequal_series(given[0]) is not None
        kind = "series" if of_series else options.kind
        return join("arrays", parts, None, notes, task=options.task, kind=kind, ignore=options.ignore)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path} does not exist: it must be {FORMS}")
    if is_kept_folder(path):
        return read_kept(path, notes)
    file = None if place is None else place / "inputs.npy"
    if (found := find_series(path, notes, alone=options.alone)) is not None:
        _check_series(options, path)
        return read_series_files(found, notes, options.task, options.target)
    if path.suffix.lower() in TABLES and (options.columns.given or options.kind == "series"):
        _check_series(options, path)
        return read_long_table(path, options.columns, options.target, notes, options.task)
    if options.kind in (None, "table") and is_feature_table(path, options.table, options.kind):
        return read_feature_table(path, options.table, options.target, notes, options.task)
    check_no_table(options, str(path))
    if options.columns.given:
        raise DataError(f"{path} is no table of series, whose columns series, time and value name; leave them out")
    if options.task == SEGMENTATION and path.is_file() and path.suffix.lower() in TABLES:
        raise DataError(f"{path} is a table, but masks are read from folders; {EXPECTED}")
    if options.task != SEGMENTATION and (table := table_path(path)) is not None:
        _check_images(options, path)
        return read_image_table(
            table,
            task=options.task,
            target=options.target,
            size=options.size,
            skip_bad=options.skip_bad,
            progress=progress,
            notes=notes,
            place=file,
            for_training=options.for_training,
        )
    _check_no_target(options, str(path))
    if path.is_file() and path.suffix.lower() == ".npz":
        return read_npz(path, notes, options.task, options.kind, options.ignore)
    _check_images(options, path)
    is_segmented = options.task == SEGMENTATION or (options.task is None and is_mask_folder(path))
    if (path.suffix.lower() == ".json" or (is_segmented and not is_mask_folder(path))) and is_coco(path):
        raise DataError(f"{path} holds annotations of COCO, which are no masks; {MASKS_OF_COCO}")
    if (path.is_file() and is_tar(path)) or (path.is_dir() and is_cifar(path)):
        return read_cifar(path, notes, options.task)
    if not path.is_dir():
        raise DataError(f"{path} is a file of no known kind: it must be {FORMS}")
    if is_idx(path):
        return read_idx(path, notes, options.task)
    apart = [] if place is None else [place]
    if place is not None and (place.parent / "lock").exists():  # a new run inside its own image folder
        apart.append(place.parent)
    if is_segmented:
        return read_mask_folder(
            path,
            size=options.size,
            ignore=options.ignore,
            skip_bad=options.skip_bad,
            progress=progress,
            notes=notes,
            place=place,
            apart=apart,
            for_training=options.for_training,
        )
    if options.task not in (None, DEFAULT_TASK):
        raise DataError(f"{path} is an image folder of classes; for {options.task}, list its files in a labels.csv")
    return read_folder(
        path,
        size=options.size,
        skip_bad=options.skip_bad,
        progress=progress,
        notes=notes,
        target=file,
        apart=apart,
        for_training=options.for_training,
    )


def _check_no_target(options: ReadOptions, where: str) -> None:
    if options.target:
        raise DataError(f"target {options.target[0]!r} names a column, but {where} have none; leave target out")


def check_no_table(options: ReadOptions, where: str) -> None:
    """Raise DataError, naming `where`, if there are options of tables, which do not apply to it."""
    if options.table.given:
        expected = "which drop, column and split_by apply to"
        raise DataError(f"{where} is no table with a row for each sample, {expected}; leave them out")


def _check_series(options: ReadOptions, path: Path) -> None:
    if options.kind not in (None, "series"):
        raise DataError(f"{path} holds series, not {options.kind}; leave kind out")
    check_no_table(options, str(path))


def _check_rows(options: ReadOptions, where: str) -> None:
    if options.kind not in (None, "table"):
        raise DataError(f"{where} is a table with a row for each sample, not {options.kind}; leave kind out")
    if options.columns.given:
        raise DataError(f"{where} is no table of series, whose columns series, time and value name; leave them out")


def _check_images(options: ReadOptions, path: Path) -> None:
    if options.kind not in (None, "image"):
        raise DataError(f"{path} holds images, not {options.kind}; leave kind out")


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def ignored_values(ignore: str | int | Sequence[str | int]) -> tuple[str, ...]:
    """Return one value or class of masks, or several, as a tuple of texts."""
    return tuple(map(str, [ignore] if isinstance(ignore, str | int) else ignore))
