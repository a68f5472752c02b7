"""Searches with no augmentation, with the ranges of the built-in spaces, and with policies, in the same time.

    python benchmarks/tasks/augmentation.py [SET ...] [--weights FOLDER] [--policy FILE.json] [--seeds 0 1 2]
        [--minutes 10] [--policy-minutes 3] [--methods ...] [--series FOLDER] [--search-only]
    python benchmarks/tasks/augmentation.py --speed DATASET

Networks are trained from nothing, in the default space of a CPU, and with `--weights FOLDER`
(`tests/pretrained_weights.py` writes one) also fine-tuned. The methods differ in augmentation alone:

    none            no augmentation
    ranges          the ranges of the built-in space
    TrivialAugment  flips are searched as in the space; each image has one operation of random magnitude
    searched        the ranges of the space, and 0 to 2 operations of random or of one magnitude
    learnt          the policy of `--policy FILE.json`, as `tune --augmentation` takes it; without the option, one that
                    `ripieno augment` learns for each set and seed in `--policy-minutes`, which the search has less

A search has MINUTES of processor time of two cores, as in `fine_tuning.py`: where other work took some, it is resumed
for the rest, and finished searches are read. Free members are left out. Costs are then measured alone. Budgets are
multiples of the median member's cost. Means over seeds have 95 % intervals by Student's t, and so have differences to
none by seed. Writes benchmarks/results/tasks-augmentation.{json,txt}.

`--series FOLDER`, a folder of folders SET with SET_TRAIN and SET_TEST, has sets of series instead, and the networks of
their space that kernels are trained of: the others take no augmentation. It writes tasks-augmentation-series.

`--speed` measures the samples a second that the trainer trains with each augmentation, on the small network of `ripieno
augment` and a prepared data set (a folder), one thread, in turn. It writes tasks-augmentation-speed-KIND.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from ensembles import at_median_budgets
from libraries import one_thread
from record import record
from searches import CORES, processor_seconds, timed_search
from seeds import MEDIAN, by_seed, interval, mean_row, paired, record_seeds
from sets import FEW, ROOT, RUNS, prepared

from ripieno.data.augmentation_policy import OPERATIONS, LearntPolicy, PolicyStep, RandomPolicy, hyperparameters_of
from ripieno.data.dataset import open_dataset
from ripieno.library import Library
from ripieno.pipeline.policy_search import proxy
from ripieno.search.augmentation_space import CHANGES, leave_out
from ripieno.search.built_in_spaces import SPACES
from ripieno.search.space import Categorical, Integer, Range, Space, space_to_plain
from ripieno.train.speed import measure_throughput
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Configuration, DataKind, Value, loss_key

METHODS = ("none", "ranges", "TrivialAugment", "searched", "learnt")
DEFAULT_SETS = ("few20", "few100")
EPOCHS = {"from nothing": 27, "fine-tuned": 9}
"""Most epochs of a trial, by the start of its training."""
SEARCHED: Mapping[str, Range] = {
    "operations": Integer(0, 2),
    "magnitude": Categorical(("random", 0.15, 0.3)),
}

TRAINED = ("lite", "fcn", "resnet-1d")
"""Networks of series whose kernels are trained."""
RANGES: dict[DataKind, Configuration] = {
    "image": {"max_zoom": 0.2, "max_translation": 0.15, "max_shear": 0.1, "max_rotation": 15, "flip": True},
    "series": {"jitter": 0.2, "scaling": 0.2, "window_warp": 0.3, "crop": 0.2},
    "table": {},
}
"""Ends of the ranges of the built-in spaces, for the speed."""


def method_space(space: Space, method: str) -> Space:
    """Return `space` with the augmentation of a method, by a name of its own: none is then fitted to the time."""
    space = replace(space, name=f"{space.name}-{method}")
    fixed: dict[str, Value] = {"operations": 1, "magnitude": "random"}
    match method:
        case "none":
            return leave_out(space, CHANGES)
        case "TrivialAugment":
            left = leave_out(space, [name for name in CHANGES if name != "flip"])
            return replace(left, fixed={**left.fixed, **fixed})
        case "searched":
            return replace(space, ranges={**space.ranges, **SEARCHED})
    return space


def learn(name: str, seed: int, source: Path, options: argparse.Namespace) -> tuple[Path, float]:
    """Return the file of the policy for a set and a seed, and the minutes of all cores that it took to learn."""
    if options.policy:
        return options.policy, 0.0
    run = RUNS / "augmentation" / f"{name}-{seed}-policy"
    report = run / "report.json"
    if not report.exists():
        before = processor_seconds()
        command = [sys.executable, "-m", "ripieno", "augment", str(source), "--run", str(run), "--seed", str(seed)]
        command += ["--minutes", str(options.policy_minutes), "--slots", str(CORES), "--json"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        report.write_text(json.dumps({**found, "minutes": (processor_seconds() - before) / 60 / CORES}) + "\n")
    found = json.loads(report.read_text())
    low, high = found["interval"]
    print(f"{name}, seed {seed}, policy against none: {found['difference']:+.4f} ({low:+.4f} to {high:+.4f})")
    return run / "augmentation.json", found["minutes"]


def search(name: str, seed: int, start: str, method: str, options: argparse.Namespace) -> Library:
    """Return the library of a set, a seed, a start of training and a method."""
    run = RUNS / "augmentation" / f"{name}-{seed}-{start.replace(' ', '-')}-{method}"
    built_in = SPACES["timm-small" if start == "fine-tuned" else "series" if options.series else "resnet-small"]
    if options.series:
        built_in = replace(built_in, ranges={**built_in.ranges, "network": Categorical(TRAINED)})
    space = method_space(built_in, method)
    file = RUNS / "augmentation" / "spaces" / f"{space.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(space_to_plain(space), indent=2) + "\n")
    source = options.series / name if options.series else prepared(name, seed, options.data)
    arguments = [str(source), "--seed", str(seed), "--free", "off", "--space", str(file)]
    arguments += ["--epochs", str(EPOCHS[start])]
    arguments += ["--weights", str(options.weights)] if start == "fine-tuned" else []
    minutes = options.minutes
    if method == "learnt":
        policy, took = learn(name, seed, source, options)
        arguments += ["--augmentation", str(policy)]
        minutes -= took
    return timed_search(run, arguments, minutes)


def measure_speed(folder: Path, seconds: float = 2.0, rounds: int = 5) -> None:
    """Measure and record the samples a second that the trainer trains of the data set in `folder`."""
    dataset = open_dataset(folder)
    family, small = proxy(dataset)
    learnt = LearntPolicy(dataset.kind, tuple(PolicyStep(n, 0.5, 0.5) for n in OPERATIONS[dataset.kind][-3:]))
    changes: dict[str, Configuration] = {
        "none": {},
        "ranges": RANGES[dataset.kind],
        "TrivialAugment": hyperparameters_of(RandomPolicy(dataset.kind)),
        "learnt": hyperparameters_of(learnt),
    }
    config = TrainingConfig(run=RUNS / "augmentation-speed", dataset=folder, family=family)
    found: dict[str, list[float]] = {name: [] for name in changes}
    for _ in range(rounds):
        for name, change in changes.items():
            found[name].append(measure_throughput(config, {**small, **change}, seconds, batches=4).rate)
    table = [
        {"augmentation": name, "samples/s": statistics.median(rates)}
        | {"range": f"{min(rates):,.0f} to {max(rates):,.0f}"}
        | {"of none": statistics.median(a / b for a, b in zip(rates, found["none"], strict=True))}
        for name, rates in found.items()
    ]
    settings = {"data": dataset.name, "seconds": seconds, "rounds": rounds, "family": family}
    record(f"tasks-augmentation-speed-{dataset.kind}", settings, table)


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
    parser.add_argument("sets", nargs="*", metavar="SET")
    parser.add_argument("--weights", type=Path, help="folder of NAME.safetensors")
    parser.add_argument("--policy", type=Path, help="file of a learnt policy")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--policy-minutes", type=float, default=3)
    parser.add_argument("--series", type=Path, help="folder of folders SET of series")
    parser.add_argument("--speed", type=Path, metavar="DATASET", help="measure the trainer on this data set alone")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    if options.speed:
        measure_speed(options.speed.resolve())
        return
    options.sets = options.sets or (["GunPoint"] if options.series else list(DEFAULT_SETS))
    if not options.series and (unknown := sorted(set(options.sets) - set(FEW))):
        parser.error(f"unknown set {unknown[0]!r}; expected {', '.join(FEW)}")
    starts = ["from nothing", *(["fine-tuned"] if options.weights else [])]
    runs = [
        (name, seed, start, method)
        for seed in options.seeds
        for name in options.sets
        for start in starts
        for method in options.methods
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
    title = "tasks-augmentation" + "-series" * bool(options.series)
    record_seeds(title, {"minutes": options.minutes, "cores": CORES}, summary(found), found, MEDIAN)


if __name__ == "__main__":
    main()
