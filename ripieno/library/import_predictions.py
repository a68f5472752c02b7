"""Import of external models into a library as matrices of predictions.

All input is read and checked before the first byte is written; when a model is invalid, the library is unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import LibraryError, RipienoError
from ripieno.library import check
from ripieno.library.library import Library
from ripieno.library.table_io import SUFFIXES, numbers_of, read_arrays, read_table
from ripieno.tasks.labels import check_names, label_text, number_of, shown
from ripieno.tasks.probabilities import HIGHEST
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Input, Member, Split

CostsByName = Mapping[str, Mapping[str, float]]
RESERVED = ("targets", "labels", "costs", "classes")
"""Stems of files in a folder, and names in an .npz, that name no model."""
NO_TRIAL = -1
"""The trial of an imported member."""


@dataclass(frozen=True)
class PredictionSource:
    """Content of a source: predictions by name, labels, classes and costs."""

    predictions: dict[str, NDArray[Any]]
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    costs: CostsByName = field(default_factory=dict)
    left_out: str = ""
    """a note on files of a folder that were not read"""


def import_predictions(
    library: Library,
    source: str | Path | Mapping[str, ArrayLike],
    targets: str | Path | ArrayLike | None = None,
    costs: str | Path | Mapping[Any, Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    task: str | None = None,
    split: Split = "valid",
    half: bool = False,
    replace: bool = False,
    notes: list[str] | None = None,
    labels: str | Path | ArrayLike | None = None,
) -> tuple[Member, ...]:
    """Add models known only by their predictions; return the members added.

    `source` is a mapping from name to (samples, classes), or a file: .npy (samples, classes) or (models, samples,
    classes); .npz of one array per model or with `predictions` (models, samples, classes) and `names`, and optionally
    `targets`, `classes`, `costs` (models,); .csv or .parquet of one model, one column per class, and optionally
    `label`; or a folder of such files, with `targets` and `costs` files. `targets` are class indices or names; None:
    those of the source, else those of the library. `labels` is another name of `targets`, also in files. `costs` is a
    mapping from name to kinds or to one number, a pandas table, or a file of a table with a column `name` and one for
    each kind (`seconds`, `bytes`, ...). `half` stores float16. With `split` "test" the predictions are added to
    existing members. `notes` gets models that are worse than guessing, and files of a folder that were not read.

    `task` is a kind of task; None: that of the library, in an empty one classification. Several labels and regressions
    have one column for each label or target, named by `classes`, and targets (samples, labels) of 0 and 1 or (samples[,
    targets]): arrays, or tables of such columns. Those of a segmentation are arrays (samples, height, width, classes),
    which are stored as float16, with masks (samples, height, width) as targets.

    Raises LibraryError naming the model and its fault; the library is then unchanged.
    """
    if costs is not None and split != "valid":
        raise LibraryError(f"costs belong to the validation predictions; leave them out with split {split}")
    kind = check.match_kind(task, library)
    content = _from_mapping(source) if isinstance(source, Mapping) else _from_path(Path(source), kind)
    names = list(content.predictions)
    if not names:
        raise LibraryError("there are no models; pass at least one")
    counts = {v.shape[-1] if v.ndim == 2 or (v.ndim and kind.is_pixelwise) else 1 for v in content.predictions.values()}
    size = next(iter(content.predictions.values())).shape[1:-1] if kind.is_pixelwise else ()
    if classes is not None and content.classes is not None:
        _check_order(content.classes, tuple(map(str, classes)))
    known = check.match_task(kind, content.classes if classes is None else classes, min(counts), library, size)
    given = check.one_of(targets, labels)
    label_values = content.labels if given is None else _read_labels(given, kind)
    matched = check.match_targets(label_values, known, library, split)
    priced = content.costs if costs is None else _costs_of(costs)
    check.check_costs(priced, names)
    checked = {n: check.read_predictions(n, v, matched, known) for n, v in content.predictions.items()}
    if notes is not None:
        worse = (check.note_if_poor(matched, values, n, known) for n, values in checked.items())
        notes += [note for note in (content.left_out, *worse) if note]
    if split != "valid":
        return _add_split(library, checked, matched, split, half)
    check.check_ids(names, library, replace)
    check.check_new(checked, library)
    input = library.member(library.ids()[0]).input if len(library) else Input(())
    members = [
        Member(
            id=name,
            trial=NO_TRIAL,
            epoch=0,
            family="predictions",
            configuration={},
            input=input,
            task=known,
            losses=kind_of(known).losses(values, matched, known),
            parameters=0,
            seconds=0.0,
            format="predictions",
            costs={kind: float(value) for kind, value in priced.get(name, {}).items()},
        )
        for name, values in checked.items()
    ]
    add_all(
        library,
        [(member, as_stored(checked[member.id], half or kind.is_pixelwise), None) for member in members],
        matched,
    )
    return tuple(members)


def add_all(
    library: Library, members: Sequence[tuple[Member, NDArray[Any], bytes | None]], targets: NDArray[Any]
) -> None:
    """Add all of `members` with their predictions and weights, or none when one cannot be written."""
    added: list[str] = []
    try:
        for member, values, weights in members:
            new = member.id not in library
            if new:
                added.append(member.id)
            library.add(member, values, targets, weights)
    except RipienoError:
        for name in added:
            library.remove(name)
        raise


def as_stored(values: NDArray[Any], half: bool) -> NDArray[Any]:
    """Convert predictions to the stored type: float16 or float32."""
    return values.astype(np.float16 if half else np.float32, copy=False)


def _add_split(
    library: Library, checked: Mapping[str, NDArray[Any]], targets: NDArray[Any], split: Split, half: bool
) -> tuple[Member, ...]:
    for name in checked:
        if name not in library:
            raise LibraryError(f"{library.path} has no member {name!r}; add its validation predictions first")
    members = []
    for name, values in checked.items():
        member = library.member(name)
        library.write_predictions(name, split, as_stored(values, half or kind_of(member.task).is_pixelwise), targets)
        losses = {**member.losses, **kind_of(member.task).losses(values, targets, member.task, split)}
        members.append(dataclasses.replace(member, losses=losses))
        library.update(members[-1])
    return tuple(members)


def _from_mapping(source: Mapping[str, ArrayLike]) -> PredictionSource:
    arrays: dict[str, NDArray[Any]] = {}
    named = set()
    for name, values in source.items():
        try:
            if np.ma.is_masked(values):
                raise LibraryError(f"{name}: some predictions are masked; fill them")
            arrays[str(name)] = np.asarray(values)
        except ValueError as error:
            raise LibraryError(f"{name}: predictions are no array: {error}") from error
        columns = [str(column) for column in getattr(values, "columns", ())]  # of a pandas table
        if columns != [str(place) for place in range(len(columns))]:
            named.add(tuple(columns))
    if len(named) > 1:
        raise LibraryError("the tables name different classes, or in a different order; make them agree")
    return PredictionSource(arrays, classes=next(iter(named), None))


def _check_order(columns: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Raise LibraryError when columns have other names than `classes`; numbers from 0 are not names."""
    if columns not in (classes, tuple(map(str, range(len(classes))))):
        raise LibraryError(
            f"the columns of predictions are named {shown(columns)}, but the classes are {shown(classes)}; "
            "pass both in the same order"
        )


def _from_path(path: Path, kind: TaskKind) -> PredictionSource:
    """Read a file or a folder; of predictions of a `kind` of task."""
    if path.is_dir():
        return _from_folder(path, kind)
    if path.suffix.lower() in (".csv", ".parquet"):
        return _from_table(path, kind)
    arrays = read_arrays(path)
    if path.suffix.lower() == ".npy":
        return PredictionSource(_split_cube(path.stem, arrays[path.stem], None, kind))
    if {"targets", "labels"} <= arrays.keys():
        raise LibraryError(f"{path} holds targets and labels; leave one out")
    labels, classes = arrays.pop("targets", arrays.pop("labels", None)), arrays.pop("classes", None)
    names, costs = arrays.pop("names", None), arrays.pop("costs", None)
    if "predictions" in arrays:
        arrays = _split_cube(path.stem, arrays["predictions"], names, kind)
    if costs is not None and (costs.shape != (len(arrays),) or costs.dtype.kind not in "fiu"):
        raise LibraryError(f"{path}: costs have shape {costs.shape}, must be numbers ({len(arrays)},), one per model")
    priced = {} if costs is None else {n: {"cost": float(c)} for n, c in zip(arrays, costs, strict=True)}
    return PredictionSource(arrays, labels, None if classes is None else tuple(map(str, classes)), priced)


def _split_cube(stem: str, values: NDArray[Any], names: NDArray[Any] | None, kind: TaskKind) -> dict[str, NDArray[Any]]:
    if values.ndim != (5 if kind.is_pixelwise else 3):
        return {stem: values}
    if names is not None and len(names) != len(values):
        raise LibraryError(f"{stem}: {len(names)} names for {len(values)} models; pass one per model")
    known = [str(n) for n in names] if names is not None else [f"{stem}-{i:03d}" for i in range(len(values))]
    check_names(known, "models", LibraryError)
    return dict(zip(known, values, strict=True))


def _from_table(path: Path, kind: TaskKind) -> PredictionSource:
    table = read_table(path)
    classes = [name for name in table.columns if name != "label"]
    if not classes:
        raise LibraryError(f"{path} has no columns of classes")
    labels = np.asarray(table.names("label")) if "label" in table.columns else None
    values = numbers_of(table, path, classes)
    for name, column in zip(classes, values.T, strict=True) if kind.activation != "identity" else ():
        outside = column[(column < 0) | (column > HIGHEST)]
        if len(outside):
            raise LibraryError(
                f"{path} column {name!r} holds {outside[0]:g}; class columns must hold probabilities in 0..1. "
                "Leave out other columns; apply a softmax to logits first"
            )
    return PredictionSource({path.stem: values}, labels, tuple(classes))


def _from_folder(path: Path, kind: TaskKind) -> PredictionSource:
    seen = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    sources = [p for p in seen if p.suffix.lower() in SUFFIXES and p.is_file()]
    special: dict[str, Path] = {}
    for file in sources:
        stem = {"labels": "targets"}.get(file.stem.lower(), file.stem.lower())
        if stem in RESERVED and stem in special:
            raise LibraryError(f"{path} holds {special[stem].name} and {file.name}; leave one out")
        if stem in RESERVED:
            special[stem] = file
    parts = [_from_path(p, kind) for p in sources if p not in special.values()]
    if not parts:
        raise LibraryError(f"{path} holds no predictions; put one .npy, .csv or .parquet file per model there")
    predictions: dict[str, NDArray[Any]] = {}
    for part in parts:
        for name in part.predictions:
            if name in predictions:
                raise LibraryError(f"{path}: two files contain a model named {name!r}; rename one")
        predictions |= part.predictions
    labels = _read_labels(special["targets"], kind) if "targets" in special else None
    for part in parts:
        if labels is None:
            labels = part.labels
        elif part.labels is not None and not np.array_equal(part.labels, labels):
            raise LibraryError(f"{path}: {next(iter(part.predictions))} has other labels than the models before it")
    named = {part.classes for part in parts if part.classes is not None}
    if "classes" in special:
        stated = enumerate(_read_labels(special["classes"], None).tolist())
        named.add(tuple(label_text(name, place, "classes", LibraryError) for place, name in stated))
    if len(named) > 1:
        raise LibraryError(f"{path}: the files name different classes, or in a different order; make them agree")
    costs = _read_costs(special["costs"]) if "costs" in special else {}
    ignored = [p.name for p in seen if p not in sources]
    left_out = f"{path}: skipped {len(ignored)} files without predictions: {shown(ignored)}" if ignored else ""
    return PredictionSource(predictions, labels, next(iter(named), None), costs, left_out)


def _read_labels(source: str | Path | ArrayLike, kind: TaskKind | None) -> NDArray[Any]:
    """Read targets of a `kind` of task, or names of classes; those of several labels and values are all columns."""
    if not isinstance(source, str | Path):
        if np.ma.is_masked(source):
            raise LibraryError("some labels are masked; leave those samples out")
        try:
            values = np.asarray(source)
        except ValueError as error:
            raise LibraryError("the targets are no array: give those of all samples one shape") from error
        return values[:, 0] if hasattr(source, "columns") and values.shape[1:] == (1,) else values
    path = Path(source)
    if path.suffix.lower() in (".csv", ".parquet"):
        table = read_table(path)
        if kind is not None and kind.activation != "softmax":
            return numbers_of(table, path, list(table.columns))
        if "label" not in table.columns and len(table.columns) != 1:
            raise LibraryError(f"{path} has no column `label`; expected that column or a single one")
        name = "label" if "label" in table.columns else next(iter(table.columns))
        if name != "label" and table.row_names is None and number_of(name) is not None:
            raise LibraryError(f"{path} begins with {name}; its first row must be a column name, such as `label`")
        return np.asarray(table.names(name))
    arrays = read_arrays(path)
    if not {"targets", "labels"} & arrays.keys() and len(arrays) != 1:
        raise LibraryError(f"{path} has no array `targets` or `labels`")
    return arrays.get("targets", arrays.get("labels", next(iter(arrays.values()))))


def _costs_of(costs: Any) -> CostsByName:
    """Return costs by model name: of a file, a mapping, or a pandas table with the names in its index or column `name`.

    One number per model is of the kind `cost`. Raises LibraryError for any other form.
    """
    if isinstance(costs, str | Path):
        return _read_costs(Path(costs))
    if hasattr(costs, "to_dict") and hasattr(costs, "index"):
        table = costs.set_index("name") if "name" in getattr(costs, "columns", ()) else costs
        if not table.index.is_unique:
            raise LibraryError("costs name a model twice; pass one per model")
        costs = table.to_dict("index") if hasattr(table, "columns") else table.to_dict()
    if not isinstance(costs, Mapping):
        raise LibraryError(f"costs are {type(costs).__name__}, must be a file, a mapping by name, or a pandas table")
    by_name: dict[str, Mapping[str, float]] = {}
    for place, (key, own) in enumerate(costs.items()):
        name = label_text(key.item() if hasattr(key, "item") else key, place, "names of costs", LibraryError)
        if name in by_name:
            raise LibraryError(f"there are two costs of {name!r}; pass one per model")
        by_name[name] = own if isinstance(own, Mapping) else {"cost": own}
    return by_name


def _read_costs(path: Path) -> CostsByName:
    table = read_table(path)
    column = table.names("name") if "name" in table.columns else table.row_names
    kinds = [name for name in table.columns if name != "name"]
    if column is None or not kinds:
        raise LibraryError(f"{path} must have a column `name` and one for each kind of cost, such as `seconds`")
    names = [label_text(name, row, f"names of {path}", LibraryError) for row, name in enumerate(column)]
    check_names(names, f"rows of {path}", LibraryError)
    values = numbers_of(table, path, kinds)
    return {name: dict(zip(kinds, map(float, row), strict=True)) for name, row in zip(names, values, strict=True)}
