"""Coverage and size of prediction sets of an ensemble, and of the best single network under the same budget.

    python benchmarks/uncertainty/set_sizes.py [--draws 10] [--samples 1000]

The library is the 23 recorded networks of CIFAR-100. For each draw, an ensemble of at most 4 mean costs is selected
from some samples, with calibrated members, and the network of the least loss among those that cost no more. Both are
fitted to the same samples, and measured on the others.
Writes benchmarks/results/uncertainty-set-sizes.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from libraries import cifar100, one_thread, versions
from record import record

from ripieno.selection import Choice, select_members
from ripieno.tasks.conformal import fit_coverage, prediction_set, share_held
from ripieno.tasks.registry import kind_of
from ripieno.types import CoverageScore, classification

LEVELS, BUDGET = (0.9, 0.95), 4
TASK = classification([str(number) for number in range(100)])


def main() -> None:
    """Run the draws and record the means with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args()
    one_thread()
    known = cifar100()
    scores = [score for score in get_args(CoverageScore) if score in kind_of(TASK).coverage_scores]
    found: dict[tuple[str, float, str], list[tuple[float, float]]] = {}
    for draw in range(options.draws):
        order = np.random.default_rng(draw).permutation(len(known.labels))
        seen, unseen = order[: options.samples], order[options.samples :]
        chosen: dict[str, Choice] = {}
        for name, method, calibrate in (("ensemble", None, None), ("best single", "best", "members")):
            chosen[name] = select_members(
                known.cube[:, seen],
                known.labels[seen],
                known.costs,
                BUDGET * known.costs.mean(),
                method,
                prune=1.0,
                calibrate=calibrate,
                cv=0,
            )
        for name, choice in chosen.items():
            fitted, new = choice.combine(known.cube[:, seen]), choice.combine(known.cube[:, unseen])
            for level in LEVELS:
                for score in scores:
                    coverage = fit_coverage(fitted, known.labels[seen], TASK, level, score=score, seed=draw)
                    sets = prediction_set(new, coverage)
                    share = share_held(sets, known.labels[unseen]).mean()
                    found.setdefault((score, level, name), []).append((float(share), float(sets.sum(axis=1).mean())))
    rows = []
    for (score, level, name), values in found.items():
        (share, size), errors = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / len(values) ** 0.5
        row = {"score": score, "level": level, "of": name, "coverage": float(share), "coverage error": float(errors[0])}
        rows.append(row | {"mean size": float(size), "size error": float(errors[1])})
    rows.sort(key=lambda row: (str(row["score"]), row["level"]))
    record("uncertainty-set-sizes", {"draws": options.draws, "samples": options.samples, **versions()}, rows)


if __name__ == "__main__":
    main()
