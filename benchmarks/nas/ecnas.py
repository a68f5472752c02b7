"""Search of cells on EC-NAS's real trainings, replayed through the driver in virtual time: growth against samplers.

    python benchmarks/nas/ecnas.py [--seeds N] [--workers 1 16] [--algorithms ...] [--seconds T]

The table has 2,532 cells of two to five vertices, trained once for four epochs on CIFAR-10, with results after two
epochs too: the two rungs of `asha`. All algorithms search the same cells, and train each at most once: what is no cell
of the table, or one that was trained, is drawn again. `random` draws all cells alike; other samplers draw edges
and operations, of which small cells have more than one choice.

`after T` is the test accuracy in percent of the cell with the best validation accuracy among those that had ended
after T seconds of the clock, at the same epoch. With 16 workers there is 16 times as much training in that time.
`occupancy` is the share of the workers' time in training, to the end: no job starts that would end later.

`popnas` has its own defaults; the first step are the cells of at most three vertices, and each further one has a
vertex more. `popnas by score` is the same without the front: it knows no seconds. The note has its predictors on all
other cells after the training of 100 random ones: rank correlations, and the median relative error of the seconds.

Ensembles cannot be formed from these data: EC-NAS keeps accuracies, and no predictions of single images. So SMOBF is
not run. The nearest that the data allow is what one cell gives under a budget, and the front of the library.
`within B` is the test accuracy of the best-on-validation cell whose seconds of prediction are at most those of the
cheapest tenth, quarter and half of all cells; `hypervolume` is the share of the rectangle, from no error and no time to
90 % of error and the most expensive cell, that the members on the front of validation error and seconds of prediction
dominate with their test error. Repeats of one small cell vary by 5 points: smaller gaps mean nothing.

Each number has a 95 % bootstrap interval over seeds. Results of an earlier call are read from runs/. Writes
benchmarks/results/nas-ecnas.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from ecnas_cells import Cell, EcNas, TrainedCell
from ecnas_growth import EcNasGrowth, ScoreSampler, prediction_ranks
from quality import interval
from record import record

from ripieno.search import SAMPLERS, Algorithm, Settings, Simulation, find_algorithm, simulate
from ripieno.search.algorithms import SAMPLER_OPTIONS
from ripieno.search.popnas import PopnasSampler
from ripieno.selection.hypervolume import hypervolume
from ripieno.types import Configuration

SAMPLERS["ecnas-popnas"] = lambda seed: popnas(seed)
SAMPLERS["ecnas-score"] = lambda seed: popnas(seed, ScoreSampler)
ALGORITHMS: dict[str, str | Algorithm] = {
    "random": "random",
    "forest": "full+forest",
    # rungs after two and four epochs; the better half goes on
    "asha+forest": Algorithm(name="asha+forest", brackets="one", step=2, keep=2, sampler="forest"),
    "popnas": "full+ecnas-popnas",
    "popnas by score": "full+ecnas-score",
}
TRAININGS = 100
"""Trainings of random cells, after which the predictors of popnas predict all others."""
MOMENTS = (1000, 2000, 3000, 6000)
SHARES = (0.1, 0.25, 0.5)
"""Shares of the cells, the cheapest first, whose most expensive one is a budget."""
GUESSING = 0.9
"""Error of guessing one of ten classes."""


@cache
def table() -> EcNas:
    """Return the table, read once."""
    return EcNas()


def popnas(seed: int, kind: type[PopnasSampler] = PopnasSampler) -> PopnasSampler:
    """Return the sampler `popnas` with its own defaults, for the cells of the table."""
    algorithm = find_algorithm("popnas")
    return kind(seed, **{name: getattr(algorithm, name) for name in SAMPLER_OPTIONS}, growth=growth())


@cache
def growth() -> EcNasGrowth:
    """Return the growth of the cells, made once."""
    return EcNasGrowth(table())


@cache
def budgets() -> tuple[float, ...]:
    """Return the budgets, in seconds of prediction."""
    return tuple(np.quantile([cell.predict_seconds for cell in table().rows.values()], SHARES).tolist())


def search(name: str, workers: int, seed: int, seconds: float) -> dict[str, Any]:
    """Search by the algorithm called `name` for `seconds` of virtual time; return its figures by name."""
    known, started = table(), set[Cell]()

    def curve(configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
        started.add(known.cell(configuration))
        return known.curve(configuration, epoch)

    def costs(configuration: Configuration) -> dict[str, float]:
        cell = known.cell(configuration)
        even = name != "random" or known.values(configuration) == known.configurations.get(cell)
        return {"new": float(cell in known.rows and cell not in started and even)}

    settings = Settings(known.space, ALGORITHMS[name], epochs=known.epochs, seed=seed, constraints=("new>=1",))
    return figures(simulate(settings, curve, workers, seconds=seconds, costs=costs), seconds)


def figures(run: Simulation, seconds: float) -> dict[str, Any]:
    """Return the figures of a search of so many seconds."""
    members = list(trained(run))
    found: dict[str, Any] = {}
    for moment in sorted({*(m for m in MOMENTS if m < seconds), seconds}):
        found[f"after {moment:g}"] = test_accuracy([(cell, epoch) for when, cell, epoch in members if when <= moment])
    found["cells"] = len({id(cell) for _, cell, _ in members})
    for budget in budgets():
        affordable = [(cell, epoch) for _, cell, epoch in members if cell.predict_seconds <= budget]
        found[f"within {budget:.2f} s"] = test_accuracy(affordable)
    found["hypervolume"] = library_volume([(cell, epoch) for _, cell, epoch in members])
    found["occupancy"] = 100 * run.summary.occupancy
    return found


def trained(run: Simulation) -> Iterator[tuple[float, TrainedCell, int]]:
    """Yield of each member the moment it was there, its cell and its epoch."""
    for outcome in run.outcomes:
        if outcome.member is not None:
            yield outcome.finished, table().trained(outcome.job.configuration), outcome.member.epoch


def test_accuracy(members: Sequence[tuple[TrainedCell, int]]) -> float | None:
    """Return the test accuracy in percent of the best member on validation images; None without one."""
    if not members:
        return None
    cell, epoch = min(members, key=lambda one: one[0].errors[one[1] - 1])
    return 100 * (1 - cell.test_errors[epoch - 1])


def library_volume(members: Sequence[tuple[TrainedCell, int]]) -> float:
    """Return the share that the front of members dominates: chosen by validation error, judged by test error."""
    most = max(cell.predict_seconds for cell in table().rows.values())
    lowest, front = float("inf"), []
    for cell, epoch in sorted(members, key=lambda one: (one[0].predict_seconds, one[0].errors[one[1] - 1])):
        if cell.errors[epoch - 1] < lowest:
            lowest = cell.errors[epoch - 1]
            front.append((cell.predict_seconds, cell.test_errors[epoch - 1]))
    return hypervolume(front, (most, GUESSING)) / (most * GUESSING)


def main() -> None:
    """Search, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--seconds", type=float, default=float(MOMENTS[-1]), help="of virtual time, of each search")
    arguments = parser.parse_args()
    kept = Path(__file__).parents[2] / "runs" / f"nas-ecnas-{arguments.seconds:g}.jsonl"
    kept.parent.mkdir(exist_ok=True)
    found: dict[tuple[str, int, int], dict[str, Any]] = {}
    for line in kept.read_text().splitlines() if kept.exists() else ():
        name, workers, seed, values = json.loads(line)
        found[name, workers, seed] = values
    cases = list(product(arguments.workers, range(arguments.seeds), arguments.algorithms))
    with kept.open("a") as file:
        for number, (workers, seed, name) in enumerate(cases, 1):
            if (name, workers, seed) not in found:
                found[name, workers, seed] = search(name, workers, seed, arguments.seconds)
                file.write(json.dumps([name, workers, seed, found[name, workers, seed]]) + "\n")
                file.flush()
                print(f"\r{number} of {len(cases)} searches", end="", file=sys.stderr)
    print(file=sys.stderr)
    rows = []
    for workers, name in product(arguments.workers, arguments.algorithms):
        runs = [found[name, workers, seed] for seed in range(arguments.seeds)]
        row: dict[str, object] = {"workers": workers, "algorithm": name}
        for figure in runs[0]:
            values = np.array([run[figure] for run in runs if run[figure] is not None], np.float64)
            row[figure] = float(values.mean()) if len(values) else "-"
            if len(values):
                row[f"{figure} 95 %"] = interval(values)
        rows.append(row)
    ranks = [prediction_ranks(table(), seed, TRAININGS) for seed in range(arguments.seeds)]
    predicted = {}
    for name in ranks[0]:
        values = np.array([found[name] for found in ranks], np.float64)
        predicted[name] = f"{values.mean():.3f} ({interval(values)})"
    settings = {"cells": len(table().rows), "seeds": arguments.seeds, "seconds": arguments.seconds}
    note = (
        "accuracies in percent, of the best cell on validation images; no ensembles: the data have no predictions\n"
        f"popnas, all other cells after {TRAININGS} random trainings: "
        + ", ".join(f"{name} {value}" for name, value in predicted.items())
    )
    record("nas-ecnas", settings | {"predictions": predicted}, rows, note)


if __name__ == "__main__":
    main()
