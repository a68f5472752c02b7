"""Searches of series by the default space: single members and ensembles, beside published figures.

    python benchmarks/tasks/series.py [SET ...] --data FOLDER [--seeds 0 1 2 3 4] [--trials 24]
        [--published FILE] [--aeon PYTHON] [--name series] [--search-only]

FOLDER holds a folder for each set, with SET_TRAIN and SET_TEST. The training part is validated by folds where it is
small, as by default; the test part is the default one. A search has TRIALS trials of at most EPOCHS epochs of the
networks that ten minutes of two cores would keep, so it may run beside other work; its processor time is in the table.
Finished searches are read; remove the folder of one that was interrupted. Costs are measured alone. Budgets are in
costs of the median member. Means over seeds have 95 % intervals by Student's t. `--published FILE` is a table with a
row for each set and a column METHOD_default. `--aeon` adds methods that are run here, in the environment of PYTHON.
Sets of REGRESSION have numbers as targets. Writes benchmarks/results/tasks-NAME.{json,txt}.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from ensembles import at_median_budgets
from libraries import one_thread, versions
from searches import counted_search, spent
from seeds import MEDIAN, SCALES, by_seed, mean_row, record_seeds
from sets import RUNS

from ripieno.library import Library
from ripieno.search.built_in_spaces import find_space
from ripieno.search.space import Categorical, space_to_plain
from ripieno.tasks.registry import TASKS
from ripieno.tasks.task_kind import TRAINING_OPTIONS
from ripieno.types import loss_key

SETS = ("OSULeaf", "ItalyPowerDemand", "ArrowHead", "GunPoint", "ACSF1", "BasicMotions", "JapaneseVowels")
REGRESSION = ("Covid3Month", "CardanoSentiment")
SCORES = {**SCALES, "rmse": ("RMSE", 1.0)}
NETWORKS = ("lite", "minirocket", "hydra")
"""What ten minutes of two cores keep of the default space for the longest set."""
METHODS = ("InceptionTime", "LITETime", "MiniROCKET", "Hydra", "MR-Hydra", "HC2")
"""Published methods in the table."""


def search(name: str, seed: int, options: argparse.Namespace) -> Library:
    """Return the finished library of a set and a seed."""
    task = "regression" if name in REGRESSION else "classification"
    space = RUNS / "series" / f"space-{task}.json"
    space.parent.mkdir(parents=True, exist_ok=True)
    write_space(space, task)
    arguments = [str(options.data / name), "--kind", "series", "--space", str(space), "--seed", str(seed)]
    arguments += ["--epochs", str(options.epochs), "--task", task]
    return counted_search(RUNS / "series" / f"{name}-{seed}", arguments, options.trials)


def write_space(path: Path, task: str) -> None:
    """Write the default space of series for `task` less its slow networks."""
    space = find_space("series")
    unfit = set(TRAINING_OPTIONS) - set(TASKS[task].training_options)
    ranges = {name: found for name, found in space.ranges.items() if name not in unfit}
    space = dataclasses.replace(space, ranges={**ranges, "network": Categorical(NETWORKS)})
    path.write_text(json.dumps(space_to_plain(space), indent=2) + "\n")


def aeon_scores(name: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the scores of the methods that are run here, by name."""
    path = RUNS / "series" / "aeon" / f"{name}-{seed}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "regression" if name in REGRESSION else "classification"
        script = Path(__file__).with_name("aeon_predictions.py")
        subprocess.run([options.aeon, script, options.data, name, kind, str(seed), path], check=True)
    return dict(json.loads(path.read_text()))


def rows(name: str, seed: int, library: Library, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each ensemble of a library, and for each method that is run here."""
    loss = loss_key(library.members()[0].task, "test")
    used = spent(library.path)
    found = []
    for ensemble, e in at_median_budgets(library).items():
        row = {"set": name, "seed": seed, "ensemble": ensemble, "members": len(e.members), "library": len(library)}
        row |= {"cost s": e.cost["seconds"], "search s": used}
        if name in REGRESSION:
            found.append(row | {"rmse": e.losses["test_rmse"]})
        else:
            found.append(row | {"loss": e.losses[loss], "accuracy": e.losses["test_accuracy"]})
    if options.aeon:
        for method, scores in aeon_scores(name, seed, options).items():
            found.append({"set": name, "seed": seed, "ensemble": f"{method}, run here"} | scores)
    return found


def summary(found: list[dict[str, Any]], published: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row, and a row for each published figure."""
    lines = [
        {"set": name, "ensemble": ensemble} | mean_row(group, ("library", "members", "cost s", "search s"), SCORES)
        for (name, ensemble), group in by_seed(found, "set", "ensemble").items()
    ]
    for name in dict.fromkeys(r["set"] for r in found):
        known = {method: published.get(name, {}).get(f"{method}_default") for method in METHODS}
        lines += [
            {"set": name, "ensemble": f"{method}, published", "accuracy %": f"{100 * float(value):.2f}"}
            for method, value in known.items()
            if value
        ]
    return lines


def read_published(path: Path | None) -> dict[str, dict[str, str]]:
    """Return the published figures by set and column."""
    if path is None:
        return {}
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {row["dataset"]: row for row in csv.DictReader(lines)}


def main() -> None:
    """Search all sets and seeds, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=[*SETS, *REGRESSION], metavar="SET")
    parser.add_argument("--data", type=Path, required=True, help="folder of folders SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--aeon", help="a Python with aeon")
    parser.add_argument("--name", default="series", help="last part of the name of the results")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    runs = [(name, seed) for seed in options.seeds for name in options.sets]
    libraries = {}
    for name, seed in runs:
        library = libraries[name, seed] = search(name, seed, options)
        used = spent(library.path)
        print(f"{name}, seed {seed}: {len(library)} members, {used:.0f} s of a core", flush=True)
    if options.search_only:
        return
    found = [row for key in runs for row in rows(*key, libraries[key], options)]
    settings = {"trials": options.trials, "epochs": options.epochs, "networks": ", ".join(NETWORKS), **versions()}
    table = summary(found, read_published(options.published))
    record_seeds(f"tasks-{options.name}", settings, table, found, MEDIAN)


if __name__ == "__main__":
    main()
