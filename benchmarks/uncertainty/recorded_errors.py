"""Label errors planted into the recorded networks' samples: how well an ensemble and the best single network find them.

    python benchmarks/uncertainty/recorded_errors.py [--draws 5] [--samples 1000]

The library is the 23 recorded networks of CIFAR-100, which were trained without these errors; `planted_errors.py`
trains on errors. In each draw, 5 % of the labels of the 10,000 samples are replaced, by any other class (random), or as
the mean of the networks confuses the classes (confusable). An ensemble of at most 4 mean costs is selected from some
samples, errors included, and the calibrated network of the least loss that costs no more. Both judge all samples.
The columns are those of `planted_errors.py`. Writes benchmarks/results/uncertainty-recorded-errors.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import numpy as np
from libraries import Predictions, cifar100, one_thread, versions
from numpy.typing import NDArray
from planted_errors import judged, summary
from searched import PLANTED, replaced
from seeds import record_seeds

from ripieno.selection import select_members
from ripieno.types import classification

BUDGET = 4
TASK = classification([str(number) for number in range(100)])


def confusion(known: Predictions) -> NDArray[np.float64]:
    """Return the mean probability (classes, classes) that the networks give to each class, by the true one."""
    mean = known.cube.mean(axis=0)
    return np.stack([mean[known.labels == label].mean(axis=0) for label in range(mean.shape[1])]).astype(np.float64)


def draw_rows(known: Predictions, kind: str, draw: int, samples: int) -> list[dict[str, Any]]:
    """Return a row for the ensemble, and one for the best single network."""
    classes = known.cube.shape[2]
    shares = np.ones((classes, classes)) if kind == "random" else confusion(known)
    given = replaced(known.labels, shares, draw)
    seen = np.random.default_rng(draw).permutation(len(given))[:samples]
    rows = []
    for of, method, calibrate in (("ensemble", None, None), ("best single", "best", "members")):
        choice = select_members(
            known.cube[:, seen], given[seen], known.costs, BUDGET * known.costs.mean(), method,
            prune=1.0, calibrate=calibrate, cv=0,
        )  # fmt: skip
        row = {"set": f"cifar100-{kind}", "seed": draw, "of": of, "members": len(choice.members)}
        rows.append(row | judged(choice.combine(known.cube), given, known.labels, TASK))
    return rows


def main() -> None:
    """Run the draws and record the means with intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    one_thread()
    known = cifar100()
    runs = [(kind, draw) for kind in PLANTED for draw in range(options.draws)]
    found = [row for kind, draw in runs for row in draw_rows(known, kind, draw, options.samples)]
    settings = {"draws": options.draws, "samples": options.samples, **versions()}
    note = "list: suspects by planted errors; a seed is a draw"
    record_seeds("uncertainty-recorded-errors", settings, summary(found), found, note)


if __name__ == "__main__":
    main()
