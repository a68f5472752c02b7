"""Quality of the search algorithms: simulated searches on the 34 tasks of LCBench, equal virtual time.

    python benchmarks/search/quality.py [--quick] [--seeds N] [--tasks N] [--half H] [--workers N] [--algorithms ...]

Per task and seed every algorithm gets the same time on the same number of workers: `--trainings` times a median full
training of that task, for each worker. The table reports the best validation cross-entropy, the mean of the ten
best trials (each at its best rung: rungs of one trial are not ten networks), trials and members in the library. Each
is the mean over tasks of its value relative to random search, with a 95 % bootstrap interval over tasks, and
Wilcoxon's signed-rank test against hyperband over tasks. Simulated time counts training and the search's own decisions,
by the processor time that they take here. The model-based algorithms are slow (gp, smac): about 100 minutes of one core
in all. Constants of algorithms are tuned on the even tasks (`--half even`) and judged on the odd ones. Writes
benchmarks/results/search-quality.{json,txt}, of a half search-quality-HALF.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from lcbench import EPOCHS, LCBench
from record import record
from scipy.stats import wilcoxon

from ripieno.search import Settings, simulate

OURS = ("asha", "asha-stopping+random", "hyperband-stopping+random", "hyperband+forest", "asha+forest")
"""Algorithms not in the paper: one bracket, trials stopped for good instead of paused, the sampler `forest`."""
HALVES = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
PAPER = ("random", "hyperband", "gp", "bohb", "smac", "tpe", "genetic")


@dataclass(frozen=True)
class Found:
    """Result of one search."""

    best: float
    top: float
    """of the ten best trials"""
    trials: int
    """with a member in the library"""
    members: int
    occupancy: float


@cache
def bench() -> LCBench:
    """Return the surrogate, loaded once per process."""
    return LCBench()


@cache
def full_seconds(task: str) -> float:
    """Return the seconds of a median full training of `task`, over random configurations."""
    run = simulate(Settings(bench().space, "random", epochs=EPOCHS, trials=31, seed=99), bench().curve(task), 1)
    return statistics.median(o.finished - o.started for o in run.outcomes)


def search(case: tuple[str, str, int, int, float]) -> Found:
    """Search `task` by `algorithm` with `seed`."""
    algorithm, task, seed, workers, trainings = case
    settings = Settings(bench().space, algorithm, epochs=EPOCHS, seed=seed)
    seconds, curve = trainings * full_seconds(task), bench().curve(task)
    run = simulate(settings, curve, workers, seconds=seconds, decision_clock=time.process_time)
    summary = run.summary
    assert summary.best_loss is not None
    assert summary.top_loss is not None
    trials = len({o.job.trial for o in run.outcomes if o.member is not None and o.member.epoch == o.job.stop})
    return Found(summary.best_loss, summary.top_loss, trials, summary.members, summary.occupancy)


Run = tuple[str, str, int]
"""Algorithm, task, seed."""


def searched(runs: list[Run], workers: int, trainings: float, processes: int) -> dict[Run, Found]:
    """Run the searches; return the result of each.

    Results of an earlier call are read from runs/, so that hours can be split.
    """
    kept = Path(__file__).parents[2] / "runs" / f"search-quality-decided-{workers}-{trainings:g}.jsonl"
    kept.parent.mkdir(exist_ok=True)
    found: dict[Run, Found] = {}
    if kept.exists():
        for line in kept.read_text().splitlines():
            algorithm, task, seed, *values = json.loads(line)
            found[algorithm, task, seed] = Found(*values)
    left = [run for run in runs if run not in found]
    with ProcessPoolExecutor(processes) as executor, kept.open("a") as file:
        cases = [(*run, workers, trainings) for run in left]
        for number, (run, one) in enumerate(zip(left, executor.map(search, cases, chunksize=4), strict=True), 1):
            found[run] = one
            file.write(json.dumps([*run, *astuple(one)]) + "\n")
            file.flush()
            print(f"\r{number} of {len(left)} searches", end="" if number < len(left) else "\n", file=sys.stderr)
    return found


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Return the mean's 95 % bootstrap interval, as text."""
    generator = np.random.default_rng(0)
    means = generator.choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{low:.3f}..{high:.3f}"


def main() -> None:
    """Search, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--half", choices=HALVES, default="all")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--trainings", type=float, default=7.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--algorithms", nargs="+", default=[*PAPER, *OURS])
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.tasks = 1, 3
        arguments.algorithms = [a for a in arguments.algorithms if a not in ("gp", "smac")]
    tasks = bench().tasks[HALVES[arguments.half]][: arguments.tasks]
    runs = [(a, t, s) for s, t, a in product(range(arguments.seeds), tasks, arguments.algorithms)]
    found = searched(runs, arguments.workers, arguments.trainings, arguments.processes)

    def of(algorithm: str, what: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the mean over seeds, per task."""
        seeds = range(arguments.seeds)
        means = [statistics.mean(float(getattr(found[algorithm, t, s], what)) for s in seeds) for t in tasks]
        return np.array(means)

    rows: list[dict[str, object]] = []
    for algorithm in arguments.algorithms:
        row: dict[str, object] = {"algorithm": algorithm}
        for what in ("best", "top", "trials", "members"):
            relative = of(algorithm, what) / of("random", what)
            row |= {what: float(relative.mean()), f"{what} 95 %": interval(relative)}
            if "hyperband" in arguments.algorithms and algorithm != "hyperband" and len(tasks) > 5:
                row[f"{what} p"] = float(wilcoxon(of(algorithm, what), of("hyperband", what)).pvalue)
        row["occupancy"] = float(of(algorithm, "occupancy").mean())
        rows.append(row)
    half = "" if arguments.half == "all" else f"-{arguments.half}"
    name = "search-quality" + half + ("-quick" if arguments.quick else "")
    settings = {k: getattr(arguments, k) for k in ("seeds", "half", "workers", "trainings")} | {"tasks": len(tasks)}
    note = "relative to random search; below 1 is better for best and top (of trials), above for trials and members"
    record(name, settings, rows, note)


if __name__ == "__main__":
    main()
