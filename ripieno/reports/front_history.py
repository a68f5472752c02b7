"""Course of the live front of a search, read from its journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ripieno.selection.costs import round_budget
from ripieno.selection.growing_front import merge_points
from ripieno.types import FrontEnsemble, LiveFront

BUDGETS = 4
"""Maximum number of budgets at which a front is shown."""


def read_front_history(journal: Path) -> tuple[LiveFront, ...]:
    """Return the fronts that a journal keeps, the oldest first; an incomplete last line is left out.

    One with another kind of cost or another reference point than that before it has none of its ensembles.
    """
    fronts: list[LiveFront] = []
    for fields in _entries(journal):
        found = [FrontEnsemble(float(cost), float(loss), tuple(members)) for cost, loss, members in fields["new"]]
        kind, reference = str(fields["cost"]), (float(fields["reference"][0]), float(fields["reference"][1]))
        continues = fronts and (fronts[-1].cost, fronts[-1].reference) == (kind, reference)
        fronts.append(
            LiveFront(
                cost=kind,
                ensembles=merge_points(fronts[-1].ensembles if continues else (), found),
                reference=reference,
                hypervolume=float(fields["hypervolume"]),
                members=int(fields["members"]),
                seconds=float(fields["seconds"]),
            )
        )
    return tuple(fronts)


def _entries(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the fronts in the lines of a journal; of a line that was written twice, the last."""
    entries: dict[str, dict[str, Any]] = {}
    for line in journal.read_bytes().split(b"\n") if journal.exists() else ():
        if b'"front:' not in line:
            continue
        try:
            attributes = json.loads(line).get("user_attr", {})
        except ValueError:  # it is still being written
            continue
        entries |= {name: value for name, value in attributes.items() if name.startswith("front:")}
    yield from (entries[name] for name in sorted(entries, key=lambda name: (len(name), name)))


def front_budgets(front: LiveFront, most: int = BUDGETS) -> list[tuple[float, FrontEnsemble]]:
    """Return at most `most` round budgets with the best ensemble within each, which differ; the budget of the search.

    The budgets are spread evenly, by ratio, from the cheapest ensemble to the best.
    """
    points, shown = front.ensembles, dict[FrontEnsemble, float]()
    if not points:
        return []
    low, high = points[0].cost, points[-1].cost
    for step in range(most):
        share = step / (most - 1) if most > 1 else 1.0
        point = front.best(low * (high / low) ** share if low > 0 else low + (high - low) * share) or points[0]
        shown.setdefault(point, round_budget(point.cost))
    if front.budget is not None and (best := front.best(front.budget)) is not None:
        shown[best] = front.budget
    return sorted(((budget, point) for point, budget in shown.items()), key=lambda pair: pair[1].cost)
