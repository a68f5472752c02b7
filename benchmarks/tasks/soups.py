"""Soups beside ensembles: the test error of both at the cost of one, two and four networks.

    python benchmarks/tasks/soups.py --weights FOLDER [--seeds 0 1 2] [--search-only]

TRIALS random trials fine-tune one backbone for EPOCHS epochs on CIFAR-100 with 20 images a class; then their greedy
soups join the library. Trials are bounded, so that a search may run beside other work and resume. All networks cost
the same, so costs are counts: an ensemble of two may be a soup and a network. Selections are made from the members of
trials alone, and with the soups. Means over seeds have 95 % intervals by Student's t; `change` is paired by seed.
Writes benchmarks/results/tasks-soups.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from libraries import one_thread
from seeds import SCALES, by_seed, mean_row, paired_row, record_seeds
from sets import ROOT, RUNS, prepared

import ripieno
from ripieno.library import Library
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.pipeline.soups import soup

SET, BACKBONE, RESOLUTION, TRIALS, EPOCHS = "few20", "mobilenetv2_100", 96, 8, 3
COUNTS = (1, 2, 4)
SPACE = {
    "family": "timm",
    "ranges": {
        "learning_rate": {"kind": "continuous", "low": 1e-4, "high": 1e-3, "log": True},
        "weight_decay": {"kind": "continuous", "low": 1e-3, "high": 0.1, "log": True},
        "label_smoothing": {"kind": "continuous", "low": 0.0, "high": 0.2},
        "min_crop": {"kind": "continuous", "low": 0.5, "high": 1.0},
        "mixup": {"kind": "categorical", "choices": [0.0, 0.2]},
    },
    "fixed": {
        "backbone": BACKBONE,
        "resolution": RESOLUTION,
        "frozen": "most",
        "layer_decay": 0.9,
        "batch_size": 32,
        "flip": True,
        "colour": 0.1,
        "warm_up": 0.1,
    },
}
"""What differs between runs of Wortsman et al. 2022, in ranges that start from good values."""


def search(seed: int, options: argparse.Namespace) -> Library:
    """Return the finished library of a seed with its soups."""
    folder = RUNS / "soups"
    folder.mkdir(parents=True, exist_ok=True)
    space = folder / "space.json"
    space.write_text(json.dumps(SPACE))
    bounds: dict[str, Any] = {"trials": TRIALS, "epochs": EPOCHS, "algorithm": "random", "seed": seed, "free": "off"}
    weights = options.weights / f"{BACKBONE}.safetensors"
    data = prepared(SET, seed, options.data)
    library = ripieno.tune(data, folder / str(seed), space=str(space), weights=weights, slots=2, **bounds)
    soup(library)
    return library


def kept(library: Library, label: str) -> Library:
    """Return a copy of the library with the fine-tuned members of trials only, or with the soups too."""
    copy = RUNS / "soups" / f"{library.path.name}-{label.replace(' ', '-')}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(library.path, copy, copy_function=os.link)
    for member in library.members():
        is_soup = member.trial == NO_TRIAL
        if (is_soup and label == "networks") or (not is_soup and member.epoch == 1):
            shutil.rmtree(copy / "library" / member.id)
    return Library(copy)


def rows(seed: int, library: Library) -> list[dict[str, Any]]:
    """Return a row for each selection."""
    found = []
    for label in ("networks", "with soups"):
        held = kept(library, label)
        each = float(held.members()[0].parameters)
        selected = ripieno.select(held, [{"parameters": 1.01 * each * count} for count in COUNTS], prune=1.0)
        for count, e in zip(COUNTS, selected, strict=True):
            row = {"seed": seed, "from": label, "networks' cost": count, "members": len(e.members)}
            row |= {"soups": sum(m.startswith("soup") for m in e.members)}
            found.append(row | {"accuracy": e.losses["test_accuracy"], "loss": e.losses["test_cross_entropy"]})
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds of each selection, and what soups change."""
    groups = by_seed(found, "networks' cost", "from")
    lines = []
    for count, label in sorted(groups):
        group, plain = groups[count, label], groups[count, "networks"]
        line = {"networks' cost": count, "from": label} | mean_row(group, ("members", "soups"), SCALES)
        changes = paired_row(group, plain, {key: (f"{title} change", scale) for key, (title, scale) in SCALES.items()})
        lines.append(line | changes)
    return lines


def main() -> None:
    """Search all seeds, make the soups, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder of NAME.safetensors")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    libraries = {seed: search(seed, options) for seed in options.seeds}
    if options.search_only:
        return
    found = [row for seed, library in libraries.items() for row in rows(seed, library)]
    settings = {"backbone": BACKBONE, "resolution": RESOLUTION, "trials": TRIALS, "epochs": EPOCHS, "set": SET}
    record_seeds("tasks-soups", settings, summary(found), found)


if __name__ == "__main__":
    main()
