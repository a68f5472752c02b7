"""Real searches of equal time: cells that grow by `popnas`, against the spaces of residual networks and of series.

    python benchmarks/nas/searched.py [SET ...] [--series FOLDER] [--seeds 0 1 2] [--minutes M] [--data FOLDER]
        [--search-only]

SET is fashion14, as in ../tasks/sets.py, or a set of series: FOLDER holds a folder SET for each, with SET_TRAIN and
SET_TEST. Each method searches M minutes of two cores, by processor time: a search that other work slowed is resumed
for the rest. `popnas` searches the space of cells; `default` is the default algorithm on the space `resnet` of images
or `series`. Free members are off. A call that is started again reads finished searches; remove the folder of one that
was interrupted.

Both libraries of a set and seed are selected from with the same budgets: 1, 2 and 4 times the cost of the median
member of `default`. `rank of loss` and `rank of seconds` are the rank correlations of what popnas predicted and of the
results, means over its steps, weighted by trials. Means over seeds have 95 % intervals by Student's t. Writes
benchmarks/results/nas-searched.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import numpy as np
from ensembles import BUDGETS, ensembles, measured
from libraries import one_thread
from searches import CORES, timed_search
from seeds import SCALES, by_seed, mean_row, paired, record_seeds
from sets import ROOT, RUNS, prepared

from ripieno.library import Library
from ripieno.reports.predictions import read_predictions
from ripieno.search.predictions import StepCorrelation
from ripieno.types import loss_key

IMAGES = ("fashion14",)
SERIES = ("GunPoint", "ItalyPowerDemand", "OSULeaf")
METHODS = ("default", "popnas")
SPACES = {
    ("default", True): "resnet",
    ("default", False): "series",
    ("popnas", True): "cell",
    ("popnas", False): "cell-series",
}
"""Name of the space of a method, by whether it is for images."""


def arguments_of(method: str, images: bool, seed: int) -> list[str]:
    """Return the arguments of a search."""
    arguments = ["--space", SPACES[method, images], "--seed", str(seed), "--free", "off"]
    arguments += [] if images else ["--kind", "series", "--task", "classification"]
    return arguments + (["--algorithm", "popnas"] if method == "popnas" else [])


def search(name: str, seed: int, method: str, options: argparse.Namespace) -> Library:
    """Return the library of a set, a seed and a method."""
    images = name in IMAGES
    data = prepared(name, seed, options.data) if images else options.series / name
    run = RUNS / "nas" / f"{name}-{seed}-{method}"
    return timed_search(run, [str(data), *arguments_of(method, images, seed)], options.minutes)


def mean_correlations(steps: Sequence[StepCorrelation]) -> dict[str, float]:
    """Return the mean rank correlations over steps, weighted by trials; those that no step has are left out."""
    found = {}
    for name in ("loss", "seconds"):
        known = [(getattr(step, name), step.trials) for step in steps if getattr(step, name) is not None]
        if known:
            values, weights = zip(*known, strict=True)
            found[f"rank of {name}"] = float(np.average(values, weights=weights))
    return found


def rows(name: str, seed: int, libraries: dict[str, Library]) -> list[dict[str, Any]]:
    """Return a row for each method and ensemble of a set and a seed, all within the same budgets."""
    median = float(np.median(list(measured(libraries[METHODS[0]]).alone("seconds").values())))
    found = []
    for method, library in libraries.items():
        loss = loss_key(library.members()[0].task, "test")
        ranks = mean_correlations(read_predictions(library.journal_path).correlations())
        for ensemble, e in ensembles(library, [median * k for k in BUDGETS]).items():
            row = {"set": name, "seed": seed, "method": method, "ensemble": ensemble, "members": len(e.members)}
            row |= {"library": len(library), "cost s": e.cost["seconds"]}
            found.append(row | {"loss": e.losses[loss], "accuracy": e.losses["test_accuracy"]} | ranks)
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row, and what popnas has more than the default of the same ensemble."""
    groups = by_seed(found, "set", "method", "ensemble")
    lines = []
    for (name, method, ensemble), group in groups.items():
        line = {"set": name, "method": method, "ensemble": ensemble}
        line |= mean_row(group, ("library", "members", "cost s", "rank of loss", "rank of seconds"), SCALES)
        line["above default"] = paired(group, groups.get((name, METHODS[0], ensemble), {}), "accuracy", 100)
        lines.append(line)
    return lines


def main() -> None:
    """Search all sets, seeds and methods, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--series", type=Path, help="folder of folders SET of series")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    sets = options.sets or [*IMAGES, *(SERIES if options.series else ())]
    for name in set(sets) - set(IMAGES):
        if options.series is None or not (options.series / name).is_dir():
            parser.error(f"set {name} is not {', '.join(IMAGES)}, and --series has no folder of that name")
    libraries: dict[tuple[str, int], dict[str, Library]] = {}
    for seed in options.seeds:
        for name in sets:
            for method in METHODS:
                library = search(name, seed, method, options)
                libraries.setdefault((name, seed), {})[method] = library
                best = max(m.losses["valid_accuracy"] for m in library.members())
                words = f"{len(library)} members, best on validation {100 * best:.1f} %"
                print(f"{name}, seed {seed}, {method}: {words}", flush=True)
    if options.search_only:
        return
    found = [row for (name, seed), both in libraries.items() for row in rows(name, seed, both)]
    settings = {"minutes": options.minutes, "cores": CORES}
    note = "budgets: in costs of the median member of the default search, the same for both"
    record_seeds("nas-searched", settings, summary(found), found, note)


if __name__ == "__main__":
    main()
