"""Searches with no augmentation, with the ranges of the built-in spaces, and with policies, in the same time.

    python benchmarks/tasks/augmentation.py [SET ...] [--weights FOLDER] [--policy FILE.json] [--seeds 0 1 2]
        [--minutes 10] [--methods ...] [--search-only]

Networks are trained from nothing, in the default space of a CPU, and with `--weights FOLDER`
(`tests/pretrained_weights.py` writes one) also fine-tuned. The methods differ in augmentation alone:

    none            no augmentation
    ranges          the ranges of the built-in space
    TrivialAugment  flips are searched as in the space; each image has one operation of random magnitude
    searched        the ranges of the space, and 0 to 2 operations of random or of one magnitude
    learnt          the policy of `--policy FILE.json`, as `tune --augmentation` takes it; without the option left out

A search has MINUTES of processor time of two cores, as in `fine_tuning.py`: where other work took some, it is resumed
for the rest, and finished searches are read. Free members are left out. Costs are then measured alone. Budgets are
multiples of the median member's cost. Means over seeds have 95 % intervals by Student's t, and so have differences to
none by seed. Writes benchmarks/results/tasks-augmentation.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from ensembles import at_median_budgets
from libraries import one_thread
from searches import CORES, timed_search
from seeds import MEDIAN, by_seed, interval, mean_row, paired, record_seeds
from sets import FEW, ROOT, RUNS, prepared

from ripieno.library import Library
from ripieno.search.augmentation_space import CHANGES, leave_out
from ripieno.search.built_in_spaces import SPACES
from ripieno.search.space import Categorical, Integer, Range, Space, space_to_plain
from ripieno.types import Value, loss_key

METHODS = ("none", "ranges", "TrivialAugment", "searched", "learnt")
DEFAULT_SETS = ("few20", "few100")
EPOCHS = {"from nothing": 27, "fine-tuned": 9}
"""Most epochs of a trial, by the start of its training."""
SEARCHED: Mapping[str, Range] = {
    "operations": Integer(0, 2),
    "magnitude": Categorical(("random", 0.15, 0.3)),
}


def method_space(space: Space, method: str) -> Space:
    """Return `space` with the augmentation of a method, by a name of its own: none is then fitted to the time."""
    space = replace(space, name=f"{space.name}-{method}")
    fixed: dict[str, Value] = {"operations": 1, "magnitude": "random"}
    match method:
        case "none" | "learnt":
            return leave_out(space, CHANGES)
        case "TrivialAugment":
            left = leave_out(space, [name for name in CHANGES if name != "flip"])
            return replace(left, fixed={**left.fixed, **fixed})
        case "searched":
            return replace(space, ranges={**space.ranges, **SEARCHED})
    return space


def search(name: str, seed: int, start: str, method: str, options: argparse.Namespace) -> Library:
    """Return the library of a set, a seed, a start of training and a method."""
    run = RUNS / "augmentation" / f"{name}-{seed}-{start.replace(' ', '-')}-{method}"
    built_in = SPACES["timm-small" if start == "fine-tuned" else "resnet-small"]
    space = method_space(built_in, method)
    file = RUNS / "augmentation" / "spaces" / f"{space.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(space_to_plain(space), indent=2) + "\n")
    arguments = [str(prepared(name, seed, options.data)), "--seed", str(seed), "--free", "off", "--space", str(file)]
    arguments += ["--epochs", str(EPOCHS[start])]
    arguments += ["--weights", str(options.weights)] if start == "fine-tuned" else []
    arguments += ["--augmentation", str(options.policy)] if method == "learnt" else []
    return timed_search(run, arguments, options.minutes)


def rows(name: str, seed: int, start: str, method: str, library: Library) -> list[dict[str, Any]]:
    """Return a row for each ensemble of a library, with errors on the test split."""
    loss = loss_key(library.members()[0].task, "test")
    return [
        {"set": name, "seed": seed, "start": start, "method": method, "ensemble": ensemble, "members": len(e.members)}
        | {"library": len(library), "cost s": e.cost["seconds"]}
        | {"loss": e.losses[loss], "error": 1 - e.losses["test_accuracy"]}
        for ensemble, e in at_median_budgets(library).items()
    ]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row, with the half-width of its 95 % interval, and paired differences."""
    groups = by_seed(found, "set", "start", "method", "ensemble")
    lines = []
    for (name, start, method, ensemble), group in groups.items():
        line = {"set": name, "start": start, "augmentation": method, "ensemble": ensemble}
        line |= mean_row(group, ("library", "members", "cost s"), {"loss": ("cross-entropy", 1.0)})
        line["error %"] = interval([row["error"] for row in group.values()], 100)
        line["less than none"] = paired(groups.get((name, start, "none", ensemble), {}), group, "error", 100)
        lines.append(line)
    return lines


def main() -> None:
    """Search all sets, seeds and methods, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(DEFAULT_SETS), metavar="SET")
    parser.add_argument("--weights", type=Path, help="folder of NAME.safetensors")
    parser.add_argument("--policy", type=Path, help="file of a learnt policy")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    if unknown := sorted(set(options.sets) - set(FEW)):
        parser.error(f"unknown set {unknown[0]!r}; expected {', '.join(FEW)}")
    methods = [m for m in options.methods if m != "learnt" or options.policy]
    starts = ["from nothing", *(["fine-tuned"] if options.weights else [])]
    runs = [
        (name, seed, start, method)
        for seed in options.seeds
        for name in options.sets
        for start in starts
        for method in methods
    ]
    libraries = {}
    for run in runs:
        library = libraries[run] = search(*run, options)
        best = max(m.losses["valid_accuracy"] for m in library.members())
        name, seed, start, method = run
        print(
            f"{name}, seed {seed}, {start}, {method}: {len(library)} members, best on validation {100 * best:.1f} %",
            flush=True,
        )
    if options.search_only:
        return
    found = [row for run in runs for row in rows(*run, libraries[run])]
    record_seeds("tasks-augmentation", {"minutes": options.minutes, "cores": CORES}, summary(found), found, MEDIAN)


if __name__ == "__main__":
    main()
