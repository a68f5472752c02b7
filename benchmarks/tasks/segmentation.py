"""Masks of CamVid: single members, means and selected ensembles, from nothing and pretrained, beside published figures.

    python benchmarks/tasks/segmentation.py [--weights FOLDER] [--seeds 0 1 2] [--minutes 30] [--search-only]

A search has MINUTES of two cores. Where it had less than that processor time, because of other work on the machine, it
is resumed for the rest; finished searches are read. From nothing: the default space of a CPU. With `--weights FOLDER`
also the space `segmentation-pretrained` on the encoders of FOLDER (NAME.safetensors). Costs are measured alone. Budgets
are multiples of the median member's cost, of those that the measure keeps. Mean IoU is that of the counts of all test
pixels. Means over seeds have 95 % intervals by Student's t. The published figures are of other pixels: 480 x 360 where
these are 256 x 192. Writes benchmarks/results/tasks-segmentation.{json,txt}.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
from ensembles import BUDGETS, PRUNE, measured
from libraries import one_thread, versions
from searches import CORES, spent, timed_search
from seeds import MEDIAN, by_seed, mean_row, paired, record_seeds
from sets import ROOT, camvid_run, prepared

import ripieno
from ripieno import pipeline
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.types import Ensemble

METHODS = ("from nothing", "pretrained")
TOP = 3
"""Members of the plain mean."""
SCALES = {
    "mean_iou": ("mean IoU %", 100.0),
    "mean_dice": ("mean Dice %", 100.0),
    "pixel_accuracy": ("pixel accuracy %", 100.0),
    "loss": ("cross-entropy", 1.0),
}
PUBLISHED = {"SegNet": 46.3, "ENet": 51.3, "FC-DenseNet103": 66.9}
"""Mean IoU in percent on the same split, at 480 x 360 pixels."""


def search(seed: int, method: str, options: argparse.Namespace) -> Library:
    """Return the library of a seed and a method."""
    arguments = [str(prepared("camvid", 0, options.data)), "--seed", str(seed)]
    if method == "pretrained":
        arguments += ["--space", "segmentation-pretrained", "--weights", str(options.weights)]
    return timed_search(camvid_run(seed, method), arguments, options.minutes)


def ensembles(library: Library) -> dict[str, Ensemble]:
    """Return the best single member, the mean of the best, and the selected ensemble of each budget."""
    costs = measured(library)
    alone = costs.alone("seconds")
    ranked = sorted(alone, key=lambda m: (library.member(m).loss, m))
    plain = {"best single": ranked[:1], f"mean of {TOP}": ranked[:TOP]}
    evaluate(library, ranked[:TOP])
    found = {}
    for name, members in plain.items():
        weights = (1 / len(members),) * len(members)
        cost = costs.total(members)
        ensemble = Ensemble(name.replace(" ", "-"), tuple(members), weights, "hand", cost, cost, {})
        found[name] = dataclasses.replace(ensemble, losses=pipeline.ensemble_losses(library, ensemble))
    median = float(np.median(list(alone.values())))
    selected = ripieno.select(library, [median * k for k in BUDGETS], prune=PRUNE)
    return found | {f"SMOBF {k} x": e for k, e in zip(BUDGETS, selected, strict=True)}


def rows(seed: int, method: str, library: Library) -> list[dict[str, Any]]:
    """Return a row for each ensemble of a library."""
    return [
        {"seed": seed, "method": method, "ensemble": name, "members": len(e.members), "library": len(library)}
        | {"cost s": e.cost["seconds"], "search s": spent(library.path), "loss": e.losses["test_cross_entropy"]}
        | {key: e.losses[f"test_{key}"] for key in SCALES if key != "loss"}
        for name, e in ensembles(library).items()
    ]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over seeds of each row, paired differences, and the published figures."""
    groups, lines = by_seed(found, "method", "ensemble"), []
    for (method, name), group in groups.items():
        line = {"method": method, "ensemble": name}
        line |= mean_row(group, ("library", "members", "cost s", "search s"), SCALES)
        lines.append(line | {"above single": paired(group, groups[method, "best single"], "mean_iou", 100)})
    return lines + [
        {"method": "published, 480 x 360", "ensemble": name, "mean IoU %": f"{value:.1f}"}
        for name, value in PUBLISHED.items()
    ]


def main() -> None:
    """Search all seeds and methods, seed by seed, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of NAME.safetensors; without it, from nothing alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--search-only", action="store_true")
    options = parser.parse_args()
    runs = [(seed, method) for seed in options.seeds for method in METHODS[: 1 + (options.weights is not None)]]
    libraries = {}
    for seed, method in runs:
        library = libraries[seed, method] = search(seed, method, options)
        best = max((m.losses["valid_mean_iou"] for m in library.members()), default=float("nan"))
        print(f"seed {seed}, {method}: {len(library)} members, best on validation {100 * best:.1f} %", flush=True)
    if options.search_only:
        return
    found = [row for key in runs for row in rows(*key, libraries[key])]
    weights = ", ".join(sorted(path.stem for path in options.weights.glob("*.safetensors"))) if options.weights else "-"
    settings = {"minutes": options.minutes, "cores": CORES, "weights": weights, **versions()}
    record_seeds("tasks-segmentation", settings, summary(found), found, MEDIAN)


if __name__ == "__main__":
    main()
