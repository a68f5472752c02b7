"""Warm start: what a search gains that learns from searches of other tasks.

    python benchmarks/search/warm_start.py [--quick] [--seeds N] [--tasks N] [--algorithms asha hyperband forest]
    python benchmarks/search/warm_start.py --real a.npz b.npz c.npz [--trials N] [--epochs N] [--seeds N]

On the 34 tasks of LCBench, one left out at a time, by the real driver in virtual time. The history is one search of
each other task by hyperband. A warm search and a cold one have the same algorithm, seed, workers and time:
`--trainings` times a median full training for each worker. "share" is the part of that time after which the warm search
has a loss as low as the cold one's at its end; 1 where it never has. "end" is the warm search's loss at its end by the
cold one's.
Simulated time counts training, not decisions. A second table has the regret (0 the best of 400 random configurations of
the task, 1 their median) after 1 to 32 full trainings: in random order, of the greedy portfolio of all losses of the
other tasks, and of the portfolio that their searches give, which trained other configurations each.

With `--real` the tasks are data sets: a cold search of each, and one with the history of the others (`--from`). Trials
run in this process, so that times are those of one worker. "share" counts the seconds that trials trained.

Results of an earlier call are read from runs/, so that hours can be split; the table has the number of pairs of
searches of each algorithm. Writes benchmarks/results/search-warm-start.{json,txt}, of `--real`
search-warm-start-real.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from lcbench import EPOCHS
from quality import bench, full_seconds, interval
from record import record

from ripieno.search import Settings, Simulation, simulate
from ripieno.search.encoding import Encoding
from ripieno.search.portfolio import SIZE, PastModel, greedy_portfolio, make_warm_start, normalized, rated_portfolio
from ripieno.search.space import distributions
from ripieno.search.warm_start import COLD, PastResult, PastSearch, PastTrial, WarmStart
from ripieno.types import Configuration

KEPT = Path(__file__).parents[2] / "runs" / "search-warm-start.jsonl"
WORKERS, TRAININGS = 6, 7.0
HISTORY_SEED = 1000
RANDOM = 400
AFTER = (1, 2, 4, 8, 16, 32)
"""Numbers of trainings after which regrets are shown."""


def searched(task: str, algorithm: str, seed: int, warm_start: WarmStart = COLD) -> Simulation:
    """Search `task` in virtual time."""
    settings = Settings(bench().space, algorithm, epochs=EPOCHS, seed=seed)
    seconds = TRAININGS * full_seconds(task)
    return simulate(settings, bench().curve(task), WORKERS, seconds=seconds, warm_start=warm_start)


@cache
def past_model(task: str) -> PastModel:
    """Return the model of the search of `task` that is in the history of the others."""
    found: dict[int, tuple[Configuration, list[PastResult]]] = {}
    for outcome in searched(task, "hyperband", HISTORY_SEED + bench().tasks.index(task)).outcomes:
        job, member = outcome.job, outcome.member
        if member is not None and member.epoch == job.stop:
            values = {name: job.configuration[name] for name in bench().space.ranges}
            result = PastResult(job.stop, member.losses["valid_cross_entropy"], outcome.finished - outcome.started)
            found.setdefault(job.trial, (values, []))[1].append(result)
    trials = tuple(PastTrial(values, tuple(results)) for values, results in found.values())
    return PastModel(bench().space, PastSearch(task, bench().space, trials))


@cache
def warm_start(left_out: str) -> WarmStart:
    """Return the warm start of a search of one task from the searches of all others."""
    return make_warm_start([past_model(task) for task in bench().tasks if task != left_out], EPOCHS, None)


def course(run: Simulation) -> list[tuple[float, float]]:
    """Return (time, loss) of each result of a search, in order."""
    ended = (o for o in run.outcomes if o.member is not None)
    return sorted((o.finished, o.member.losses["valid_cross_entropy"]) for o in ended if o.member is not None)


def reached(points: Sequence[tuple[float, float]], loss: float) -> float | None:
    """Return the first time at which a search has a loss of at most `loss`; None: never."""
    return next((time for time, found in points if found <= loss), None)


def compared(case: tuple[str, str, int]) -> dict[str, float]:
    """Search a task cold and warm; return the share of the time and the losses at the end."""
    algorithm, task, seed = case
    cold, warm = course(searched(task, algorithm, seed)), course(searched(task, algorithm, seed, warm_start(task)))
    end = min(loss for _, loss in cold)
    time, seconds = reached(warm, end), TRAININGS * full_seconds(task)
    own = reached(cold, end)
    assert own is not None
    return {
        "share": 1.0 if time is None else time / seconds,
        "reached": float(time is not None),
        "cold share": own / seconds,
        "end": min(loss for _, loss in warm) / end,
    }


def simulated(arguments: argparse.Namespace) -> None:
    """Run the searches that are left, and write the table of all that are known."""
    KEPT.parent.mkdir(exist_ok=True)
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    if KEPT.exists() and not arguments.quick:
        for line in KEPT.read_text().splitlines():
            algorithm, task, seed, values = json.loads(line)
            found[algorithm, task, seed] = values
    tasks = bench().tasks[: arguments.tasks]
    cases = [(a, t, s) for s, a, t in product(range(arguments.seeds), arguments.algorithms, tasks)]
    left = [case for case in cases if case not in found]
    for number, case in enumerate(() if arguments.table else left, 1):
        found[case] = compared(case)
        if not arguments.quick:
            with KEPT.open("a") as file:
                file.write(json.dumps([*case, found[case]]) + "\n")
        print(f"\r{number} of {len(left)} pairs of searches", end="" if number < len(left) else "\n", file=sys.stderr)
    rows: list[dict[str, object]] = []
    for algorithm in arguments.algorithms:
        known = {case: v for case, v in found.items() if case[0] == algorithm and case[2] < arguments.seeds}
        by_task = [[v for (_, t, _), v in known.items() if t == task] for task in tasks]
        of = [one for one in by_task if one]  # a call that was stopped leaves some out
        means = {name: np.array([statistics.mean(o[name] for o in one) for one in of]) for name in of[0][0]}
        rows.append(
            {
                "algorithm": algorithm,
                "tasks": len(of),
                "pairs": sum(map(len, of)),
                "share": float(means["share"].mean()),
                "share 95 %": interval(means["share"]),
                "median share": statistics.median(o["share"] for one in of for o in one),
                "reached": float(means["reached"].mean()),
                "cold reaches it at": float(means["cold share"].mean()),
                "end": float(means["end"].mean()),
                "end 95 %": interval(means["end"]),
            }
        )
    settings: dict[str, object] = {"workers": WORKERS, "trainings": TRAININGS, "portfolio": SIZE}
    regret_rows = regrets()
    note = "regret of the first trainings: " + "; ".join(
        f"{row['of']} " + ", ".join(f"{row[f'after {n}']:.2f}" for n in AFTER) for row in regret_rows
    )
    name = "search-warm-start" + "-quick" * arguments.quick
    record(name, settings, rows, f"{note} (after {', '.join(map(str, AFTER))})")


def regrets() -> list[dict[str, object]]:
    """Return the regrets of the first trainings, means over the tasks."""
    space, tasks = bench().space, bench().tasks
    encoding, random = Encoding(distributions(space)), np.random.default_rng(0)
    configurations = [encoding.values(row) for row in encoding.draw(RANDOM, random)]

    def lost(task: str, values: Configuration) -> float:
        return bench().curve(task)(values, EPOCHS)[0]

    table = np.array([[lost(task, values) for values in configurations] for task in tasks])
    best, median = table.min(axis=1), np.median(table, axis=1)
    unit = np.stack([normalized(row, b, m) for row, b, m in zip(table, best, median, strict=True)])
    courses: dict[str, list[list[float]]] = {"random": [], "portfolio of all losses": [], "portfolio of searches": []}
    for left_out, task in enumerate(tasks):
        own = (table[left_out] - best[left_out]) / (median[left_out] - best[left_out])
        draws = np.stack([np.minimum.accumulate(own[random.permutation(RANDOM)]) for _ in range(100)]).mean(axis=0)
        courses["random"].append([float(draws[n - 1]) for n in AFTER])
        chosen = greedy_portfolio(np.delete(unit, left_out, axis=0), max(AFTER))
        courses["portfolio of all losses"].append(_after(own[chosen]))
        models = [past_model(other) for other in tasks if other != task]
        losses = np.array([lost(task, values) for values, _ in rated_portfolio(models, max(AFTER))])
        courses["portfolio of searches"].append(_after((losses - best[left_out]) / (median[left_out] - best[left_out])))
    return [
        {"of": name, **{f"after {n}": float(mean) for n, mean in zip(AFTER, np.mean(found, axis=0), strict=True)}}
        for name, found in courses.items()
    ]


def _after(losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    return [float(losses[:n].min()) for n in AFTER]


def real(arguments: argparse.Namespace) -> None:
    """Search each data set cold and with the history of the others; write the table."""
    from ripieno.pipeline import tune
    from ripieno.pipeline.history import record_of_run

    folder = Path(arguments.runs or tempfile.mkdtemp(prefix="warm-start-"))

    def run_of(data: Path, seed: int, kind: str) -> Path:
        return folder / f"{data.stem}-{seed}-{kind}"

    def trained(run: Path) -> list[tuple[float, float]]:
        """Return (seconds trained so far, loss) of the results of a run in their order; of a failure, no loss."""
        from ripieno.search.journal import JobFinished, Journal
        from ripieno.search.settings import kept_settings

        settings = kept_settings(run / "run.json")
        assert settings is not None
        journal = Journal(run / "journal.log", settings.space, "random", settings.seed)
        found, seconds = [], 0.0
        for event in journal.events():
            if isinstance(event, JobFinished):
                seconds += event.seconds
                found += [(seconds, event.loss)] if event.loss is not None else []
        return found

    common = {"trials": arguments.trials, "epochs": arguments.epochs, "space": arguments.space, "pool": "inline"}
    rows: list[dict[str, object]] = []
    for seed, algorithm in product(range(arguments.seeds), arguments.algorithms):
        for data in arguments.real:
            tune(data, run_of(data, seed, algorithm), algorithm=algorithm, seed=seed, free="off", **common)
            print(f"{data.stem}, seed {seed}, {algorithm}, cold: done", file=sys.stderr)
        for data in arguments.real:
            others = [run_of(other, seed, algorithm) for other in arguments.real if other != data]
            run = run_of(data, seed, f"{algorithm}-warm")
            tune(data, run, algorithm=algorithm, seed=seed, free="off", from_=others, **common)
            cold, warm = trained(run_of(data, seed, algorithm)), trained(run)
            end, time = min(loss for _, loss in cold), reached(warm, min(loss for _, loss in cold))
            rows.append(
                {
                    "data": data.stem,
                    "algorithm": algorithm,
                    "seed": seed,
                    "share": 1.0 if time is None else time / cold[-1][0],
                    "reached": time is not None,
                    "cold": end,
                    "warm": min(loss for _, loss in warm),
                    "cold seconds": cold[-1][0],
                    "warm seconds": warm[-1][0],
                    "history trials": sum(len(record_of_run(other).trials) for other in others),
                }
            )
            print(f"{data.stem}, seed {seed}, {algorithm}, warm: done", file=sys.stderr)
    settings = {name: getattr(arguments, name) for name in ("seeds", "trials", "epochs", "space")}
    record("search-warm-start-real", settings, rows, "share of the cold search's training seconds; smaller is better")


def main() -> None:
    """Search, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--algorithms", nargs="+", default=["asha", "hyperband", "forest"])
    parser.add_argument("--table", action="store_true", help="only write the table of what is known")
    parser.add_argument("--real", nargs="+", type=Path, metavar="DATA", help="data sets, in place of LCBench")
    parser.add_argument("--trials", type=int, default=40, help="of each real search")
    parser.add_argument("--epochs", type=int, default=9, help="of each real search")
    parser.add_argument("--space", default="resnet-small", help="of each real search")
    parser.add_argument("--runs", help="folder that keeps real searches, to resume them; a temporary one without it")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.tasks = 1, 3
    (real if arguments.real else simulated)(arguments)


if __name__ == "__main__":
    main()
