"""Objectives of a search, and the priority of its results.

Theory of operation. A search by the loss alone ranks results by it: the priority of a result is its loss. With several
objectives no single number is right, so results are compared at the same epoch only, by layers: the first layer is the
results that no other one dominates, the second those that only the first dominates, and so on. Within a layer the order
is that of the losses. The priority is the layer plus a fraction for the place within it; smaller is better. It is
computed again for all results at an epoch whenever one arrives there.

Pure: these functions read no clock and no file, and draw nothing at random.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SearchError
from ripieno.tasks.metrics import METRICS, dashed_name, metric_key

LOSS = "loss"
"""SearchObjective of every search: the loss of the task, by which members are ranked."""
COSTS: Mapping[str, str] = {
    "train_seconds": "seconds spent training",
    "flops": "floating-point operations for one sample",
    "parameters": "number of parameters",
    "bytes": "size of the exported file",
    "seconds": "seconds to predict 2,000 samples",
    "latency": "seconds to predict one sample",
    "memory": "peak bytes while predicting",
    "joules": "energy to predict 2,000 samples",
}
"""Costs that may be objectives, with what they are; smaller is better."""
MEASURED = ("seconds", "latency", "memory", "joules")
"""Costs that are measured: a search for them depends on the timing of the machine."""
KEPT = tuple(name for name in COSTS if name != "train_seconds")
"""Costs that are the same at all rungs of a trial: measured after its first job only."""
HIGHEST = 0.9
"""Quantile of the values above which all are equally bad."""
AUGMENTATION = 0.05
"""Share of the sum in the augmented Tchebycheff scalar, so that of two equal maxima the one better elsewhere wins."""
LEAST = 1e-3
"""Smallest scalar: some samplers take the logarithm."""
Vector = tuple[float, ...]
"""Values of the objectives of a result, in the order of the objectives; smaller is better."""
Points = NDArray[np.float64]


@dataclass(frozen=True)
class SearchObjective:
    """Number that a search makes small, or large where `maximize`."""

    name: str
    maximize: bool = False

    def minimized(self, value: float) -> float:
        """Return `value` so that smaller is better."""
        return -value if self.maximize else value


SINGLE = (SearchObjective(LOSS),)
"""Objectives of a search by the loss alone."""


def parse_objectives(asked: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names in a text such as `loss,seconds`, or in a sequence of them, in their order.

    Raises SearchError for an empty or repeated name, and where neither the loss nor a metric is among them.
    """
    names = tuple(name.strip() for name in (asked.split(",") if isinstance(asked, str) else asked))
    if not names or not all(names):
        raise SearchError(f"objective {asked!r}: expected names separated by commas, such as loss,seconds")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise SearchError(f"objective {', '.join(twice)} is given twice: name each once")
    if all(name in COSTS for name in names):
        raise SearchError(
            f"objective {', '.join(names)} alone is best for a model that learns nothing: add loss, as in "
            f"{','.join((LOSS, *names))}"
        )
    return names


def check_objectives(names: Sequence[str], metrics: Sequence[str], reported: Sequence[str] = ()) -> None:
    """Raise SearchError that lists the known words for a name that is none of them.

    `metrics` are those of the task, in either spelling; `reported` are the numbers that the trainer reports.
    """
    known = (LOSS, *COSTS, *map(dashed_name, metrics), *reported)
    if unknown := [name for name in names if name not in known and dashed_name(name) not in known]:
        raise SearchError(f"no objective {', '.join(unknown)}; there are: {', '.join(known)}")


def find_objectives(names: Sequence[str]) -> tuple[SearchObjective, ...]:
    """Return the objectives of `names`: metrics that are better when larger are made large, all others small."""
    metrics = {name: METRICS[metric_key(name)] for name in names if metric_key(name) in METRICS}
    return tuple(SearchObjective(name, name in metrics and metrics[name].higher_is_better) for name in names)


def vector(objectives: Sequence[SearchObjective], loss: float | None, values: Mapping[str, float]) -> Vector | None:
    """Return the values of the objectives of a result; None where it failed or one of them is not known."""
    if loss is None:
        return None
    found = [loss if o.name == LOSS else values.get(o.name) for o in objectives]
    known = [o.minimized(value) for o, value in zip(objectives, found, strict=True) if value is not None]
    return tuple(known) if len(known) == len(objectives) and all(map(isfinite, known)) else None


def missing_values(objectives: Sequence[SearchObjective], values: Mapping[str, float]) -> list[str]:
    """Return the names of the objectives, other than the loss, that have no finite value."""
    return [o.name for o in objectives if o.name != LOSS and not isfinite(values.get(o.name, inf))]


def layers(points: Points) -> NDArray[np.int64]:
    """Return the non-dominated layer of each of `points` (results, objectives), from 0; equal points share one."""
    if not len(points):
        return np.zeros(0, np.int64)
    unique, inverse = np.unique(points, axis=0, return_inverse=True)  # sorted by the first objective, then the next
    found = _layers_of_two(unique) if unique.shape[1] == 2 else _peeled_layers(unique)
    return found[inverse.reshape(-1)]


def _layers_of_two(points: Points) -> NDArray[np.int64]:
    """Return the layers of distinct, sorted points: one is below the layers whose smallest second value it exceeds."""
    found = np.zeros(len(points), np.int64)
    smallest: list[float] = []  # second value of each layer so far, rising
    for n, value in enumerate(points[:, 1].tolist()):
        found[n] = layer = bisect_right(smallest, value)
        smallest[layer : layer + 1] = [value]
    return found


def _peeled_layers(points: Points) -> NDArray[np.int64]:
    """Return the layers of distinct points: remove the front again and again."""
    found = np.zeros(len(points), np.int64)
    left = np.arange(len(points))
    layer = 0
    while len(left):
        rest = points[left]
        # distinct points: one that is nowhere larger dominates
        dominated = np.array([bool(np.count_nonzero((rest <= point).all(axis=1)) > 1) for point in rest])
        found[left[~dominated]] = layer
        left, layer = left[dominated], layer + 1
    return found


def priorities(points: Mapping[int, Vector], losses: Mapping[int, float]) -> dict[int, float]:
    """Return the priority of each trial: its layer, plus a fraction below 1 for its place within the layer.

    `points` are the values of the objectives by trial, `losses` those that break ties.
    """
    trials = sorted(points)
    if not trials:
        return {}
    found = layers(np.array([points[trial] for trial in trials]))
    members: dict[int, list[int]] = {}
    for trial, layer in zip(trials, found.tolist(), strict=True):
        members.setdefault(layer, []).append(trial)
    return {
        trial: layer + place / len(group)
        for layer, group in members.items()
        for place, trial in enumerate(sorted(group, key=lambda t: (losses[t], t)))
    }


@dataclass
class PriorityTable:
    """Priorities of the results of a search, epoch by epoch."""

    objectives: tuple[SearchObjective, ...] = SINGLE
    _points: dict[int, dict[int, Vector]] = field(default_factory=dict)
    _losses: dict[int, dict[int, float]] = field(default_factory=dict)

    def add(self, trial: int, epoch: int, loss: float | None, values: Mapping[str, float]) -> Mapping[int, float]:
        """Add the result of `trial` at `epoch`; return by trial the priorities there that may have changed.

        A failed trial has none, nor has one of which an objective is not known.
        """
        point = vector(self.objectives, loss, values)
        if point is None or loss is None:
            return {}
        if len(point) == 1:
            return {trial: point[0]}
        self._points.setdefault(epoch, {})[trial] = point
        self._losses.setdefault(epoch, {})[trial] = loss
        return priorities(self._points[epoch], self._losses[epoch])


def scaled(values: Sequence[float]) -> Points:
    """Return `values` in the scale in which results are compared: logarithms, or as they are if one is negative.

    Those above the quantile `HIGHEST` become equal to it: how bad a bad trial is does not matter. A zero counts as the
    smallest value above it.
    """
    found = np.array(values, float)
    if found.min() >= 0 and found.max() > 0:
        found = np.log(np.maximum(found, found[found > 0].min()))
    return found.clip(max=np.quantile(found, HIGHEST))


def unit_scaled(values: Points, low: Points, high: Points) -> Points:
    """Return `values` so that `low` is 0 and `high` is 1; 0 where they are equal. The last axis is the objectives'."""
    return (values - low) / np.where(high > low, high - low, 1.0)


def tchebycheff(values: Points, weights: Points) -> Points:
    """Return the augmented Tchebycheff scalar of `values` (..., objectives), each from 0 to 1: smaller is better."""
    weighted = values * weights
    return np.asarray(weighted.max(axis=-1) + AUGMENTATION * weighted.sum(axis=-1), float)


def scalarize(vectors: Sequence[Vector | None], weights: Sequence[float]) -> list[float | None]:
    """Return one number for each of `vectors`, by `weights` of the objectives (ParEGO; Knowles, 2006); None stays None.

    Objectives are `scaled`, and normalised over all `vectors`.
    """
    known = [v for v in vectors if v is not None]
    if not known:
        return [None] * len(vectors)
    columns = np.stack([scaled(column) for column in zip(*known, strict=True)], axis=1)
    scalars = iter(tchebycheff(unit_scaled(columns, columns.min(axis=0), columns.max(axis=0)), np.array(weights)))
    return [None if v is None else LEAST + float(next(scalars)) for v in vectors]


def dominates(one: Vector, other: Vector) -> bool:
    """Return True if `one` is nowhere larger than `other`, and somewhere smaller."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
