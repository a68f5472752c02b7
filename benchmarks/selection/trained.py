"""Every method on libraries that ripieno trained: selected on the validation split, evaluated on the test split.

    python benchmarks/house/search.py fashion && python benchmarks/house/search.py plankton
    python benchmarks/selection/trained.py runs/house-fashion/run runs/house-plankton/run

The runs need measured costs. Writes benchmarks/results/selection-trained.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
from libraries import versions

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

import ripieno
from ripieno.library.evaluate import evaluate
from ripieno.selection import Choice, front, select_members
from ripieno.selection.validation import SelectionMethod
from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import losses

MULTIPLES = (1, 2, 4, 8, 16)
"""Budgets, in costs of the median member."""


def table(run: Path) -> list[dict[str, Any]]:
    """Return a row for each budget and method."""
    library = ripieno.Library(run)
    held = ripieno.show(library)
    ids = sorted(held.costs)
    evaluate(library, ids)
    truth, labels = library.true_class_probabilities(ids), library.targets("test")
    costs = np.array([held.costs[m] for m in ids])
    score = held.metric.replace("-", "_")
    rows = []
    for multiple in MULTIPLES:
        budget = float(np.median(costs) * multiple)
        found: dict[str, Choice] = {}
        for method in get_args(SelectionMethod):
            if method == "exact" and len(ids) > 18:
                continue
            found[method] = select_members(truth, None, costs, budget, method, prune=1.0)
        found["front"] = front(
            truth,
            None,
            costs,
            sorted({max(budget * k, costs.min()) for k in (0.25, 0.5, 0.75, 1)}),
            prune=1.0,
            method="smobf",
        )[-1]
        for method, choice in found.items():
            predictions = np.stack([library.predictions(ids[i], "test") for i in choice.members])
            judged = losses(combine(predictions, choice.weights, choice.combiner), labels, "test")
            rows.append(
                {
                    "library": f"{run.parent.name} ({len(ids)})",
                    "budget s": round(budget, 3),
                    "method": method,
                    "members": len(choice.members),
                    "cost s": round(choice.cost, 3),
                    "valid loss": round(choice.loss, 4),
                    "test loss": round(judged["test_cross_entropy"], 4),
                    f"test error % ({held.metric})": round(100 * (1 - judged[f"test_{score}"]), 2),
                }
            )
    return rows


def main() -> None:
    """Write a table of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    rows = [row for run in options.runs for row in table(run)]
    record("selection-trained", versions(), rows, "budgets are multiples of the median member's cost")


if __name__ == "__main__":
    main()
