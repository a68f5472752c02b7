"""How far the coverage of an ensemble falls on the samples that selected it, by their number and that of the members.

    python benchmarks/uncertainty/held_out.py [--draws 20] [--members 23 100 300] [--samples 100 200 400 1000]

The library is the recorded networks of CIFAR-100; larger ones hold variants of them, with noise on the logits of each
sample. An ensemble of at most 5 members is selected from the samples of a draw, with calibrated members. Its coverage
(score lac) is fitted to the same samples, or selected from two thirds and fitted to the rest; it is measured on 4,000
others. Writes benchmarks/results/uncertainty-held-out.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from libraries import Predictions, cifar100, grown, one_thread, versions
from record import record

from ripieno.selection import select_members
from ripieno.tasks.conformal import fit_coverage, prediction_set, share_held
from ripieno.types import classification

LEVELS = (0.9, 0.95)
UNSEEN, RECORDED = 4000, 23
TASK = classification([str(number) for number in range(100)])


def library(members: int, samples: int, seed: int) -> Predictions:
    """Return the recorded networks, or `members` variants of them, on `samples` samples in random order."""
    known = cifar100() if members == RECORDED else grown(members, samples, seed)
    order = np.random.default_rng(seed).permutation(len(known.labels))[:samples]
    return known._replace(cube=known.cube[:, order], labels=known.labels[order])


def coverages(cube: np.ndarray, labels: np.ndarray, samples: int, fitted: int) -> dict[str, float]:
    """Return the coverage at each level and the loss on unseen samples; the first `fitted` samples fit the coverage.

    With `fitted` below `samples`, the others select.
    """
    chosen = slice(fitted if fitted < samples else 0, samples)
    choice = select_members(cube[:, chosen], labels[chosen], budget=5, prune=1.0, cv=0)
    combined = choice.combine(cube)
    unseen, truth = combined[samples:], labels[samples:]
    found = {"loss": float(-np.log(np.maximum(unseen[np.arange(len(truth)), truth], 1e-15)).mean())}
    for level in LEVELS:
        coverage = fit_coverage(combined[:fitted], labels[:fitted], TASK, level)
        found[str(level)] = float(share_held(prediction_set(unseen, coverage), truth).mean())
    return found


def main() -> None:
    """Run the draws and record their means with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--members", type=int, nargs="+", default=[23, 100, 300])
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 200, 400, 1000])
    options = parser.parse_args()
    one_thread()
    rows: list[dict[str, Any]] = []
    for members in options.members:
        for samples in options.samples:
            found: dict[str, list[dict[str, float]]] = {"same": [], "held out": []}
            for draw in range(options.draws):
                known = library(members, samples + UNSEEN, draw)
                found["same"].append(coverages(known.cube, known.labels, samples, samples))
                found["held out"].append(coverages(known.cube, known.labels, samples, samples // 3))
            for way, draws in found.items():
                row: dict[str, Any] = {"members": members, "samples": samples, "fitted to": way}
                for name in draws[0]:
                    values = np.array([one[name] for one in draws])
                    row[name] = float(values.mean())
                    row[f"{name} error"] = float(values.std(ddof=1) / len(values) ** 0.5)
                rows.append(row)
                print(row, flush=True)
    note = "mean coverage of unseen samples, with its standard error; loss: cross-entropy"
    record("uncertainty-held-out", {"draws": options.draws, **versions()}, rows, note)


if __name__ == "__main__":
    main()
