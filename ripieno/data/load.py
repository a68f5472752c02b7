"""Loading of a `Dataset` from any supported source."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.data.dataset import check_dataset, check_trainable, moments, open_dataset, write_dataset
from ripieno.data.feature_table import TableOptions
from ripieno.data.folds import check_fold_option, choose_folds, make_folds
from ripieno.data.image_io import resize
from ripieno.data.leaks import leak_notes
from ripieno.data.leave_out import LeaveOut
from ripieno.data.long_table import SeriesColumns
from ripieno.data.mask_io import resize_masks
from ripieno.data.pictures import CountCallback
from ripieno.data.pixels import check_size, training_range
from ripieno.data.raw_columns import fit_columns
from ripieno.data.samples import UNASSIGNED, Samples, extremes
from ripieno.data.sources import ReadOptions, Source, check_no_table, ignored_values, names_of, read_samples
from ripieno.data.split_by import split_by_column, split_by_note
from ripieno.data.splits import RATIOS, check_ratios, check_sizes, duplicate_notes, split_samples, without_valid
from ripieno.data.targets import SEGMENTATION, check_kind, check_no_ignore
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import DataError
from ripieno.notes import Notes
from ripieno.tasks.metrics import dashed_name
from ripieno.tasks.registry import TASKS, kind_of
from ripieno.types import SPLITS, ColumnKind, DataKind, Dataset, Folds, PixelRange, Task


def load_dataset(
    source: Source,
    *,
    task: str | None = None,
    target: str | Sequence[str] = (),
    kind: DataKind | None = None,
    series: str | None = None,
    time: str | None = None,
    value: str | Sequence[str] = (),
    drop: str | Sequence[str] = (),
    column: Mapping[str, ColumnKind] | None = None,
    split_by: str | None = None,
    ignore: str | int | Sequence[str | int] = (),
    size: int | None = None,
    split: Sequence[float] | None = None,
    folds: Folds = "auto",
    seed: int = 0,
    metric: str | None = None,
    skip_bad: bool = False,
    leave_out: LeaveOut | None = None,
    progress: CountCallback | None = None,
    notes: list[str] | None = None,
    folder: str | Path | None = None,
    for_training: bool = True,
) -> Dataset:
    """Read inputs and targets, and split them into train, valid and test.

    `source` is the path of an image folder (a folder per class, with a `labels.csv`, or with folders of images and
    masks, see `ripieno.data.mask_folder`), a `.csv` or `.parquet` file of image paths, an `.npz` file, a CIFAR-10 or
    -100 archive (python or binary, packed or not), a folder of idx files, a file of series (`.ts`, `.tsv` or `.arff`)
    or the folder of NAME_TRAIN and NAME_TEST, a `.csv` or `.parquet` file with a row for each sample, or a data set
    prepared before; or a pair of arrays (inputs, targets); or a `Dataset`; or a Hugging Face or PyTorch data set, or a
    mapping of splits to such or to pairs (`ripieno.data.adapters`); or a data frame, or a mapping of columns
    (`ripieno.data.data_frame`).

    - `task`: classification, multilabel, regression or segmentation; None: inferred from the targets, see
      `ripieno.data.targets`.
    - `target`: the columns with the targets, in a table or a Hugging Face data set; none: all but file and split.
    - `kind`: image, series or table; None: by the axes of arrays, see `ripieno.data.samples.join`.
    - `series`, `time`, `value`: columns of a table of series in long form, see `ripieno.data.long_table`.
    - `drop`, `column`, `split_by`: of a table with a row for each sample, the columns that are left out, the kinds of
      columns (number, category or date) in place of those inferred (`ripieno.data.column_kinds`), and the column by
      whose order or groups the samples are split (`ripieno.data.split_by`).
    - `ignore`: values and classes of masks whose pixels are neither trained on nor scored, besides 255.
    - `size`: every image becomes `size` x `size` pixels, at most 4,096; its aspect ratio is kept, its border repeated;
      masks are resized with them. Without it, image files of several sizes get one from the median.
    - `split`: shares of train, valid and test, stratified as the task says and seeded by `seed`. None: 72/8/20
      (appendix A.1), and at least 20 images in validation of a class with 80 or more. Images with masks are
      stratified by the class of each that the fewest images hold.
      A test or validation split of the source is kept, and the other shares apply to the rest.
      A prepared data set keeps its splits.
    - `folds`: 2 to 20 folds of the training samples take the place of the validation split, whose samples are trained
      on, too: see `ripieno.data.folds`. 0: none; "auto": 0 for images, a validation split of the source or of 200
      series or 1,000 rows and more, and samples in the order of `split_by`, else 5. A prepared data set keeps its own.
    - `metric`: the score shown for trials and ensembles, one of the task's; trials are always ranked by its loss. A
      prepared data set keeps its own when None.
    - `skip_bad`: skip broken and missing image files instead of raising.
    - `leave_out`: samples that are left out of training and validation, see `ripieno.data.leave_out`. The split is
      that of all samples.
    - `progress`: called with the images done and the number of images while image files are decoded.
    - `notes`: warnings for the user are appended: images skipped, imbalance, ...; without it they are logged.
    - `folder`: also write the data set there and return it memory-mapped; image files are then decoded directly
      into its file, so that they may be larger than memory.
    - `for_training`: whether models are to be trained on the data. Otherwise the training split may lack classes, or
      values of a label or target, which one note reports.

    Raises DataError, in one line, for a source that cannot be used.
    """
    notes = Notes() if notes is None else notes
    check_arguments(size, split, metric, task, kind, folds)
    columns = SeriesColumns(series or "", time or "", names_of(value))
    table = TableOptions(names_of(drop), column or {}, split_by or "")
    fields = (size, skip_bad, task, names_of(target), kind, for_training, folds, seed, columns, table)
    options = ReadOptions(*fields, ignored_values(ignore))
    place = None if folder is None else Path(folder)
    try:
        dataset = _prepared(source, options, metric, leave_out, notes)
        if dataset is None:
            samples = read_samples(source, options, notes, progress, place)
            if samples.task.kind != SEGMENTATION:
                check_no_ignore(options.ignore, "the data")
            dataset = dataset_of(samples, size, split, seed, metric, notes, for_training, folds, leave_out)
    except PermissionError as error:
        raise DataError(f"{error.filename} may not be read; change its permissions") from error
    try:
        check_trainable(dataset, "the data" if dataset.path is None else f"the data set {dataset.path}")
    except DataError as error:
        if for_training:
            raise
        notes.append(f"the data are used for validation and test only, since no model can be trained on them: {error}")
    if not dataset.environment:  # whose episodes may begin alike
        notes += duplicate_notes(dataset.inputs, dataset.split, dataset.folds)
    return dataset if place is None else write_dataset(dataset, place)


def check_arguments(
    size: int | None,
    split: Sequence[float] | None,
    metric: str | None,
    task: str | None = None,
    kind: DataKind | None = None,
    folds: Folds | None = None,
) -> None:
    """Raise DataError for unusable arguments, before any data is read; None is the default of each."""
    if split is not None:
        check_ratios(split)
    check_size(size)
    check_kind(task)
    check_fold_option("auto" if folds is None else folds)
    if kind is not None and kind not in get_args(DataKind):
        raise DataError(f"kind is {kind!r}: it must be {', '.join(get_args(DataKind))}")
    kinds = [TASKS[task]] if task is not None else list(TASKS.values())
    scores = list(dict.fromkeys(dashed_name(name) for one in kinds for name in one.metrics[1:]))
    if metric is not None and metric not in scores:
        known = f"{', '.join(scores[:-1])} or {scores[-1]}" if len(scores) > 1 else scores[0]
        raise DataError(f"metric is {metric!r}: it must be {known} (--metric)")


def _with_metric(task: Task, metric: str | None) -> Task:
    """Return `task` with the score to show. Raises DataError for a metric of another kind of task."""
    kind = kind_of(task)
    scores = [dashed_name(name) for name in kind.metrics[1:]]
    if metric is None:
        return task if task.metric else dataclasses.replace(task, metric=dashed_name(kind.default_metric))
    if metric not in scores:
        raise DataError(f"metric is {metric!r}: a {task.kind} has {', '.join(scores)}")
    return dataclasses.replace(task, metric=metric)


def _prepared(
    source: Source, options: ReadOptions, metric: str | None, leave_out: LeaveOut | None, notes: list[str]
) -> Dataset | None:
    """Return a source that is already a data set; None when it is not."""
    if isinstance(source, str | Path):
        if not (Path(source) / "dataset.json").is_file():
            return None
        source = open_dataset(source)
    if not isinstance(source, Dataset):
        return None
    check_dataset(source, source.path or source.name)
    for name, asked, own in (("task", options.task, source.task.kind), ("kind", options.kind, source.kind)):
        if asked not in (None, own):
            raise DataError(
                f"the data set was prepared with {name} {own}, not {asked}; prepare it again from its source"
            )
    check_no_table(options, "a prepared data set")
    if options.ignore:
        ignored = f"ignore {options.ignore[0]!r} applies when masks are read"
        raise DataError(f"{ignored}, but the data set is prepared; leave ignore out, or prepare it again")
    if options.target and options.target != source.task.names:
        names = ", ".join(source.task.names)
        raise DataError(f"the data set was prepared for {names}; prepare it again from its source, or leave target out")
    size = _image_size(options.size, source.kind)
    if size is not None and source.inputs.shape[1:3] != (size, size):
        images, targets, task = _resized(source.inputs, source.targets, source.task, size)
        mean, std = moments(images, source.rows("train"))
        source = dataclasses.replace(source, inputs=images, targets=targets, task=task, mean=mean, std=std, path=None)
    if source.range is None:  # from an older version, or made by hand
        splits = [i for i in (1, 2) if (source.split == i).any()]
        source = dataclasses.replace(source, range=_range(source.inputs, source.kind, source.split, splits, notes))
    if leave_out is not None:
        split, doubted = leave_out.applied(source.split, source.files, source.targets, source.task, notes)
        doubted = tuple(sorted({*source.doubted, *doubted}))
        mean, std = moments(source.inputs, np.flatnonzero(split == 0))
        source = dataclasses.replace(source, split=split, doubted=doubted, mean=mean, std=std, path=None)
    if options.folds not in ("auto", source.fold_count) and not source.environment:
        source = _with_folds(source, int(options.folds), options.seed, notes)
    task = _with_metric(source.task, metric)
    return source if task.metric == source.task.metric else dataclasses.replace(source, task=task)


def _with_folds(source: Dataset, count: int, seed: int, notes: list[str]) -> Dataset:
    """Return `source`, which has no folds, with `count` folds; samples of its validation split are trained on."""
    if source.folds is not None:
        raise DataError(
            f"the data set was prepared with {source.fold_count} folds, not {count}; prepare it again from its source"
        )
    if source.split_by:
        held = f"the data set was prepared with samples split by {source.split_by!r}"
        raise DataError(f"{held}; prepare it again from its source for folds")
    split = without_valid(source.split)
    folds = make_folds(source.targets, split, source.task, count, seed)
    notes.append(_fold_note(folds, split, len(source.rows("valid"))))
    mean, std = moments(source.inputs, np.flatnonzero(split == 0))
    return dataclasses.replace(source, split=split, folds=folds, mean=mean, std=std, path=None)


def _fold_note(folds: NDArray[np.uint8], split: NDArray[np.uint8], given: int) -> str:
    """Describe the folds; `given` is the number of samples of a validation split that they replace, 0: none."""
    held = folds[split == 0]
    line = f"validation is out-of-fold: {held.max() + 1} folds of {len(held):,} training samples"
    if given:
        return f"{line}, among them the {given:,} of the validation split given"
    return f"{line}; --folds 0 (folds=0) splits some off instead"


def _image_size(size: int | None, kind: DataKind) -> int | None:
    """Return `size`. Raises DataError where one is given and the data are no images."""
    if size is not None and not DATA_KINDS[kind].is_picture:
        raise DataError(f"size {size} applies to images, but the data are of kind {kind}; leave size out")
    return size


def dataset_of(
    samples: Samples,
    size: int | None,
    ratios: Sequence[float] | None,
    seed: int,
    metric: str | None,
    notes: list[str],
    for_training: bool = True,
    folds: Folds = "auto",
    leave_out: LeaveOut | None = None,
) -> Dataset:
    """Split `samples` into a data set; arguments and errors are those of `load_dataset`."""
    check_arguments(size, ratios, metric, folds=folds)
    inputs, targets, task = samples.inputs, samples.targets, _with_metric(samples.task, metric)
    table = samples.table
    by = None if table is None else table.split_by
    check_sizes(targets, samples.fixed_split, task, for_training)
    size = _image_size(size, samples.kind)
    if size is not None and inputs.shape[1:3] != (size, size):
        inputs, targets, task = _resized(inputs, targets, task, size)
    kind = kind_of(task)
    if by is None:
        if kind.is_pixelwise:  # an image has many pixels: validation needs no least number of each stratum
            ratios = ratios or RATIOS
        split = split_samples(kind.strata(targets), samples.fixed_split, ratios, seed)
    else:
        split = split_by_column(by, kind.strata(targets), samples.fixed_split, ratios, seed)
        notes.append(split_by_note(by, split))
    doubted: tuple[int, ...] = ()
    if leave_out is not None:
        split, doubted = leave_out.applied(split, samples.files, targets, task, notes)
    count, held = folds, None
    in_order = by is not None and by.is_order
    if count == "auto":
        enough = DATA_KINDS[samples.kind].enough_valid if for_training and not in_order else 0
        count = choose_folds(split, samples.fixed_split, enough)
    if count and in_order:
        raise DataError(f"folds are {count}, but split_by orders the samples, so that later ones validate; use 0")
    if count:
        whole = without_valid(split)
        try:
            held = make_folds(targets, whole, task, count, seed, None if by is None else by.groups)
        except DataError as error:
            if folds != "auto":
                raise
            notes.append(f"validation is a split of its own, since folds are not possible: {error}")
        else:
            notes.append(_fold_note(held, whole, int((samples.fixed_split == SPLITS.index("valid")).sum())))
            split = whole
    notes += kind.balance_notes(targets, split, task)
    columns = samples.columns
    if table is not None:
        rows = np.flatnonzero(split == 0)
        columns, inputs, description = fit_columns(table, rows)
        notes.append(description)
        notes += leak_notes(columns, inputs[rows], targets[rows], task)
    mean, std = moments(inputs, np.flatnonzero(split == 0))
    from_source = sorted({int(i) for i in np.unique(samples.fixed_split)} - {UNASSIGNED, 0})
    span = _range(inputs, samples.kind, split, from_source, notes)
    fields = (samples.name, inputs, targets, split, task, mean, std, samples.kind, None)
    named = by.name if by else "", samples.files, doubted
    return Dataset(*fields, span, held, columns, *named)


def _resized(
    images: NDArray[Any], targets: NDArray[Any], task: Task, size: int
) -> tuple[NDArray[Any], NDArray[Any], Task]:
    """Return images at `size` x `size` pixels with their targets and the task, which change where these are masks."""
    if kind_of(task).is_pixelwise:
        targets, task = resize_masks(targets, size), dataclasses.replace(task, output=(size, size, len(task.names)))
    return resize(images, size), targets, task


def _range(
    inputs: NDArray[Any], kind: DataKind, split: NDArray[np.uint8], given: Collection[int], notes: list[str]
) -> PixelRange | None:
    """Return the range of the training images' pixels; None for other kinds of data: their channels differ in unit.

    Images of one pixel are tables of version 1.
    """
    is_image = DATA_KINDS[kind].is_picture and inputs.shape[1:3] != (1, 1)
    return training_range(extremes(inputs), split, given, notes) if is_image else None
