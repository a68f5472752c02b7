"""Share of slot-time spent training: in virtual time from 1 to 1,024 workers, and really on the local pool.

    python benchmarks/search/occupancy.py [--quick] [--task N] [--minutes M]

Simulated on LCBench curves: `occupancy` of hyperband for as long as ten full trainings take, what is left idle before
the deadline included; `speed-up / workers` with ten trials a worker, while there are trials to start, and `to the very
end`, when the last promotions leave most slots idle. Real: hyperband on jobs that sleep
0.2 to 5 s, on 2 local slots. The paper's table 1 reports 33 to 62 % for its Hyperband on 6 GPUs and more.
Writes benchmarks/results/search-occupancy.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import jobs
from lcbench import EPOCHS, LCBench
from overhead import SPACE
from quality import full_seconds
from record import record

from ripieno.cluster import LocalPool
from ripieno.library import Library
from ripieno.search import Settings, run_search, simulate


def main() -> None:
    """Simulate, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    bench = LCBench()
    task = bench.tasks[arguments.task]
    rows: list[dict[str, object]] = []
    for workers in (1, 6, 64, 256) if arguments.quick else (1, 2, 6, 16, 64, 256, 1024):
        curve = bench.curve(task)
        settings = Settings(bench.space, "hyperband", epochs=EPOCHS)
        run = simulate(settings, curve, workers, seconds=10 * full_seconds(task))
        settings = replace(settings, trials=10 * workers)
        bounded = simulate(settings, curve, workers)
        last = max(o.started for o in bounded.outcomes if o.job.start == 0)
        work = sum(min(o.finished, last) - o.started for o in bounded.outcomes if o.started < last)
        rows.append(
            {
                "where": "simulated",
                "workers": workers,
                "jobs": run.summary.jobs,
                "occupancy": run.summary.occupancy,
                "speed-up / workers": work / last / workers if last else 1.0,
                "to the very end": sum(o.finished - o.started for o in bounded.outcomes) / bounded.seconds / workers,
            }
        )
    minutes = 0.3 if arguments.quick else arguments.minutes
    with tempfile.TemporaryDirectory() as folder, LocalPool(partial(jobs.sleep, 0.2), 2) as pool:
        summary = run_search(Library(folder), Settings(SPACE, epochs=27), pool, deadline=time.time() + 60 * minutes)
    rows.append({"where": "local, sleeping", "workers": 2, "jobs": summary.jobs, "occupancy": summary.occupancy})
    name = "search-occupancy" + ("-quick" if arguments.quick else "")
    record(name, {"task": task, "minutes": minutes}, rows, "the paper's Hyperband: 0.33 to 0.62 (table 1)")


if __name__ == "__main__":
    main()
