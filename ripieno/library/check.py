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
from ripieno.tasks.labels import check_classes, check_names, label_indices
from ripieno.tasks.metrics import cross_entropy, true_class
from ripieno.tasks.probabilities import check_probabilities
from ripieno.types import Ints, Split

if TYPE_CHECKING:
    from ripieno.library.library import Library

TargetSource = str | Path | ArrayLike
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


def read_probabilities(name: str, values: NDArray[Any], labels: Ints, classes: int) -> NDArray[Any]:
    """Return `values` as floats. Raises LibraryError unless they are probabilities (samples, classes) for `labels`."""
    if values.dtype.kind not in "fiub":
        raise LibraryError(f"{name}: predictions are of type {values.dtype}, must be numbers")
    if values.ndim != 2:
        raise LibraryError(f"{name}: predictions have shape {values.shape}, must be (samples, classes)")
    if len(values) != len(labels):
        hint = "; does the label file begin with a column name?" if len(values) == len(labels) + 1 else ""
        raise LibraryError(f"{name}: predictions of {len(values)} samples, but there are {len(labels)} labels{hint}")
    if values.shape[1] != classes:
        raise LibraryError(f"{name}: predictions of {values.shape[1]} classes, must be of {classes}")
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    check_probabilities(name, values, LibraryError)
    return values


def note_if_worse_than_chance(
    labels: Ints, probabilities: NDArray[Any], what: str, classes: Sequence[str] = ()
) -> str | None:
    """Return a note on predictions (samples, classes) worse than guessing, or correct in another class order.

    `what` names the predictions, `classes` are names in the order of the columns. None when there is no finding.
    """
    from scipy.optimize import linear_sum_assignment

    samples, count = probabilities.shape
    names = classes or [str(i) for i in range(count)]
    hits = np.zeros((count, count), np.int64)
    np.add.at(hits, (probabilities.argmax(axis=1), labels), 1)
    # assign each column the class for which most samples are right
    own, order = int(hits.trace()), linear_sum_assignment(hits, maximize=True)[1]
    best = int(hits[np.arange(count), order].sum())
    # an order chosen by chance gains about the square root
    if best >= 0.6 * samples and best - own >= max(3 * math.sqrt(samples), samples / 5):
        named = ", ".join(names[i] for i in order[:10]) + (", ..." if count > 10 else "")
        return (
            f"{what} is right for {own / samples:.0%} of {samples} samples, but for {best / samples:.0%} if its "
            f"columns are the classes {named}; reorder them"
        )
    chance = samples / count
    rarely = own < chance - 2 * math.sqrt(chance * (1 - 1 / count))
    if rarely or (own < chance and cross_entropy(probabilities, labels) > 2 * math.log(count)):
        return (
            f"{what} is right for {own / samples:.0%} of {samples} samples, guessing for {1 / count:.0%}; "
            "compare the order of its classes and the scaling of its images with the data set's"
        )
    return None


def check_new(members: Mapping[str, NDArray[Any]], labels: Ints, library: Library) -> None:
    """Raise LibraryError when two models predict exactly the same: one would be a copy under another name."""
    seen: dict[bytes, list[str]] = {}
    for name in library.ids():
        if name not in members and library.has_truth(name):
            seen.setdefault(library.true_class_probabilities([name]).tobytes(), []).append(name)
    for name, values in members.items():
        truth = true_class(values, labels).astype(np.float32).tobytes()
        for other in seen.setdefault(truth, []):
            known = members.get(other)
            theirs = library.predictions(other) if known is None else known
            # models that err on different classes may have equal true-class probabilities, e.g. only 0 and 1
            if np.array_equal(theirs, values.astype(theirs.dtype)):
                raise LibraryError(f"{name} has exactly the predictions of {other}; leave one of them out")
        seen[truth].append(name)


def read_classes(classes: Sequence[str] | None, count: int, library: Library) -> tuple[str, ...]:
    """Return the class names: the given ones, else the library's, else numbers."""
    ids = library.ids()
    known = library.member(ids[0]).classes if ids else None
    names = tuple(map(str, classes)) if classes is not None else known or tuple(str(c) for c in range(count))
    check_classes(names, "the models", LibraryError)
    if known is not None and names != known:
        raise LibraryError(f"the classes differ from those of {library.path} ({', '.join(known[:4])}, ...)")
    return names


def one_of(targets: TargetSource | None, labels: TargetSource | None) -> TargetSource | None:
    """Return `targets`, or `labels`, its other name. Raises LibraryError when both are given."""
    if targets is not None and labels is not None:
        raise LibraryError("targets and labels are two names of one option: pass targets alone")
    return labels if targets is None else targets


def match_labels(values: NDArray[Any] | None, classes: tuple[str, ...], library: Library, split: Split) -> Ints:
    """Return labels as indices into `classes`, from indices or names; None means those of the library."""
    known = library.targets(split) if library.targets_path(split).exists() else None
    if values is None:
        if known is None:
            raise LibraryError(f"there are no {split} labels; pass them as a file or an array")
        return known
    if values.ndim != 1 or not len(values):
        raise LibraryError(f"labels have shape {values.shape}, must be (samples,) with at least one sample")
    labels = label_indices(values, classes, "labels", LibraryError)
    if known is not None and not np.array_equal(known, labels):
        where = "number" if len(known) != len(labels) else f"from sample {int(np.flatnonzero(known != labels)[0])} on"
        raise LibraryError(
            f"the labels differ from those of {library.path} ({where}); all members must predict the same samples"
        )
    return labels


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
