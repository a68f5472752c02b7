"""The demo's search, costs and selection with ten seeds: a seed draws the split and the configurations.

    python benchmarks/selection/demo_seeds.py [--seeds 0 1 2 3 4 5 6 7 8 9]

The run folders are runs/demo-seeds/SEED; a search that was interrupted resumes there, and finished ones are read.
`beats` marks ensembles with more right answers than the best single network and than the mean of the top five, and with
a lower cross-entropy than both. A tie does not count. Writes benchmarks/results/selection-demo-seeds.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from libraries import ROOT, one_thread, versions

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno import pipeline
from ripieno.cli import demo
from ripieno.types import Ensemble

RUNS = ROOT / "runs" / "demo-seeds"
BUDGETS = tuple(f"{k} x median" for k in demo.BUDGETS)


def table(seed: int) -> list[dict[str, Any]]:
    """Return a row for each baseline and each budget."""
    library = demo.search(RUNS / str(seed), seed=seed)
    costs = pipeline.measured_costs(library, pipeline.measure(library, prune=demo.PRUNE))
    ensembles = pipeline.select(library, demo.budgets_of(costs.alone("seconds").values()), prune=demo.PRUNE)
    baselines = demo.baselines(library, costs)
    samples = len(library.targets("test"))
    names = (*(e.name for e in baselines), *BUDGETS)
    return [
        {
            "seed": seed,
            "ensemble": name,
            "members": len(ensemble.members),
            "cost s": round(ensemble.cost["seconds"], 3),
            "valid loss": round(ensemble.losses["valid_cross_entropy"], 4),
            "test loss": round(ensemble.losses["test_cross_entropy"], 4),
            "test accuracy %": round(100 * ensemble.losses["test_accuracy"], 2),
            "wrong": round(samples * (1 - ensemble.losses["test_accuracy"])),
            **{f"beats {b.name}": _verdict(ensemble, b) for b in baselines},
        }
        for name, ensemble in zip(names, (*baselines, *ensembles), strict=True)
    ]


def _verdict(ensemble: Ensemble, other: Ensemble) -> str:
    """Return what of `other` is beaten: both scores, accuracy, loss, or nothing."""
    accuracy, loss = demo.beaten(ensemble, other)
    return "both" if accuracy and loss else "accuracy" if accuracy else "loss" if loss else "-"


def main() -> None:
    """Write a table of all seeds, and count the seeds in which each ensemble beats both baselines in both scores."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        rows += table(seed)
        wins = {b: [r for r in rows if r["ensemble"] == b and _wins(r)] for b in BUDGETS}
        count = len({row["seed"] for row in rows})
        note = "; ".join(f"{b} beats both in both scores in {len(w)} of {count} seeds" for b, w in wins.items())
        split = ", ".join(map(str, demo.SPLIT))
        settings = {"trials": demo.TRIALS, "epochs": demo.EPOCHS, "split": split, **versions()}
        record("selection-demo-seeds", settings, rows, note)


def _wins(row: dict[str, Any]) -> bool:
    return all(value == "both" for key, value in row.items() if key.startswith("beats "))


if __name__ == "__main__":
    main()
