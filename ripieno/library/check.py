"""Validation of imported models before anything is written: one line names the model and the fault."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ripieno.errors import LibraryError
from ripieno.tasks.labels import check_names, shown
from ripieno.tasks.metrics import METRICS, cross_entropy, dashed_name
from ripieno.tasks.pixels import confusion, most_likely, prediction_blocks
from ripieno.tasks.registry import DEFAULT_TASK, TASKS, kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Ints, Split, Task

if TYPE_CHECKING:
    from ripieno.library.library import Library

TargetSource = str | Path | ArrayLike
COMPARED = 64
"""Samples by which predictions are first compared."""
NUMBERS = 1 << 16
"""Numbers of these that are compared at most: of pixels, few samples have many."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def check_ids(names: Sequence[str], library: Library, replace: bool) -> None:
    """Raise LibraryError for names that cannot be ids or repeat, or are in the library unless `replace`."""
    check_names(names, "models", LibraryError)
    for name in names:
        if not NAME.fullmatch(name):  # an id is a folder's name and typed on command lines
            rule = "letters, digits and . _ + - after a letter or digit, at most 100"
            raise LibraryError(f"{name!r} cannot name a member; expected {rule}")
        if not replace and name in library:
            raise LibraryError(f"{library.path} already has a member {name!r}; rename this one, or replace that one")


def read_predictions(name: str, values: NDArray[Any], targets: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return `values` as floats (samples, *task.output).

    Raises LibraryError unless they are predictions of `task`, of as many samples as `targets`.
    """
    kind = kind_of(task)
    read = kind.read_predictions(name, values, task, LibraryError)
    if len(read) != len(targets):
        hint = "; does the label file begin with a column name?" if len(read) == len(targets) + 1 else ""
        known = f"{len(targets)} {kind.targets_name}"
        raise LibraryError(f"{name}: predictions of {len(read)} samples, but there are {known}{hint}")
    return read


def note_if_poor(targets: NDArray[Any], predictions: NDArray[Any], what: str, task: Task) -> str | None:
    """Return a note on predictions worse than guessing, or right in another order of classes; None without one.

    `what` names the predictions. Classes are compared with chance, other targets with the mean of each.
    """
    if targets.ndim == 1:
        return note_if_worse_than_chance(targets, predictions, what, task.names)
    if kind_of(task).is_pixelwise:
        return _note_if_pixels_poor(targets, predictions, what, task.names)
    loss = METRICS[kind_of(task).metrics[0]]
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    own, constant = loss.function(predictions, targets), loss.function(mean, targets)
    if own <= constant:
        return None
    return (
        f"{what} has a {loss.title} of {loss.format(own)} on {len(targets)} samples, the mean of the targets "
        f"{loss.format(constant)}; compare the order and the units of its columns with the targets'"
    )


def note_if_worse_than_chance(
    labels: Ints, probabilities: NDArray[Any], what: str, classes: Sequence[str] = ()
) -> str | None:
    """Return a note on predictions (samples, classes) worse than guessing, or correct in another class order.

    `what` names the predictions, `classes` are names in the order of the columns. None when there is no finding.
    """
    samples, count = probabilities.shape
    names = classes or [str(i) for i in range(count)]
    hits = np.zeros((count, count), np.int64)
    np.add.at(hits, (probabilities.argmax(axis=1), labels), 1)
    if note := _note_of_order(hits, what, names, "samples"):
        return note
    own, chance = int(hits.trace()), samples / count
    rarely = own < chance - 2 * math.sqrt(chance * (1 - 1 / count))
    if rarely or (own < chance and cross_entropy(probabilities, labels) > 2 * math.log(count)):
        return (
            f"{what} is right for {own / samples:.0%} of {samples} samples, guessing for {1 / count:.0%}; "
            "compare the order of its classes and the scaling of its images with the data set's"
        )
    return None


def _note_of_order(hits: Ints, what: str, names: Sequence[str], noun: str) -> str | None:
    """Return a note if another order of the columns is right far more often.

    `hits` (columns, classes) counts the samples or pixels of each class by the column predicted; `noun` names them.
    """
    from scipy.optimize import linear_sum_assignment

    # assign each column the class for which most are right
    count, own, total = len(hits), int(hits.trace()), int(hits.sum())
    order = linear_sum_assignment(hits, maximize=True)[1]
    best = int(hits[np.arange(count), order].sum())
    # an order chosen by chance gains about the square root
    if best < 0.6 * total or best - own < max(3 * math.sqrt(total), total / 5):
        return None
    named = ", ".join(names[i] for i in order[:10]) + (", ..." if count > 10 else "")
    return (
        f"{what} is right for {own / total:.0%} of {total} {noun}, but for {best / total:.0%} if its "
        f"columns are the classes {named}; reorder them"
    )


def _note_if_pixels_poor(masks: NDArray[Any], predictions: NDArray[Any], what: str, names: Sequence[str]) -> str | None:
    """Return a note on pixels that are predicted worse than by the most frequent class alone; None otherwise."""
    count = predictions.shape[-1]
    hits = np.zeros((count, count), np.int64)
    for block in prediction_blocks(predictions):
        hits += confusion(most_likely(predictions[block]), masks[block], count).T
    if note := _note_of_order(hits, what, names, "pixels"):
        return note
    own, total, frequent = int(hits.trace()), int(hits.sum()), hits.sum(axis=0)
    if own >= min(frequent.max(), total / 2):
        return None
    constant = f"the class {names[int(frequent.argmax())]!r} alone for {frequent.max() / total:.0%}"
    return (
        f"{what} is right for {own / total:.0%} of {total} pixels, {constant}; "
        "compare the order of its classes and the scaling of its images with the data set's"
    )


def check_new(members: Mapping[str, NDArray[Any]], library: Library) -> None:
    """Raise LibraryError when two models predict exactly the same: one would be a copy under another name."""
    seen: dict[bytes, list[str]] = {}
    for name in library.ids():
        if name not in members and library.has_predictions(name, "valid"):
            seen.setdefault(_first_rows(library.predictions(name)), []).append(name)
    for name, values in members.items():
        key = _first_rows(values)
        for other in seen.setdefault(key, []):
            known = members.get(other)
            theirs = library.predictions(other) if known is None else known
            if _equal(theirs, values):
                raise LibraryError(f"{name} has exactly the predictions of {other}; leave one of them out")
        seen[key].append(name)


def _first_rows(values: NDArray[Any]) -> bytes:
    """Return the first predictions as bytes, equal for equal predictions in any precision."""
    count = max(1, min(COMPARED, NUMBERS // max(1, values[0].size)))
    with np.errstate(over="ignore"):
        return np.asarray(values[:count], np.float16).tobytes()


def _equal(known: NDArray[Any], values: NDArray[Any]) -> bool:
    """Return whether predictions are the same in the precision of those that are `known`; mapped ones stay mapped."""
    if known.shape != values.shape:
        return False
    return all(np.array_equal(known[b], values[b].astype(known.dtype)) for b in prediction_blocks(known))


def match_kind(task: str | None, library: Library) -> TaskKind:
    """Return the kind `task` of models to import, by default that of the library, in an empty one classification.

    Raises LibraryError for an unknown kind, and for one that differs from the library's.
    """
    ids = library.ids()
    known = library.member(ids[0]).task.kind if ids else None
    if task is not None and task not in TASKS:
        raise LibraryError(f"task {task!r} is unknown: expected one of {', '.join(TASKS)}")
    if known is not None and task not in (None, known):
        raise LibraryError(f"{library.path} is a run of task {known}, not {task}; import into another run")
    return TASKS[task or known or DEFAULT_TASK]


def match_task(
    kind: TaskKind, names: Sequence[str] | None, count: int, library: Library, size: tuple[int, ...] = ()
) -> Task:
    """Return the task of models to import, with `names` of `count` outputs; None: those of the library, or numbers.

    `size` is the shape of a prediction without its last axis: (height, width) of a segmentation. Raises LibraryError
    where they differ from the library's.
    """
    ids = library.ids()
    known = library.member(ids[0]).task if ids else None
    if names is None:
        names = known.names if known is not None else tuple(map(str, range(count)))
    found = Task(kind.name, (*size, len(names)), tuple(map(str, names)), dashed_name(kind.default_metric))
    kind.check_task(found, "the models", LibraryError)
    if known is not None and found != known:
        theirs = f"those of {library.path} ({shown(known.names)})"
        raise LibraryError(f"the names of the {kind.names_title} differ from {theirs}")
    return found if known is None else known


def one_of(targets: TargetSource | None, labels: TargetSource | None) -> TargetSource | None:
    """Return `targets`, or `labels`, its other name. Raises LibraryError when both are given."""
    if targets is not None and labels is not None:
        raise LibraryError("targets and labels are two names of one option: pass targets alone")
    return labels if targets is None else targets


def match_targets(values: Any, task: Task, library: Library, split: Split) -> NDArray[Any]:
    """Return targets of `task` (classes: from indices or names); None means those of the library."""
    kind = kind_of(task)
    known = library.targets(split) if library.targets_path(split).exists() else None
    if values is None:
        if known is None:
            raise LibraryError(f"there are no {split} {kind.targets_name}; pass them as a file or an array")
        return known
    targets = kind.read_targets(values, task, kind.targets_name, LibraryError)
    check_known_targets(targets, task, library, split)
    return targets


def check_known_targets(targets: NDArray[Any], task: Task, library: Library, split: Split) -> None:
    """Raise LibraryError when the library has other targets of `split`."""
    kind = kind_of(task)
    known = library.targets(split) if library.targets_path(split).exists() else None
    if known is not None and not np.array_equal(known, targets):
        alike = known.shape == targets.shape
        where = f"from sample {int(np.argwhere(known != targets)[0, 0])} on" if alike else "number"
        raise LibraryError(
            f"the {kind.targets_name} differ from those of {library.path} ({where}); all members must predict the same "
            "samples"
        )


def check_costs(costs: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    """Raise LibraryError unless costs are of the imported models, of the same kinds, finite and not negative."""
    if not costs:
        return
    kinds = set(next(iter(costs.values())))
    for name in costs:
        if name not in names:
            raise LibraryError(f"there is a cost of {name!r}, but no such model")
    for name in names:
        if name not in costs:
            raise LibraryError(f"{name} has no cost; pass one for each model, or for none")
        if set(costs[name]) != kinds or not kinds:
            raise LibraryError(f"{name} has costs {sorted(costs[name])}, expected {sorted(kinds)} as for the first")
        for kind, value in costs[name].items():
            if isinstance(value, bool | str) or not np.isfinite(value) or value < 0:
                raise LibraryError(f"{name} costs {value} {kind}, must be a number, finite and not negative")
