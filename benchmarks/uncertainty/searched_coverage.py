"""Coverage of sets and intervals of searched libraries, and their size beside the best single network's.

    python benchmarks/uncertainty/searched_coverage.py [SET ...] --runs FOLDER [--seeds 0 1 2] [--also RUN ...]
        [--trials 16] [--epochs 9] [--data ../shared/data] [--series FOLDER]

SET is fashion14, plankton88, vowels or sizes: see `searched.py`, which searches what is missing. `--also` takes other
runs with a test split, such as those of benchmarks/tasks/{series,segmentation}.py; they are copied (by links) first.
The ensemble costs at most as many operations as four median members, and so does the best single network, which is
calibrated, too. Coverages are fitted by `select` as for a user, then also by class. Each is measured on the test split:

within: the share lies in the middle 95 % of its distribution. With the threshold fitted to n samples, the number of m
    test samples that are held is beta-binomial: both numbers of samples count. Of pixels and labels, whose coverage is
    only bounded below, the binomial interval must reach the level.
classes within: likewise of each class with test samples; where the coverage is not by class, it need not be so.

Writes benchmarks/results/uncertainty-searched-coverage.{json,txt}.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom
from searched import BUDGET, COST, arguments, chosen, networks, one_thread, search
from seeds import by_seed, record_seeds

import ripieno
from ripieno.errors import SelectionError
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.conformal import gives_intervals
from ripieno.tasks.observed_coverage import ALL, ObservedCoverage, PixelCoverage, observed_coverage
from ripieno.tasks.registry import kind_of
from ripieno.types import Coverage, Ensemble

SETS = ("fashion14", "plankton88", "vowels", "sizes")
LEVELS = (0.9, 0.95)


def expected(level: float, fitted: int, samples: int) -> tuple[float, float]:
    """Return the middle 95 % of the share of `samples` that a coverage fitted to `fitted` samples holds."""
    rank = int(np.ceil((fitted + 1) * level - 1e-9))
    number = betabinom(samples, rank, fitted + 1 - rank)
    return float(number.ppf(0.025) / samples), float(number.ppf(0.975) / samples)


def measured(library: ripieno.Library, ensemble: Ensemble) -> list[tuple[Coverage, list[ObservedCoverage]]]:
    """Return each coverage of an ensemble with what it has on the test split."""
    task = library.member(ensemble.members[0]).task
    kind, shares = kind_of(task), member_shares(ensemble)
    evaluate(library, ensemble.members)
    if kind.is_pixelwise:
        pixels = [PixelCoverage(task, coverage) for coverage in ensemble.coverage]
        for block in combined_blocks(library, ensemble, "test"):
            for one in pixels:
                one.add(block.combined, block.targets)
        return [(one.coverage, one.rows()) for one in pixels]
    combined, spreads = [], []
    for block in combined_blocks(library, ensemble, "test"):
        combined.append(block.combined)
        if gives_intervals(kind):
            spreads.append(kind.spread(block.members, block.combined, shares))
    spread = np.concatenate(spreads) if spreads else None
    predictions, targets = np.concatenate(combined), np.asarray(library.targets("test"))
    return [(own, observed_coverage(predictions, targets, task, own, spread)) for own in ensemble.coverage]


def rows(name: str, seed: int, library: ripieno.Library) -> list[dict[str, Any]]:
    """Return a row for each coverage of the ensemble and of the best single network, and for each target of values."""
    found = []
    notes: list[str] = []
    for of, ensemble in chosen(library, coverage=LEVELS, notes=notes).items():
        for way in ("all", "by class"):
            if way == "by class":
                try:
                    ensemble = ripieno.coverage(library, ensemble, coverage=LEVELS, per_class=True)
                except SelectionError:  # values have no classes, and some classes too few samples
                    continue
            counts = class_counts(library, ensemble)
            for coverage, observed in measured(library, ensemble):
                row: dict[str, Any] = {"set": name, "seed": seed, "of": of, "level": coverage.level, "fitted": way}
                row |= networks(library) | {
                    "members": len(ensemble.members),
                    "samples": coverage.samples,
                    "held out": coverage.held_out,
                }
                found += [row | one for one in judged(coverage, observed, counts)]
    return found


def class_counts(library: ripieno.Library, ensemble: Ensemble) -> dict[str, int]:
    """Return the number of validation samples of each class; empty of other tasks."""
    task = library.member(ensemble.members[0]).task
    if task.kind != "classification":
        return {}
    counts: NDArray[np.int64] = np.bincount(library.targets(), minlength=len(task.names))
    return dict(zip(task.names, counts.tolist(), strict=True))


def judged(coverage: Coverage, observed: list[ObservedCoverage], counts: dict[str, int]) -> list[dict[str, Any]]:
    """Return a row of all samples with figures of its classes, or a row of each target."""
    exact = coverage.score != "fnr"

    def within(one: ObservedCoverage, fitted: int) -> bool:
        if not exact:
            return one.high >= coverage.level
        low, high = expected(coverage.level, fitted, one.samples)
        return low <= one.value <= high

    whole = [one for one in observed if one.name == ALL]
    classes = [one for one in observed if one.name != ALL]
    found = []
    for one in whole or classes:
        row: dict[str, Any] = {"target": "" if whole else one.name, "coverage": one.value}
        row |= {"low": one.low, "high": one.high, "size": one.size}
        by_class = coverage.per_class and exact
        if not by_class:  # by class, the mean over classes is not one quantile
            row["within"] = within(one, coverage.samples)
        found.append(row)
    if whole and len(classes) > 1:
        fitted = [counts.get(one.name, coverage.samples) if coverage.per_class else coverage.samples for one in classes]
        held = [within(one, number) for one, number in zip(classes, fitted, strict=True)]
        found[0] |= {"classes": len(classes), "classes within": sum(held)}
        found[0]["least class"] = min(one.value for one in classes)
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds, and in how many the coverage is within."""
    lines = []
    for key, group in by_seed(found, "set", "target", "level", "fitted", "of").items():
        line: dict[str, Any] = dict(zip(("set", "target", "level", "fitted", "of"), key, strict=True))
        line["seeds"] = len(group)
        for word in ("trials", "library", "members", "samples"):
            line[word] = float(np.mean([row[word] for row in group.values()]))
        line["coverage"] = float(np.mean([row["coverage"] for row in group.values()]))
        first = next(iter(group.values()))
        line["from"], line["to"] = (f(row["coverage"] for row in group.values()) for f in (min, max))
        if "within" in first:
            line["within"] = f"{sum(row['within'] for row in group.values())} of {len(group)}"
        if "classes" in first:
            counts = (sum(row[word] for row in group.values()) for word in ("classes within", "classes"))
            line["classes within"] = "{} of {}".format(*counts)
            line["least class"] = float(np.mean([row["least class"] for row in group.values()]))
        line["size"] = float(np.mean([row["size"] for row in group.values()]))
        lines.append(line)
    for line in lines:
        single = next(o for o in lines if o["of"] == "best single" and same_but_of(o, line))
        line["of single"] = line["size"] / single["size"]
    return lines


def same_but_of(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two lines of the table differ at most in whose coverage they are."""
    return all(one[word] == other[word] for word in ("set", "target", "level", "fitted"))


def linked(run: Path, folder: Path) -> ripieno.Library:
    """Return a copy of a run by links, without its ensembles."""
    copy = folder / "also" / run.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        left_out = shutil.ignore_patterns("ensembles", "bundles", "allocations", "checkpoints", "lock")
        shutil.copytree(run, copy, copy_function=os.link, ignore=left_out)
    return ripieno.Library(copy)


def main() -> None:
    """Measure the sets of all seeds, then the other runs, and record the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, SETS)
    parser.add_argument("--also", type=Path, nargs="+", default=[], metavar="RUN", help="runs to measure, too")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for seed in options.seeds:
        for name in options.sets:
            found += rows(name, seed, search(name, seed, options))
    for run in options.also:
        found += rows(run.name, 0, linked(run, options.runs))
    settings = {"epochs": options.epochs, "budget": f"{BUDGET} median {COST}"}
    note = "size: mean classes of a set, or mean width; of single: that of the best single network; from, to: of seeds"
    record_seeds("uncertainty-searched-coverage", settings, summary(found), found, note)


if __name__ == "__main__":
    main()
