"""Front of ensembles of a growing set of members, on arrays alone.

The loss of an ensemble is that on rows which never change, so ensembles found before stay as good as they were: a
front is what no other ensemble dominates among all that were found, and its hypervolume never falls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import SelectionError
from ripieno.selection.hypervolume import CostLoss, hypervolume, pareto_front, reference_point
from ripieno.selection.select import front
from ripieno.types import Floats, FrontEnsemble

FIRST = 10
"""Number of members from which on there is a front."""
ROWS = 8192
"""Maximum number of rows by which ensembles are compared."""
ENTRIES = 1 << 23
"""Maximum number of kept predictions: with copies that a selection makes they need 100 MB."""
POINTS = 8
"""Number of budgets of a selection."""

CostArguments = Callable[[Sequence[str]], Mapping[str, Any]]
"""Returns the costs of members as `select_members` takes them."""


@dataclass
class _Row:
    values: NDArray[np.float32]
    loss: float
    cost: float


class GrowingFront:
    """Best ensembles, for every budget, of the members that were added until now.

    Rows of a member are the likelihoods of what is true, (rows,); with `targets` (samples, outputs) they are values,
    (samples, outputs), judged by the squared error. `points` and `reference` are those of an earlier front.
    """

    def __init__(
        self,
        targets: NDArray[Any] | None = None,
        points: Sequence[FrontEnsemble] = (),
        reference: CostLoss | None = None,
        entries: int = ENTRIES,
    ) -> None:
        self.points = tuple(points)
        """the front, cheapest first"""
        self.reference = reference
        """cost and loss that bound the hypervolume; None before the first front"""
        self._targets = targets
        self._entries = entries
        self._rows: dict[str, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, name: str, values: NDArray[Any], loss: float, cost: float) -> None:
        """Add a member by its rows, its own loss, and its cost alone; one whose rows are not finite is left out."""
        single = np.asarray(values, dtype=np.float32)
        if np.isfinite(single).all():
            self._rows[name] = _Row(single, loss, cost)

    def grow(self, costs: CostArguments | None = None) -> bool:
        """Select from all members; return whether the front has a new ensemble.

        Without `costs`, that of an ensemble is the number of its members.
        """
        if not self._rows:
            return False
        self._evict()
        names = list(self._rows)
        try:
            choices = front(
                [row.values for row in self._rows.values()],
                self._targets,
                method="smobf",
                points=POINTS,
                task="classification" if self._targets is None else "regression",
                names=names,
                calibrate="none",
                cv=0,
                **(costs(names) if costs else {}),
            )
        except SelectionError:  # such as costs that are all zero
            return False
        known = {frozenset(point.members) for point in self.points}
        found = [FrontEnsemble(c.cost, c.loss, tuple(names[m] for m in c.members)) for c in choices]
        found = [point for point in found if frozenset(point.members) not in known]
        before, self.points = self.points, merge_points(self.points, found)
        if self.reference is None:
            own = FIRST * float(np.mean([row.cost for row in self._rows.values()]))
            self.reference = reference_point([_pairs(self.points), [(own, 0.0)]])
        return self.points != before

    @property
    def hypervolume(self) -> float:
        """Share of the area up to the reference that the front dominates, 0..1."""
        return 0.0 if self.reference is None else hypervolume_share(self.points, self.reference)

    def _evict(self) -> None:
        """Leave out members that most others beat in cost and loss, where there are more than memory allows."""
        most = max(FIRST, self._entries // max(1, next(iter(self._rows.values())).values.size))
        if len(self._rows) <= most:
            return
        losses = np.array([row.loss for row in self._rows.values()])
        order = beaten_by(np.array([row.cost for row in self._rows.values()]), losses)
        kept = set(np.lexsort((losses, order))[:most].tolist())
        self._rows = {name: row for n, (name, row) in enumerate(self._rows.items()) if n in kept}


def beaten_by(costs: Floats, losses: Floats) -> NDArray[np.int64]:
    """Return the number of members that have a lower loss at no higher cost, for each member."""
    return np.array(
        [((costs <= cost) & (losses < loss)).sum() for cost, loss in zip(costs, losses, strict=True)], dtype=np.int64
    )


def merge_points(before: Sequence[FrontEnsemble], found: Sequence[FrontEnsemble]) -> tuple[FrontEnsemble, ...]:
    """Return the front of the ensembles of both, cheapest first; among equal ones those of `before` stay."""
    by_place: dict[CostLoss, FrontEnsemble] = {}
    for point in (*before, *found):
        by_place.setdefault((point.cost, point.loss), point)
    return tuple(by_place[place] for place in pareto_front(by_place))


def hypervolume_share(points: Sequence[FrontEnsemble], reference: CostLoss) -> float:
    """Return the share of the area of cost times loss up to `reference` that `points` dominate, 0..1."""
    area = reference[0] * reference[1]
    return hypervolume(_pairs(points), reference) / area if area > 0 else 0.0


def _pairs(points: Sequence[FrontEnsemble]) -> list[CostLoss]:
    return [(point.cost, point.loss) for point in points]
