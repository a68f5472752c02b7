"""Single members, means and selected ensembles of every task, with and without free members (trees).

    python benchmarks/tasks/ensembles.py [SET ...] [--seeds 0 1 2] [--data ../shared/data] [--search-only]

A search of TRIALS trials by the default algorithm, bounded by trials, so that it may run beside other work. A search
that was interrupted resumes, and finished ones are read. Costs are then measured, which needs the machine alone. The
library without free members is the same one less its trees. Budgets are multiples of the median network's cost, the
same for both. Means over seeds have 95 % intervals by Student's t.
Writes benchmarks/results/tasks-ensembles.{json,txt}.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
from libraries import one_thread, versions
from seeds import by_seed, mean_row, paired_row, record_seeds
from sets import ROOT, RUNS, SETS, prepared

import ripieno
from ripieno import pipeline
from ripieno.cli import demo
from ripieno.library import Library
from ripieno.library.cost_table import CostTable
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, loss_key

TRIALS, EPOCHS, SPACE = 24, 9, "resnet-tiny"
BUDGETS = (1, 2, 4)
"""Budgets, in costs of the median network."""
PRUNE = 0.2
"""Share of the library that is measured and selected from, at least 20 members: the default of `select`."""
TREES = "trees"
"""First letters of the ids of free members."""
SCALES = {key: (metric.title, 100.0 if metric.in_percent else 1.0) for key, metric in METRICS.items()}
"""Titles and factors of the scores of all tasks."""


def search(name: str, seed: int, data: Path) -> Library:
    """Return the finished library of a set and a seed."""
    run = RUNS / "search" / f"{name}-{seed}"
    source = prepared(name, seed, data)
    bounds = {"trials": TRIALS, "epochs": EPOCHS, "space": SPACE, "seed": seed}
    return ripieno.tune(source, run, slots=2, **bounds)


def without_trees(library: Library) -> Library:
    """Return a copy of the library less its free members."""
    copy = RUNS / "without" / library.path.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(library.path, copy, copy_function=os.link)
    for member in (copy / "library").glob(f"{TREES}-*"):
        shutil.rmtree(member)
    return Library(copy)


def measured(library: Library) -> CostTable:
    """Return the costs of the best members, which are measured where they are not known."""
    return pipeline.measured_costs(library, ripieno.measure(library, prune=PRUNE))


def ensembles(library: Library, budgets: list[float]) -> dict[str, Ensemble]:
    """Return the best single member, the mean of the five best, and the selected ensemble of each budget."""
    costs = measured(library)
    selected = ripieno.select(library, budgets, prune=PRUNE)
    single, top = (fitted(library, e) for e in demo.baselines(library, costs))
    return {"best single": single, "mean of five": top} | {
        f"SMOBF {k} x": e for k, e in zip(BUDGETS, selected, strict=True)
    }


def at_median_budgets(library: Library) -> dict[str, Ensemble]:
    """Return the ensembles of a library, with budgets in costs of its median member."""
    costs = measured(library).alone("seconds")
    return ensembles(library, [float(np.median(list(costs.values())) * k) for k in BUDGETS])


def fitted(library: Library, ensemble: Ensemble) -> Ensemble:
    """Return an ensemble with fitted thresholds of its labels, as selected ones have, and the scores at them."""
    kind = kind_of(library.members()[0].task)
    if not kind.has_thresholds:
        return ensemble
    predictions = [library.predictions(m, "valid") for m in ensemble.members]
    thresholds = kind.fit_thresholds(combine_calibrated(predictions, ensemble, kind), library.targets())
    ensemble = dataclasses.replace(ensemble, thresholds=thresholds)
    return dataclasses.replace(ensemble, losses=pipeline.ensemble_losses(library, ensemble))


def rows(name: str, seed: int, data: Path) -> list[dict[str, Any]]:
    """Return a row for each library and ensemble."""
    library = search(name, seed, data)
    costs = measured(library).alone("seconds")
    budgets = [float(np.median([c for m, c in costs.items() if not m.startswith(TREES)]) * k) for k in BUDGETS]
    found, loss = [], loss_key(library.members()[0].task, "test")
    for label, held in (("with", library), ("without", without_trees(library))):
        for ensemble, e in ensembles(held, budgets).items():
            trees = sum(m.startswith(TREES) for m in e.members)
            scores = {k.removeprefix("test_"): v for k, v in e.losses.items() if k.startswith("test_")}
            found.append(
                {"set": name, "seed": seed, "trees": label, "ensemble": ensemble, "members": len(e.members)}
                | {"free members": trees, "cost s": e.cost["seconds"], "loss": e.losses[loss]}
                | scores
            )
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row with its interval, and what free members change, paired by seed."""
    groups = by_seed(found, "set", "ensemble", "trees")
    lines, gains = [], []
    for (name, ensemble, trees), group in groups.items():
        line = {"set": name, "ensemble": ensemble, "trees": trees}
        lines.append(line | mean_row(group, ("members", "free members", "cost s"), SCALES))
        if trees == "with":
            line = {"set": name, "ensemble": ensemble, "trees": "with - without", "seeds": len(group)}
            changes = paired_row(group, groups[name, ensemble, "without"], SCALES)
            gains.append(line | changes)
    return lines + gains


def main() -> None:
    """Search all sets and seeds, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    if unknown := sorted(set(options.sets) - set(SETS)):
        parser.error(f"unknown set {unknown[0]!r}; expected {', '.join(SETS)}")
    runs = [(name, seed) for seed in options.seeds for name in options.sets]
    for name, seed in runs:
        library = search(name, seed, options.data)
        print(f"{name}, seed {seed}: {len(library)} members", flush=True)
    if options.search_only:
        return
    found = [row for name, seed in runs for row in rows(name, seed, options.data)]
    settings = {"trials": TRIALS, "epochs": EPOCHS, "space": SPACE, **versions()}
    record_seeds("tasks-ensembles", settings, summary(found), found, "budgets: in costs of the median network")


if __name__ == "__main__":
    main()
