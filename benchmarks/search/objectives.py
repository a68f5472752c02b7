"""Search for several objectives: hypervolume over time, against Optuna's NSGA-II and TPE alone and plain hyperband.

    python benchmarks/search/objectives.py lcbench [--tasks N] [--seeds N] [--trainings T] [--algorithms ...]
    python benchmarks/search/objectives.py ecnas [--seeds N] ...
    python benchmarks/search/objectives.py networks [--seeds N] [--hours H]

`lcbench`: loss and training seconds on tasks of LCBench; `ecnas`: error and joules of the training of cells, all from
tables, in virtual time. Every algorithm gets the same time on four workers, `--trainings` median full trainings for
each. `full+nsga2` and `full+tpe` are Optuna's samplers with Optuna's defaults, which train each trial to its end;
`plain` is hyperband by the loss alone. All are granted their trials at all of Hyperband's rungs on the way: a trial in
training counts at a rung from the moment it passes it, whether a member is kept there or not.

The hypervolume is the share of a box that the trials so far dominate. The box reaches, per task, from the smallest
to the median loss of 300 random configurations at their last epoch, and from their smallest cost at the first rung to
their largest at the last, in logarithms: half the cost counts the same everywhere (`linear`: without logarithms).
`mean` is its mean over the time of the search, `last` that at the end, each with a 95 % bootstrap interval over tasks
and seeds, and with the difference to the best of the three peers over the same tasks and seeds.

`networks`: loss and FLOPs of real networks on Fashion-MNIST in real time, hours. Results of an earlier call are read
from runs/, so that hours can be split. Writes benchmarks/results/search-objectives-MODE.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "nas"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from ecnas_cells import EcNas
from lcbench import EPOCHS, LCBench
from record import record

from ripieno.search import Settings, Space, simulate
from ripieno.search.asha import rungs
from ripieno.selection.hypervolume import hypervolume
from ripieno.types import Configuration

PEERS = ("full+nsga2", "full+tpe", "plain")
OURS = ("hyperband", "hyperband+forest", "hyperband+tpe", "hyperband+genetic", "full+forest")
WORKERS = 4
SAMPLES = 300
POINTS = 20
"""Number of moments at which the hypervolume is taken."""
Curve = Callable[[Configuration, int], tuple[float, float, dict[str, float]]]


@dataclass(frozen=True)
class Problem:
    """Curves with two objectives: the loss and `cost`."""

    space: Space
    curve: Curve
    cost: str
    epochs: int


@cache
def lcbench() -> LCBench:
    """Return the surrogate, loaded once."""
    return LCBench()


@cache
def ecnas() -> EcNas:
    """Return the table, read once."""
    return EcNas()


@cache
def problem(mode: str, task: str) -> Problem:
    """Return the problem of a mode and task."""
    if mode == "ecnas":
        return Problem(ecnas().space, ecnas().curve, "joules", ecnas().epochs)
    plain = lcbench().curve(task)

    def curve(configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
        loss, seconds = plain(configuration, epoch)
        return loss, seconds, {"train_seconds": seconds}

    return Problem(lcbench().space, curve, "train_seconds", EPOCHS)


@dataclass(frozen=True)
class Box:
    """Scale of the objectives of a problem, and the seconds of a median full training."""

    losses: tuple[float, float]
    costs: tuple[float, float]
    seconds: float

    def volume(self, points: Iterable[tuple[float, float]], linear: bool) -> float:
        """Return the share of the box that `points` of cost and loss dominate."""
        scale = (lambda cost: cost) if linear else math.log
        low, high = map(scale, self.costs)
        least, most = self.losses
        placed = [
            (max(0.0, (scale(cost) - low) / (high - low)), max(0.0, (loss - least) / (most - least)))
            for cost, loss in points
        ]
        return hypervolume(placed, (1.0, 1.0))


@cache
def box(mode: str, task: str) -> Box:
    """Return the scale of a problem, of random configurations."""
    known = problem(mode, task)
    settings = Settings(known.space, "random", epochs=known.epochs, trials=SAMPLES, seed=99)
    outcomes = [o for o in simulate(settings, known.curve, 1).outcomes if o.member is not None]
    last = [o.member.losses["valid_cross_entropy"] for o in outcomes if o.member is not None]
    first = [known.curve(o.job.configuration, 1)[2][known.cost] for o in outcomes]
    costs = [o.values[known.cost] for o in outcomes]
    positive = [cost for cost in first if cost > 0]
    seconds = statistics.median(o.finished - o.started for o in outcomes)
    return Box((min(last), statistics.median(last)), (min(positive), max(costs)), seconds)


def search(mode: str, algorithm: str, task: str, seed: int, trainings: float) -> dict[str, Any]:
    """Search by `algorithm` with `seed`; return the hypervolumes over time."""
    known, scale = problem(mode, task), box(mode, task)
    objective = ("loss",) if algorithm == "plain" else ("loss", known.cost)
    name = "hyperband" if algorithm == "plain" else algorithm
    settings = Settings(known.space, name, epochs=known.epochs, seed=seed, objective=objective)
    budget = trainings * scale.seconds
    run = simulate(settings, known.curve, WORKERS, seconds=budget)
    points: list[tuple[float, tuple[float, float]]] = []  # moment, (cost, loss)
    for outcome in run.outcomes:
        job, member = outcome.job, outcome.member
        if member is None:
            continue
        before = known.curve(job.configuration, job.start)[1] if job.start else 0.0
        for epoch in sorted({*rungs(known.epochs), member.epoch}):
            if job.start < epoch <= member.epoch:
                loss, seconds, values = known.curve(job.configuration, epoch)
                cost = max(values[known.cost], scale.costs[0])
                points.append((outcome.started + seconds - before, (cost, loss)))
    moments = [budget * n / POINTS for n in range(1, POINTS + 1)]
    found: dict[str, Any] = {"trials": run.summary.trials, "members": run.summary.members}
    for kind in ("log", "linear"):
        found[kind] = [scale.volume([p for when, p in points if when <= m], kind == "linear") for m in moments]
    return found


def networks(algorithm: str, seed: int, hours: float, data: str) -> dict[str, Any]:
    """Search real networks in real time for loss and FLOPs; return the hypervolumes over time."""
    from ripieno import tune
    from ripieno.models.configuration_costs import configuration_costs

    run = Path(__file__).parents[2] / "runs" / f"objectives-{algorithm}-{seed}"
    objective = ("loss",) if algorithm == "plain" else ("loss", "flops")
    name = "hyperband" if algorithm == "plain" else algorithm
    library = tune(data, run, hours=hours, algorithm=name, seed=seed, objective=objective, free="off")
    members = [m for m in library.members() if m.trial >= 0]
    start = min(m.created - m.seconds for m in members)
    points = [
        (m.created - start, (configuration_costs(m.family, m.configuration, m.input, m.task)["flops"], m.loss))
        for m in members
    ]
    # of ten classes: from a loss of 0.15 to that of guessing, and from a tenth of a megaflop to 300
    scale = Box((0.15, math.log(10)), (1e5, 3e8), 0.0)
    moments = [3600 * hours * n / POINTS for n in range(1, POINTS + 1)]
    found: dict[str, Any] = {"trials": len({m.trial for m in members}), "members": len(members)}
    for kind in ("log", "linear"):
        found[kind] = [scale.volume([p for when, p in points if when <= m], kind == "linear") for m in moments]
    return found


def interval(values: Sequence[float]) -> str:
    """Return the mean's 95 % bootstrap interval, as text."""
    generator = np.random.default_rng(0)
    means = generator.choice(np.array(values), (2000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{low:.3f}..{high:.3f}"


def main() -> None:
    """Search, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("lcbench", "ecnas", "networks"))
    parser.add_argument("--tasks", type=int, default=34, help="of LCBench, evenly")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trainings", type=float, default=25.0)
    parser.add_argument("--hours", type=float, default=0.25, help="of a search of real networks")
    parser.add_argument("--data", default="../shared/data/fashion", help="of real networks")
    parser.add_argument("--algorithms", nargs="+", default=[*PEERS, *OURS])
    arguments = parser.parse_args()
    mode, seeds = arguments.mode, range(arguments.seeds)
    tasks = [""]
    if mode == "lcbench":
        tasks = [lcbench().tasks[n] for n in np.linspace(0, 33, arguments.tasks).round().astype(int)]
    length = arguments.hours if mode == "networks" else arguments.trainings
    kept = Path(__file__).parents[2] / "runs" / f"objectives-{mode}-{length:g}.jsonl"
    kept.parent.mkdir(exist_ok=True)
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in kept.read_text().splitlines() if kept.exists() else ():
        algorithm, task, seed, values = json.loads(line)
        found[algorithm, task, seed] = values
    cases = list(product(seeds, tasks, arguments.algorithms))
    with kept.open("a") as file:
        for number, (seed, task, algorithm) in enumerate(cases, 1):
            if (algorithm, task, seed) in found:
                continue
            if mode == "networks":
                values = networks(algorithm, seed, length, arguments.data)
            else:
                values = search(mode, algorithm, task, seed, length)
            found[algorithm, task, seed] = values
            file.write(json.dumps([algorithm, task, seed, values]) + "\n")
            file.flush()
            print(f"\r{number} of {len(cases)} searches", end="", file=sys.stderr)
    print(file=sys.stderr)
    pairs = list(product(tasks, seeds))

    def figure(algorithm: str, kind: str, last: bool) -> list[float]:
        curves = [found[algorithm, task, seed][kind] for task, seed in pairs]
        return [curve[-1] if last else statistics.mean(curve) for curve in curves]

    rows: list[dict[str, object]] = []
    figures = [("mean", "log", False), ("last", "log", True), ("linear mean", "linear", False)]
    peers = [peer for peer in PEERS if peer in arguments.algorithms]
    for algorithm in arguments.algorithms:
        row: dict[str, object] = {"algorithm": algorithm}
        for title, kind, last in figures:
            values = figure(algorithm, kind, last)
            row |= {title: statistics.mean(values), f"{title} 95 %": interval(values)}
            if peers and algorithm not in peers:
                best = max((figure(peer, kind, last) for peer in peers), key=statistics.mean)
                row[f"{title} gain"] = interval([a - b for a, b in zip(values, best, strict=True)])
        row["trials"] = statistics.mean(found[algorithm, task, seed]["trials"] for task, seed in pairs)
        rows.append(row)
    settings = {"tasks": len(tasks), "seeds": arguments.seeds, "workers": WORKERS}
    settings |= {"hours": length} if mode == "networks" else {"trainings": length}
    note = "hypervolume, more is better; gain: 95 % interval of the difference to the best of nsga2, tpe and plain"
    record(f"search-objectives-{mode}", settings, rows, note)


if __name__ == "__main__":
    main()
