"""Samples with targets to evaluate predictions on: every source that `tune` accepts, in the form of a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.data.cifar import is_cifar
from ripieno.data.data_frame import is_data_frame
from ripieno.data.dataset import batches, check_columns, open_dataset
from ripieno.data.feature_table import open_table, read_feature_targets, read_features
from ripieno.data.idx import is_idx
from ripieno.data.image_folder import find_pictures
from ripieno.data.image_table import TableTargets, read_table_targets, table_path
from ripieno.data.kept_samples import is_kept_folder, read_kept
from ripieno.data.long_table import SeriesColumns
from ripieno.data.mask_folder import find_masked_pictures, read_values
from ripieno.data.pixels import fit_array
from ripieno.data.prediction_inputs import BATCH, stream_inputs
from ripieno.data.samples import UNASSIGNED, given_of
from ripieno.data.sources import ReadOptions, read_samples
from ripieno.data.table_file import TABLES, read_columns
from ripieno.data.targets import match_targets
from ripieno.data.walk import shown
from ripieno.data_kinds import is_series
from ripieno.errors import DataError
from ripieno.tasks.labels import number_of
from ripieno.tasks.labels import shown as names_shown
from ripieno.tasks.registry import kind_of
from ripieno.types import SPLITS, Dataset, Input, Task, classification

EvaluationSplit = Literal["auto", "train", "valid", "test", "all"]
"""Samples to evaluate on; `auto`: the test split where the data has one, else all samples."""


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Samples of one split, with their targets in the order and form of a task."""

    split: str
    """`train`, `valid`, `test` or `all`"""
    inputs: Sequence[Path] | NDArray[Any]
    """pictures, or an array (samples, ...), of all splits"""
    rows: NDArray[np.int64]
    """(samples,): indices into `inputs`"""
    targets: NDArray[Any]
    """of the samples at `rows`, as in `Dataset.targets`"""

    def batches(self, wanted: Input) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Yield names and inputs (samples, *wanted.shape), a batch at a time. Raises DataError for other inputs."""
        if not isinstance(self.inputs, np.ndarray):
            yield from stream_inputs([self.inputs[row] for row in self.rows], wanted)
            return
        for number, block in enumerate(batches(self.inputs, self.rows, BATCH)):
            names = [f"[{row}]" for row in self.rows[number * BATCH : number * BATCH + len(block)]]
            yield names, fit_array(block, wanted, "inputs")


def read_evaluation_data(
    source: Any,
    wanted: Input,
    task: Task,
    split: EvaluationSplit = "auto",
    notes: list[str] | None = None,
    columns: SeriesColumns | None = None,
    target: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> EvaluationData:
    """Read the targets of `source`, and where its inputs are; pictures are not read yet.

    `source` is what `ripieno.data.load_dataset` takes; a file of series is read alone, without its NAME_TRAIN.
    `columns` are those of a table of series; `target` names the targets of a table, where it has other columns than the
    bundle's inputs besides. `ignore` names values and classes of masks whose pixels are not scored. Classes are matched
    with those of `task` by name. Raises DataError, in one line, for other classes, inputs of another shape, and a split
    that the source does not have.
    """
    if split not in get_args(EvaluationSplit):
        raise DataError(f"split {split!r} is unknown: expected {', '.join(get_args(EvaluationSplit))}")
    notes = [] if notes is None else notes
    of_series = is_series(wanted)
    if wanted.columns and _is_table(source):
        held = open_table(source)
        read = read_feature_targets(held, wanted.columns, target, task, notes)
        chosen, rows = _rows(read.given, split)
        encoded = read_features(held, wanted.columns, notes)
        return EvaluationData(chosen, encoded, rows, match_targets(read.targets[rows], read.task, task))
    if target:
        raise DataError(f"target {target[0]!r} names a column of a table, which the data are not; leave target out")
    table = table_path(Path(source)) if isinstance(source, str | Path) and not of_series else None
    inputs: Sequence[Path] | NDArray[Any]
    given: NDArray[Any]
    if isinstance(source, str | Path) and is_kept_folder(Path(source)):
        kept = read_kept(Path(source), notes)
        inputs, given, found, targets = kept.inputs, kept.fixed_split, kept.task, kept.targets
    elif table is not None:
        inputs, targets, given, found = _read_table(table, task, notes)
    elif kind_of(task).is_pixelwise and isinstance(source, str | Path) and _is_picture_folder(Path(source)):
        inputs, targets, given, found = _read_mask_folder(Path(source), wanted, task, ignore, notes)
    elif isinstance(source, str | Path) and not of_series and _is_picture_folder(Path(source)):
        pictures, classes = find_pictures(Path(source), notes)
        inputs = [picture.path for picture in pictures]
        given = np.array([-1 if p.split == "train" else SPLITS.index(p.split) for p in pictures])
        found, targets = classification(classes), np.array([classes.index(picture.label) for picture in pictures])
    elif isinstance(source, Dataset) or (isinstance(source, str | Path) and (Path(source) / "dataset.json").is_file()):
        dataset = source if isinstance(source, Dataset) else open_dataset(source)
        check_columns(dataset, wanted)
        inputs, given, found, targets = dataset.inputs, dataset.split, dataset.task, dataset.targets
    else:
        square = len(wanted.shape) == 3 and wanted.shape[0] == wanted.shape[1]
        size = wanted.shape[0] if len(wanted.shape) == 3 and (square or not kind_of(task).is_pixelwise) else None
        options = ReadOptions(size, task=task.kind, ignore=tuple(ignore))
        if of_series:
            target = _target_names(source, task)
            options = ReadOptions(
                task=task.kind, target=target, kind="series", columns=columns or SeriesColumns(), alone=True
            )
        samples = read_samples(source, options, notes)
        inputs, given, found, targets = samples.inputs, samples.fixed_split, samples.task, samples.targets
    chosen, rows = _rows(given, split)
    if isinstance(inputs, np.ndarray) and of_series:  # each may be too long
        fit_array(np.asarray(inputs[rows]), wanted, "inputs" if chosen == "all" else f"inputs of the {chosen} split")
    elif isinstance(inputs, np.ndarray):
        fit_array(np.asarray(inputs[:1]), wanted, "inputs")
    return EvaluationData(chosen, inputs, rows, match_targets(targets[rows], found, task))


def _read_mask_folder(
    folder: Path, wanted: Input, task: Task, ignore: Sequence[str], notes: list[str]
) -> tuple[list[Path], NDArray[np.uint8], NDArray[np.int8], Task]:
    """Return the pictures of a folder, their masks at the size of `wanted`, their splits, and the task of the masks.

    Without a class file, the values of masks are those of the bundle's classes.
    """
    numbered = all(number_of(name) is not None for name in task.names)  # values are the names
    names = None if numbered else task.names
    values = read_values(
        find_masked_pictures(folder, notes), shown(folder), notes, ignore=ignore, names=names, namer="the bundle"
    )
    height, width = wanted.shape[:2]
    classes = values.classes.names
    for index in np.flatnonzero(values.held.any(axis=0)):
        if (name := classes[index]) not in task.names:
            held = f"masks of {shown(folder)} hold class {name!r}, which the bundle does not have"
            raise DataError(f"{held}: {names_shown(task.names)}; ignore its pixels with --ignore {name} (ignore=)")
    masks = values.masks(np.arange(len(values.pictures)), height, width)
    given = np.concatenate([given_of(picture.split, 1) for picture in values.pictures])
    found = Task(task.kind, (height, width, len(classes)), classes)
    return [picture.path for picture in values.pictures], masks, given, found


def _is_table(source: Any) -> bool:
    is_file = isinstance(source, str | Path) and Path(source).suffix.lower() in TABLES
    return is_file or is_data_frame(source)


def _read_table(table: Path, task: Task, notes: list[str]) -> TableTargets:
    """Read a table of image files; its targets are the columns with the names of the task's, where it has them all."""
    columns = read_columns(table, DataError).columns
    target = task.names if all(name in columns for name in task.names) else ()
    return read_table_targets(table, task.kind, target, notes)


def _target_names(source: Any, task: Task) -> tuple[str, ...]:
    """Return the names of the task's targets where they are columns of a table of series."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() not in TABLES:
        return ()
    columns = read_columns(Path(source), DataError).columns
    return task.names if all(name in columns for name in task.names) else ()


def _is_picture_folder(path: Path) -> bool:
    return path.is_dir() and not ((path / "dataset.json").is_file() or is_cifar(path) or is_idx(path))


def _rows(given: NDArray[Any], split: EvaluationSplit) -> tuple[str, NDArray[np.int64]]:
    """Return the split evaluated and its rows; `given` (samples,) is an index into `SPLITS`, or `UNASSIGNED`."""
    if split == "auto":
        split = "test" if (given == SPLITS.index("test")).any() else "all"
    if split == "all":
        return split, np.arange(len(given))
    number = SPLITS.index(split)
    rows = np.flatnonzero((given == number) | ((given == UNASSIGNED) & (number == 0)))
    if not len(rows):
        raise DataError(f"the data has no {split} split: pass --split all to evaluate on all samples")
    return split, rows
