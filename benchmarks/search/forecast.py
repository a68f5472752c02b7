"""Error of the forecast of a search's lowest loss: simulated searches on the tasks of LCBench.

    python benchmarks/search/forecast.py [--seeds N] [--tasks N] [--workers N] [--trainings N]

When a share of the jobs of a Hyperband search has ended, the lowest loss at its end is predicted. The errors are
relative to the lowest loss that it had at its end. `so far` takes the lowest loss at that time for the forecast; it
also stands for a forecast where there is none. Writes benchmarks/results/search-forecast.{json,txt}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
from lcbench import EPOCHS, LCBench
from record import record

from ripieno.search import Settings, simulate
from ripieno.search.forecast import predict_best_loss

SHARES = (0.1, 0.15, 0.25, 0.35)


def main() -> None:
    """Simulate, forecast, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=34)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--trainings", type=float, default=7.0)
    arguments = parser.parse_args()
    bench = LCBench()
    errors: dict[float, list[tuple[float, float]]] = {share: [] for share in SHARES}
    for task in bench.tasks[: arguments.tasks]:
        curve = bench.curve(task)
        full = simulate(Settings(bench.space, "random", epochs=EPOCHS, trials=31, seed=99), curve, 1)
        seconds = arguments.trainings * statistics.median(o.finished - o.started for o in full.outcomes)
        for seed in range(arguments.seeds):
            settings = Settings(bench.space, epochs=EPOCHS, seed=seed)
            run = simulate(settings, curve, arguments.workers, seconds=seconds)
            losses = [o.member.losses[settings.metric] for o in run.outcomes if o.member is not None]
            lowest = list(accumulate(losses, min))
            for share in SHARES:
                known = lowest[: max(1, int(share * len(lowest)))]
                predicted = predict_best_loss(known, share) or known[-1]
                errors[share].append((predicted / lowest[-1] - 1, known[-1] / lowest[-1] - 1))
    rows = []
    for share, found in errors.items():
        row: dict[str, object] = {"jobs ended": f"{share:.0%}"}
        for name, column in zip(("forecast", "so far"), zip(*found, strict=True), strict=True):
            size = [abs(error) for error in column]
            row |= {f"{name}: median": statistics.median(size), f"{name}: mean": statistics.fmean(size)}
        rows.append({**row, "forecast too low": sum(error < 0 for error, _ in found) / len(found)})
    settings_of = {k: getattr(arguments, k) for k in ("seeds", "tasks", "workers", "trainings")}
    record("search-forecast", settings_of, rows, "absolute relative error of the lowest loss at the end")


if __name__ == "__main__":
    main()
