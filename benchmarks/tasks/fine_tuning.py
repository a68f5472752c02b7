"""Fine-tuning of pretrained networks against training from nothing, in the same time: single members and ensembles.

    python benchmarks/tasks/fine_tuning.py [SET ...] --weights FOLDER [--seeds 0 1 2] [--minutes 10] [--search-only]

A search has MINUTES. Where it had less than the processor time of two cores in them, because of other work on the
machine, it is resumed for the rest. Fine-tuning has the default space of `--weights FOLDER`
(`tests/pretrained_weights.py` writes one); training from nothing has the default space of a CPU, and images of at
most 32 pixels, of which it sees more in the time. Free members are left out of both. Finished searches are read.
Costs are measured alone. Budgets are multiples of the median member's cost, of those that the measure keeps.
Means over seeds have 95 % intervals by Student's t. Writes benchmarks/results/tasks-fine-tuning.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from ensembles import at_median_budgets
from libraries import one_thread
from searches import CORES, timed_search
from seeds import MEDIAN, SCALES, by_seed, mean_row, paired, record_seeds
from sets import FEW, ROOT, RUNS, prepared

from ripieno.library import Library
from ripieno.types import loss_key

METHODS = ("from nothing", "fine-tuned")
SIDE = 32
"""Longest side in pixels of the images from nothing."""


def search(name: str, seed: int, method: str, options: argparse.Namespace) -> Library:
    """Return the library of a set, a seed and a method."""
    run = RUNS / "fine-tuning" / f"{name}-{seed}-{method.replace(' ', '-')}"
    arguments = [str(prepared(name, seed, options.data)), "--seed", str(seed), "--free", "off"]
    if method == "fine-tuned":
        arguments += ["--weights", str(options.weights)]
    elif name.startswith("shapes"):
        arguments += ["--size", str(SIDE)]
    return timed_search(run, arguments, options.minutes)


def rows(name: str, seed: int, method: str, library: Library) -> list[dict[str, Any]]:
    """Return a row for each ensemble of a library."""
    loss = loss_key(library.members()[0].task, "test")
    return [
        {"set": name, "seed": seed, "method": method, "ensemble": ensemble, "members": len(e.members)}
        | {"library": len(library), "cost s": e.cost["seconds"]}
        | {"loss": e.losses[loss], "accuracy": e.losses["test_accuracy"]}
        for ensemble, e in at_median_budgets(library).items()
    ]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row, with the half-width of its 95 % interval, and paired differences."""
    groups = by_seed(found, "set", "method", "ensemble")
    lines = []
    for (name, method, ensemble), group in groups.items():
        line = {"set": name, "method": method, "ensemble": ensemble}
        line |= mean_row(group, ("library", "members", "cost s"), SCALES)
        nothing, single = groups.get((name, METHODS[0], ensemble), {}), groups.get((name, method, "best single"), {})
        for title, base in (("above from nothing", nothing), ("above single", single)):
            line[title] = paired(group, base, "accuracy", 100)
        lines.append(line)
    return lines


def main() -> None:
    """Search all sets, seeds and methods, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(FEW), metavar="SET")
    parser.add_argument("--weights", type=Path, required=True, help="folder of NAME.safetensors")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    if unknown := sorted(set(options.sets) - set(FEW)):
        parser.error(f"unknown set {unknown[0]!r}; expected {', '.join(FEW)}")
    runs = [(name, seed, method) for seed in options.seeds for name in options.sets for method in METHODS]
    libraries = {}
    for name, seed, method in runs:
        library = libraries[name, seed, method] = search(name, seed, method, options)
        best = max(m.losses["valid_accuracy"] for m in library.members())
        print(
            f"{name}, seed {seed}, {method}: {len(library)} members, best on validation {100 * best:.1f} %", flush=True
        )
    if options.search_only:
        return
    found = [row for key in runs for row in rows(*key, libraries[key])]
    weights = ", ".join(sorted(path.stem for path in options.weights.glob("*.safetensors")))
    settings = {"minutes": options.minutes, "cores": CORES, "weights": weights}
    record_seeds("tasks-fine-tuning", settings, summary(found), found, MEDIAN)


if __name__ == "__main__":
    main()
