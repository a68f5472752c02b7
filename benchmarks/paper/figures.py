"""Figures 3 to 6: error against budget and search time, SMOBF against forward greedy, best single and the best five.

    python benchmarks/paper/figures.py [SET] [--quick] [--minutes 20] [--slots N] [--seeds 2] [--cost seconds|flops] ...

The searches are those of searches.py, hyperband and random unless `--algorithms` names others. The budgets of each
library are eight multiples of its median member's cost. The cost is the paper's, seconds for 2,000 images measured
alone on this machine, or counted operations. Selection uses the validation split; the errors are on the test split,
median over seeds and range. Writes benchmarks/results/paper-figures-SET.{json,txt,svg}, and the differences between
SMOBF and the other methods with their intervals in paper-figures-SET-intervals.{json,txt}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import matplotlib as mpl
import numpy as np
from intervals import difference
from numpy.typing import NDArray
from record import RESULTS, record
from searches import SearchedLibrary, arguments, plan, searched
from table2 import spread

from ripieno.selection import Choice, select_members
from ripieno.selection.validation import SelectionMethod

mpl.use("svg")
import matplotlib.pyplot as plt

mpl.rcParams["svg.hashsalt"] = "ripieno"  # equal figures give equal files

MULTIPLES = (0.5, 1, 1.5, 2, 3, 4, 8, 16)
PAPER = {36: 27.61, 144: 22.65, 864: 20.56}
"""Test errors in % of the paper's ensembles on CIFAR-100 (B=320), by hours of a V100 (table 4)."""
MOMENTS = (0.125, 0.25, 0.5, 0.75, 1.0)
"""Shares of the search's time."""


def choose(
    searched_library: SearchedLibrary,
    costs: NDArray[np.float64],
    budget: float,
    method: SelectionMethod,
    among: NDArray[np.bool_] | None = None,
) -> Choice | None:
    """Select with `method` for `budget` from the members `among`; return None if all are too expensive."""
    kept = np.flatnonzero(np.ones(len(costs), bool) if among is None else among)
    if not len(kept) or costs[kept].min() > budget:
        return None
    found = select_members(searched_library.truth[kept], None, costs[kept], budget, method, prune=1.0)
    return Choice(tuple(int(kept[i]) for i in found.members), found.weights, found.loss, found.cost)


def best_five(searched_library: SearchedLibrary) -> list[int]:
    """Return the five members with the least validation loss."""
    return [int(i) for i in np.argsort(-np.log(np.maximum(searched_library.truth, 1e-12)).mean(1))[:5]]


def both(judged: list[tuple[SearchedLibrary, list[int], Any]]) -> str:
    """Return test error and test cross-entropy as text, medians and ranges over libraries."""
    entropies = [s.cross_entropy(m, w) for s, m, w in judged]
    return f"{spread([s.error(m, w) for s, m, w in judged])}; {spread(entropies, 4)}"


def rows_of(algorithm: str, searched_libraries: list[SearchedLibrary], cost: str) -> list[dict[str, object]]:
    """Return a row per budget: errors of SMOBF at each moment, of SMOBF and forward at the end, SMOBF's size."""
    rows: list[dict[str, object]] = []
    single, five = (
        both([(s, [s.single()], None) for s in searched_libraries]),
        both([(s, best_five(s), None) for s in searched_libraries]),
    )
    for multiple in MULTIPLES:
        row: dict[str, object] = {"algorithm": algorithm, "budget": f"{multiple:g} x"}
        for moment in MOMENTS[:-1]:
            errors = [s.error(m, w) for s, m, w in chosen(searched_libraries, cost, multiple, "smobf", moment)]
            row[f"SMOBF at {moment:.0%} of the time"] = (
                spread(errors) if len(errors) == len(searched_libraries) else "-"
            )
        ends = {method: chosen(searched_libraries, cost, multiple, method) for method in ("smobf", "forward")}
        sizes = [len(m) for _, m, _ in ends["smobf"]]
        row["SMOBF at the end"] = both(ends["smobf"]) if len(sizes) == len(searched_libraries) else "-"
        row["networks"] = f"{statistics.median(sizes):g}" if sizes else "-"
        row["forward"] = both(ends["forward"]) if len(sizes) == len(searched_libraries) else "-"
        rows.append(row | {"best single": single, "best five": five})
    return rows


def chosen(
    searched_libraries: list[SearchedLibrary], cost: str, multiple: float, method: SelectionMethod, moment: float = 1.0
) -> list[tuple[SearchedLibrary, list[int], Any]]:
    """Select with `method` from the members each library had after that share of the time, where affordable."""
    found = []
    for s in searched_libraries:
        costs = getattr(s, cost)
        choice = choose(s, costs, multiple * float(np.median(costs)), method, s.at <= moment * s.at.max())
        if choice is not None:
            found.append((s, list(choice.members), choice.weights))
    return found


def differences(searched_libraries: dict[str, list[SearchedLibrary]], cost: str) -> list[dict[str, object]]:
    """Compare SMOBF at the largest budget with each library's other methods and other algorithms' SMOBF."""
    rows: list[dict[str, object]] = []
    best: dict[str, list[NDArray[Any]]] = {}
    for algorithm, found in searched_libraries.items():
        ends = {method: chosen(found, cost, MULTIPLES[-1], method) for method in ("smobf", "forward")}
        for seed, (s, members, weights) in enumerate(ends["smobf"]):
            ours, labels = s.answers(members, weights), s.library.targets("test")
            best.setdefault(algorithm, []).append(ours)
            others = {"best single": s.answers([s.single()]), "best five": s.answers(best_five(s))}
            others["forward"] = s.answers(*ends["forward"][seed][1:])
            others |= {f"SMOBF of {a}": b[seed] for a, b in best.items() if a != algorithm}
            for against, theirs in others.items():
                points, nats = difference([(ours, theirs)], labels, s.metric)
                row = {"algorithm": algorithm, "seed": seed, "SMOBF against": against}
                rows.append(row | {"test error, points": points, "test cross-entropy": nats})
    return rows


def draw(
    searched_libraries: dict[str, list[SearchedLibrary]], cost: str, target: Path, published: dict[int, float]
) -> None:
    """Draw figures 3 and 4 (left: error against time, a curve per budget) and 5 and 6 (right: cost against error).

    `published` are the paper's errors, by its GPU-hours.
    """
    figure, axes = plt.subplots(
        len(searched_libraries), 2, figsize=(11, 4 * len(searched_libraries)), squeeze=False, layout="constrained"
    )
    for (algorithm, found), (left, right) in zip(searched_libraries.items(), axes, strict=True):
        s = found[0]
        costs = getattr(s, cost)
        median, times = float(np.median(costs)), np.linspace(0, float(s.at.max()), 13)[1:]
        for multiple in MULTIPLES:
            there = [choose(s, costs, multiple * median, "smobf", s.at <= t) for t in times]
            shown = [(t / 60, s.error(list(c.members), c.weights)) for t, c in zip(times, there, strict=True) if c]
            left.plot(*zip(*shown, strict=True), marker=".", label=f"B = {multiple:g} x median")
        for hours, error in published.items():
            left.axhline(error, linestyle=":", color="gray")
            left.annotate(f"the paper, {hours} GPU-hours", (times[-1] / 60, error), ha="right", fontsize="small")
        # where both choose the same ensemble, the hollow marker surrounds the filled one
        marks: tuple[tuple[SelectionMethod, dict[str, Any]], ...] = (
            ("smobf", {"marker": "o"}),
            ("forward", {"marker": "s", "fillstyle": "none", "markersize": 11}),
        )
        for method, mark in marks:
            picked = [choose(s, costs, m * median, method) for m in MULTIPLES]
            points = [(s.error(list(c.members), c.weights), c.cost) for c in picked if c]
            right.plot(*zip(*points, strict=True), linestyle="", label=method, **mark)
        left.set(xlabel="minutes of search", ylabel="test error, %", title=f"{algorithm}, seed 0")
        right.set(xlabel="test error, %", ylabel="cost", yscale="log", title="SMOBF and forward greedy")
        left.legend(fontsize="small")
        right.legend(fontsize="small")
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Search, select, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("hyperband", "random"), 2, 20)
    parser.add_argument("--cost", choices=("flops", "seconds"), default="seconds")
    given = parser.parse_args()
    searched_libraries: dict[str, list[SearchedLibrary]] = {}
    for algorithm, _, run in searched(given):
        searched_libraries.setdefault(algorithm, []).append(SearchedLibrary(run))
    asked = plan(given)
    name = f"paper-figures-{asked.set}" + ("-quick" if given.quick else "")
    rows = [row for algorithm, found in searched_libraries.items() for row in rows_of(algorithm, found, given.cost)]
    settings = {k: v for k, v in vars(asked).items() if k != "data"} | {"seeds": given.seeds, "cost": given.cost}
    libraries = "; ".join(
        f"{a} {spread([float(len(s.ids)) for s in found], 0)} networks, the median member's cost"
        f" {spread([float(np.median(getattr(s, given.cost))) for s in found])}"
        for a, found in searched_libraries.items()
    )
    note = (
        f"test errors in %; cross-entropy on test; medians over seeds (range); libraries: {libraries}; budgets are "
        "multiples of each library's median member. All methods select by cross-entropy on validation. The paper's "
        "figure 3 (CIFAR-100, 144 hours on 6 GPUs): +5 points from one network to two, +1 from B=120 to B=320; its "
        "figures 5 and 6: SMOBF dominates forward or equals it."
    )
    record(name, settings, rows, note)
    intervals_note = f"SMOBF at {MULTIPLES[-1]} x minus the other; 95 % intervals, paired bootstrap over test images"
    record(f"{name}-intervals", settings, differences(searched_libraries, given.cost), intervals_note)
    draw(searched_libraries, given.cost, RESULTS / f"{name}.svg", PAPER if asked.set == "cifar100" else {})


if __name__ == "__main__":
    main()
