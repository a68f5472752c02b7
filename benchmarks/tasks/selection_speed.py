"""Speed of selection for every task, against classification, in turns on one thread.

    python benchmarks/tasks/selection_speed.py [--quick]

Classification: the networks of `benchmarks/selection/speed.py`, 2,000 samples. Multilabel: the same probabilities of
the true class, taken for those of 400 samples' five labels, so that both have 2,000 rows; and ten times as many.
Regression: values of 2,000 samples, with one and with five targets, of members with a common and an own error. Each
task: 34 greedy steps with replacement, the front over 20 budgets, and what `ripieno.select` does by default for one
budget. Ratios are of medians. Writes benchmarks/results/tasks-selection-speed{,-quick}.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
from libraries import grown, one_thread, versions
from numpy.typing import NDArray
from record import record

from ripieno.selection import front, select_members
from ripieno.tasks.metrics import true_class

STEPS, SAMPLES, LABELS = 34, 2000, 5
Problem = tuple[NDArray[Any], NDArray[Any] | None, str]
"""Predictions, targets and kind of task."""


def problems(members: int) -> tuple[dict[str, Problem], NDArray[np.float64]]:
    """Return a selection problem for each task, and the costs of the members."""
    library, rng = grown(members), np.random.default_rng(0)
    likelihood = np.ascontiguousarray(true_class(library.cube, library.labels))
    found: dict[str, Problem] = {"classification": (library.cube, library.labels, "classification")}
    for repeats in (1, 10):
        rows = np.tile(likelihood, (1, repeats)).reshape(members, -1, LABELS)
        present = rng.integers(0, 2, rows.shape[1:]).astype(np.uint8)
        found[f"multilabel, {rows.shape[1] * LABELS:,} rows"] = (
            np.where(present == 1, rows, 1 - rows),
            present,
            "multilabel",
        )
    for targets in (1, LABELS):
        truth = rng.normal(size=(SAMPLES, targets)).astype(np.float32)
        common = rng.normal(0, 0.3, truth.shape)
        own = rng.normal(0, 1, (members, *truth.shape)) * rng.uniform(0.2, 0.6, members)[:, None, None]
        found[f"regression, {targets} target{'s' * (targets > 1)}"] = (
            (truth + common + own).astype(np.float32),
            truth,
            "regression",
        )
    return found, library.costs


def measure(members: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each task."""
    tasks, costs = problems(members)
    budgets = np.geomspace(costs.min() * 1.1, 5000, 20).tolist()
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, (predictions, targets, kind) in tasks.items():
            given: dict[str, Any] = {"task": kind}
            runs: dict[str, Callable[[], Any]] = {
                "greedy ms": lambda p=predictions, t=targets, g=given: select_members(
                    p, t, method="replacement", size=STEPS, prune=1.0, **g
                ),
                "front ms": lambda p=predictions, t=targets, g=given: front(
                    p, t, costs=costs, budgets=budgets, method="smobf", prune=1.0, **g
                ),
                "default ms": lambda p=predictions, t=targets, g=given: select_members(p, t, costs, budgets[10], **g),
            }
            for run, function in runs.items():
                started = time.perf_counter()
                function()
                taken.setdefault((name, run), []).append(time.perf_counter() - started)
    middle = {key: 1e3 * float(np.median(times)) for key, times in taken.items()}
    first = next(iter(tasks))
    rows = []
    for name in tasks:
        row: dict[str, Any] = {"members": members, "task": name}
        for run in ("greedy ms", "front ms", "default ms"):
            row[run] = round(middle[name, run], 2)
            row[run.replace(" ms", " ratio")] = round(middle[name, run] / middle[first, run], 2)
        rows.append(row)
    return rows


def main() -> None:
    """Measure each size of a library."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 members, few rounds")
    options = parser.parse_args()
    rows = [row for size in ((40,) if options.quick else (40, 200)) for row in measure(size, 3 if options.quick else 9)]
    name = "tasks-selection-speed" + "-quick" * options.quick
    record(name, {"steps": STEPS, "threads": 1, **versions()}, rows, "all from whole predictions, reading included")


if __name__ == "__main__":
    main()
