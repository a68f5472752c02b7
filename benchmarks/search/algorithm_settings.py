"""Settings of the search algorithm, optimised on one half of LCBench's tasks and judged on the other half.

    python benchmarks/search/algorithm_settings.py [--quick] [--trials N] [--seeds N] [--workers N] [--trainings T]

The search is our own: a trial is an `Algorithm`, drawn from the space below, its epochs are tasks of the first half
(those of even number), and its loss is the mean over them of log(loss / random search's), of the best trial and of the
ten best alike. ASHA gives more tasks to the better third. The best of the algorithms that saw all tasks of the half is
judged on the tasks of the other half, with other seeds, next to the algorithms that have names. Nothing of that half
is looked at before. Searches are those of quality.py: equal virtual time, in which only training counts; the
processor's time of a search, its sampler included, is a column of its own.

Results are kept in runs/, so that an interrupted call goes on. Writes
benchmarks/results/search-algorithm-settings.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from lcbench import EPOCHS
from quality import bench, full_seconds, interval
from record import record
from scipy.stats import wilcoxon

from ripieno.search import (
    Algorithm,
    Categorical,
    Continuous,
    Integer,
    Settings,
    Space,
    find_algorithm,
    simulate,
)
from ripieno.search.algorithms import algorithm_to_plain
from ripieno.types import Configuration

NAMED = ("hyperband", "asha", "bohb", "forest", "random")
"""Algorithms that the best settings are judged against."""
JUDGE_SEED = 100
"""First seed of the judging searches; those of the optimisation are below."""
Score = tuple[float, float, int, float]
"""Loss of the best trial, mean loss of the ten best, trials with a member, seconds of the processor."""


def space() -> Space:
    """Return the space of algorithms; options that a sampler does not have decide nothing."""
    ranges = {
        "brackets": Categorical(("all", "one")),
        "rule": Categorical(("promotion", "stopping")),
        "step": Continuous(1.5, 6.0, log=True),
        "keep": Integer(2, 6),
        "sampler": Categorical(("random", "multivariate-tpe", "forest")),
        "random_share": Continuous(0.0, 0.6),
        "candidates": Integer(8, 400, log=True),
    }
    return Space("algorithms", "none", ranges)


def algorithm_of(configuration: Configuration) -> Algorithm:
    """Return the algorithm of a configuration of `space`, rounded to numbers that a person would write."""
    options = {name: configuration[name] for name in space().ranges}
    options |= {"step": round(options["step"], 1), "random_share": round(options["random_share"], 2)}
    if options["sampler"] == "random":
        options["random_share"] = 0.0
    if Algorithm(sampler=options["sampler"]).candidates is None:
        del options["candidates"]
    return Algorithm(**options)


class Scores:
    """Results of searches, kept in a file of JSON lines."""

    def __init__(self, path: Path, workers: int, trainings: float) -> None:
        self._path, self._workers, self._trainings = path, workers, trainings
        path.parent.mkdir(exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self._kept: dict[str, Score] = {key: tuple(score) for key, score in map(json.loads, lines)}

    def of(self, algorithm: Algorithm, task: str, seed: int) -> Score:
        """Return the result of one search, made now if it is not known."""
        plain = {name: value for name, value in algorithm_to_plain(algorithm).items() if name != "name"}
        key = json.dumps([plain, task, seed, self._workers, self._trainings])
        if key not in self._kept:
            settings = Settings(bench().space, algorithm, epochs=EPOCHS, seed=seed)
            seconds = self._trainings * full_seconds(task)
            began = time.process_time()
            run = simulate(settings, bench().curve(task), self._workers, seconds=seconds)
            spent = time.process_time() - began
            best, top = run.summary.best_loss, run.summary.top_loss
            assert best is not None
            assert top is not None
            trials = len({o.job.trial for o in run.outcomes if o.member is not None})
            self._kept[key] = (best, top, trials, spent)
            with self._path.open("a") as file:
                file.write(json.dumps([key, self._kept[key]]) + "\n")
        return self._kept[key]

    def relative(self, algorithm: Algorithm, task: str, seed: int) -> float:
        """Return the mean of the logarithms of both losses, relative to random search."""
        own, random = self.of(algorithm, task, seed), self.of(find_algorithm("random"), task, seed)
        return sum(math.log(own[n] / random[n]) for n in (0, 1)) / 2


def optimise(scores: Scores, tasks: Sequence[str], trials: int) -> tuple[Algorithm, float, int]:
    """Search the best algorithm on `tasks`; return it, its loss, and the number of algorithms that saw all tasks."""
    ended: dict[str, tuple[float, Algorithm]] = {}
    number = 0

    def curve(configuration: Configuration, epoch: int) -> tuple[float, float]:
        nonlocal number
        algorithm = algorithm_of(configuration)
        loss = sum(scores.relative(algorithm, task, 0) for task in tasks[:epoch]) / epoch
        number += 1
        print(f"{number}: {loss:+.3f} on {epoch} tasks, {algorithm}", file=sys.stderr, flush=True)
        if epoch == len(tasks):
            ended[str(algorithm)] = (loss, algorithm)
        # a negative loss is as good as any: only the order counts
        return loss, float(epoch)

    simulate(Settings(space(), "asha", trials=trials, epochs=len(tasks), seed=1), curve, 1)
    loss, best = min(ended.values(), key=lambda entry: entry[0])
    return best, loss, len(ended)


def main() -> None:
    """Optimise on one half, judge on the other, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trials", type=int, default=40, help="algorithms drawn")
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--seeds", type=int, default=3, help="seeds that judge")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--trainings", type=float, default=7.0)
    given = parser.parse_args()
    if given.quick:
        given.trials, given.tasks, given.seeds, given.trainings = 6, 6, 1, 3.0
    tasks = bench().tasks[: given.tasks]
    seen, unseen = tasks[::2], tasks[1::2]
    name = "search-algorithm-settings" + ("-quick" if given.quick else "")
    kept = Path(__file__).parents[2] / "runs" / f"{name}.jsonl"
    scores = Scores(kept, given.workers, given.trainings)
    best, loss, whole = optimise(scores, seen, given.trials)

    judged = {"optimised": best} | {n: find_algorithm(n) for n in NAMED}

    def of(algorithm: Algorithm, what: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the mean over seeds, per task of the unseen half."""
        seeds = range(JUDGE_SEED, JUDGE_SEED + given.seeds)
        return np.array([np.mean([scores.of(algorithm, task, seed)[what] for seed in seeds]) for task in unseen])

    rows: list[dict[str, object]] = []
    for label, algorithm in judged.items():
        row: dict[str, object] = {"algorithm": label}
        for what, column in enumerate(("best", "top", "trials")):
            relative = of(algorithm, what) / of(judged["random"], what)
            row |= {column: float(relative.mean()), f"{column} 95 %": interval(relative)}
            if algorithm != judged["hyperband"] and len(unseen) > 5 and what < 2:
                row[f"{column} p"] = float(wilcoxon(of(algorithm, what), of(judged["hyperband"], what)).pvalue)
        row["processor s"] = float(of(algorithm, 3).mean())
        rows.append(row)
        print(label, row, file=sys.stderr, flush=True)
    settings = {k: getattr(given, k) for k in ("trials", "seeds", "workers", "trainings")}
    settings |= {"tasks seen": len(seen), "tasks judged": len(unseen)}
    note = (
        "relative to random search on the half that the optimisation did not see; below 1 is better for best and top "
        f"(of trials). optimised: {json.dumps(algorithm_to_plain(best))}; on its own half the two losses are "
        f"{math.exp(loss):.3f} of random search's (geometric mean), the least of {whole} algorithms that saw all of it"
    )
    record(name, settings, rows, note)


if __name__ == "__main__":
    main()
