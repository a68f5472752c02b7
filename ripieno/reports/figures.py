"""Numbers of figures 3 to 6 of the paper, from any run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.cost_table import CostTable
from ripieno.library.evaluate import evaluate
from ripieno.selection import Choice, round_budget, select_members
from ripieno.selection.validation import SelectionMethod
from ripieno.tasks.metrics import losses
from ripieno.types import Member, ProgressFunction

BUDGETS = 6
"""Number of lines in figures 3 and 4."""
MOMENTS = 8
"""Number of points of each line."""
SIZES = (1, 2, 3, 4, 6, 8, 12)
"""Ensemble sizes of forward selection in figures 5 and 6."""


@dataclass(frozen=True)
class FigurePoint:
    """An ensemble as a point: `label` (`B20` or `#4`), cost in seconds, error on the test split in 0..1."""

    method: SelectionMethod
    label: str
    cost: float
    members: int
    error: float


@dataclass(frozen=True)
class Figures:
    """Figures 3 and 4: `error_by_time[budget]` at training `hours`; figures 5 and 6: SMOBF and forward as points."""

    budgets: tuple[float, ...]
    hours: tuple[float, ...]
    """total training time of all slots"""
    error_by_time: Mapping[float, tuple[float | None, ...]]
    """None where no ensemble fits the budget yet"""
    points: tuple[FigurePoint, ...]


def figures(
    library: Library, costs: CostTable, score: str, progress: ProgressFunction = lambda *_: None
) -> Figures | None:
    """Return the numbers; None if fewer than two members have a cost and test predictions.

    `costs` are in seconds; `score` is `accuracy` or `macro_f1`; an error is one minus the score on the test
    split.
    """
    priced = sorted(m for m in library.ids() if m in costs.own)
    evaluate(library, priced, progress)
    ids = [m for m in priced if library.has_predictions(m, "test")]
    if len(ids) < 2:
        return None
    truth, labels = library.true_class_probabilities(ids), library.targets("test")
    alone = costs.alone("seconds")
    median = np.median([alone[m] for m in ids])
    highest = min(costs.total(ids)["seconds"], 32 * median)
    budgets = tuple(round_budget(b) for b in np.geomspace(median, highest, BUDGETS))

    def error(choice: Choice) -> float:
        predictions = [library.predictions(ids[i], "test") for i in choice.members]
        combined = replace(choice, members=tuple(range(len(predictions)))).combine(predictions)
        return 1 - losses(combined, labels, "test")[f"test_{score}"]

    def chosen(
        among: Sequence[int], budget: float | None, method: SelectionMethod = "smobf", size: int | None = None
    ) -> Choice | None:
        """Return the choice among some of the members, as indices into all of them."""
        try:
            rows, priced = truth[list(among)], costs.arguments(ids[i] for i in among)
            choice = select_members(rows, budget=budget, method=method, size=size, **priced)
        except SelectionError:
            return None  # no ensemble fits the budget, or there are fewer members than `size`
        return replace(choice, members=tuple(among[i] for i in choice.members))

    at = _training_hours(library.members())
    hours = [at[m] for m in ids]
    moments = np.linspace(0, max(hours), MOMENTS + 1)[1:]
    lines: dict[float, tuple[float | None, ...]] = {}
    for done, budget in enumerate(budgets):
        progress("choosing for the paper's figures", done, len(budgets) + 1)
        then = [chosen([i for i, h in enumerate(hours) if h <= moment + 1e-9], budget) for moment in moments]
        lines[budget] = tuple(None if c is None else error(c) for c in then)
    progress("choosing for the paper's figures", len(budgets), len(budgets) + 1)
    points = []
    requests: list[tuple[SelectionMethod, str, float | None, int | None]] = [
        ("smobf", f"B{b:g}", b, None) for b in budgets
    ]
    requests += [("forward", f"#{size}", None, size) for size in SIZES]
    for method, label, limit, size in requests:
        choice = chosen(range(len(ids)), limit, method, size)
        if choice is not None:
            points.append(FigurePoint(method, label, choice.cost, len(choice.members), error(choice)))
    progress("choosing for the paper's figures", len(budgets) + 1, len(budgets) + 1)
    return Figures(budgets, tuple(float(m) for m in moments), lines, tuple(points))


def _training_hours(members: Sequence[Member]) -> dict[str, float]:
    """Return the total training hours of the search, over all slots, at the creation of each member."""
    spent, at = 0.0, {}
    last: dict[int, float] = {}
    for member in sorted(members, key=lambda m: (m.created, m.id)):
        spent += member.seconds - last.get(member.trial, 0.0)
        last[member.trial] = member.seconds
        at[member.id] = spent / 3600
    return at
