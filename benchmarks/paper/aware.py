"""Promotion for the ensemble against promotion by loss, after equal time: does knowing the budget make a search better?

    python benchmarks/paper/aware.py [SET] [--quick] [--minutes 2.5] [--seeds 5] [--budget 13.4] [--clock counted|real]
                                     [--next] ...

Hyperband twice a seed: paused trials go on by their own loss, or by what they add to the best ensemble under `--budget`
(million operations of an image; that of table2.py for fashion14: four median members). Seed by seed, and which of both
goes first alternates. The clock counts (see counted.py), so that a busy machine is fair too, or is the real one, on one
slot. Then SMOBF chooses, on validation, for a quarter, half, once and twice that budget from each library; error and
cross-entropy of the ensembles on test. Differences are of pairs: one seed gives both the same configurations in the
same order. `--next` runs one search that is not done yet and ends. Writes benchmarks/results/paper-aware-SET.*.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from counted import counted, folder
from record import record
from scipy import stats
from searches import Plan, Shelf, arguments, plan
from table2 import spread

import ripieno
from ripieno.data import open_dataset
from ripieno.library.evaluate import evaluate
from ripieno.models.resnet_flops import megaflops
from ripieno.pipeline.costs import export_members
from ripieno.selection import select_members

ARMS = ("loss", "ensemble")
MULTIPLES = (0.25, 0.5, 1, 2)
NOTE = """budgets: million operations of an image; the searches that promote for an ensemble were told the third.
Arms: test error in percent, test cross-entropy; median (range) over seeds. Differences: mean (95 % interval of
Student's t), p of the two-sided Wilcoxon test, seeds better-equal-worse; negative is better. The paper has no such
figures."""


class Lean(Shelf):
    """A library of which only the members chosen are exported and judged on test."""

    def __init__(self, run: Path) -> None:
        self.library = ripieno.Library(run)
        members = self.library.members()
        self.ids = [m.id for m in members]
        self.operations = np.array([2 * megaflops(m.configuration, m.input) for m in members])
        self.metric = open_dataset(self.library.dataset_path).metric.replace("-", "_")
        self.epochs = sum({m.trial: m.epoch for m in sorted(members, key=lambda m: m.epoch)}.values())

    def judged(self, budget: float) -> tuple[float, float] | None:
        """Test error in percent and test cross-entropy of the SMOBF ensemble; None when nothing is so cheap."""
        if self.operations.min() > budget:
            return None
        choice = select_members(self.truth, None, self.operations, budget, prune=1.0)
        chosen = [self.ids[i] for i in choice.members]
        export_members(self.library, [self.library.member(m) for m in chosen])
        evaluate(self.library, chosen)
        mean = np.asarray(choice.weights) @ self.library.true_class_probabilities(chosen, "test").astype(np.float64)
        return self.error(list(choice.members), choice.weights), float(-np.log(np.maximum(mean, 1e-15)).mean())


def search(asked: Plan, arm: str, seed: int, budget: float, algorithm: str, clock: str) -> tuple[Path, bool]:
    """The run of one arm, made or gone on with, and whether it was done before."""
    name = f"{algorithm}-by-{arm}" + (f"-{budget:g}M" if arm == "ensemble" else "")
    bounds = {"flops": 1e6 * budget} if arm == "ensemble" else {}
    if clock == "counted":
        run, make = folder(asked) / f"{name}-{seed}", partial(counted, asked, name, algorithm, seed, bounds)
    else:
        more = {"promote": "ensemble", "budget": bounds} if bounds else {}
        run, make = asked.run(name, seed), partial(asked.search, algorithm, seed, name, **more)
    done = (run / "done").exists()
    return (run if done else make()), done


def order(seeds: int) -> list[tuple[int, str]]:
    """Seeds and arms, the arms in turns."""
    return [(seed, arm) for seed in range(seeds) for arm in (ARMS if seed % 2 == 0 else ARMS[::-1])]


def compared(differences: list[float], digits: int) -> str:
    """Mean, interval, test, and who won how often; negative is good."""
    d = np.array(differences)
    if len(d) < 2:
        return f"{d.mean():+.{digits}f}" if len(d) else ""
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    p = stats.wilcoxon(d).pvalue if d.any() else 1.0
    wins = f"{(d < 0).sum()}-{(d == 0).sum()}-{(d > 0).sum()}"
    return f"{d.mean():+.{digits}f} ({d.mean() - half:+.{digits}f} to {d.mean() + half:+.{digits}f}), p {p:.2f}, {wins}"


def table(shelves: dict[tuple[int, str], Lean], budget: float) -> list[dict[str, object]]:
    """A row for each arm, and one for each figure's differences."""
    seeds = sorted({seed for seed, _ in shelves})
    found = {
        (seed, arm, multiple): shelf.judged(multiple * budget)
        for (seed, arm), shelf in shelves.items()
        for multiple in MULTIPLES
    }
    rows: list[dict[str, object]] = []
    for arm in ARMS:
        held = [shelves[seed, arm] for seed in seeds]
        row: dict[str, object] = {"promoted by": arm, "members": spread([float(len(s.ids)) for s in held], 0)}
        row["epochs"] = spread([float(s.epochs) for s in held], 0)
        for multiple in MULTIPLES:
            pairs = [pair for seed in seeds if (pair := found[seed, arm, multiple]) is not None]
            errors, entropies = zip(*pairs, strict=True) if pairs else ((), ())
            told = f"{spread(list(errors))}, {spread(list(entropies), 4)}" if pairs else "nothing so cheap"
            row[f"{multiple * budget:.3g}M"] = told
        rows.append(row)
    for figure, (what, digits) in enumerate((("test error, %", 2), ("test cross-entropy", 4))):
        row = {"promoted by": f"ensemble less loss, {what}", "members": "", "epochs": ""}
        for multiple in MULTIPLES:
            both = [(found[seed, ARMS[0], multiple], found[seed, ARMS[1], multiple]) for seed in seeds]
            less = [ours[figure] - plain[figure] for plain, ours in both if ours is not None and plain is not None]
            row[f"{multiple * budget:.3g}M"] = compared(less, digits)
        rows.append(row)
    return rows


def main() -> None:
    """Search, select, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("hyperband",), 5, 2.5)
    parser.set_defaults(set="fashion14", slots=1)
    parser.add_argument("--budget", type=float, default=13.4, help="million operations of an image")
    parser.add_argument("--clock", choices=("counted", "real"), default="counted")
    parser.add_argument("--next", action="store_true", help="one search more, and no table")
    given = parser.parse_args()
    asked, algorithm = plan(given), given.algorithms[0]
    shelves: dict[tuple[int, str], Lean] = {}
    for seed, arm in order(given.seeds):
        run, done = search(asked, arm, seed, given.budget, algorithm, given.clock)
        if given.next and not done:
            return
        if not given.next:
            shelves[seed, arm] = Lean(run)
    if given.next:
        return
    settings = {k: v for k, v in vars(asked).items() if k != "data"} | {"seeds": given.seeds, "algorithm": algorithm}
    settings |= {"clock": given.clock, "searched for": f"{given.budget:g}M"}
    name = f"paper-aware-{asked.set}" + ("-quick" if given.quick else "")
    record(name, settings, table(shelves, given.budget), NOTE)


if __name__ == "__main__":
    main()
