"""Share of slot time spent training: in virtual time from 1 to 1,024 workers, and in real time on the local pool.

    python benchmarks/search/occupancy.py [--quick] [--task N] [--minutes M] [--data ../shared/data]

Simulated on LCBench curves: `occupancy` of hyperband for the time of ten full trainings, with idle time before the
deadline included; `speed-up / workers` with ten trials per worker, while trials remain to start; and `to the very
end`, when the last promotions leave most slots idle. Real: `ripieno tune` with its defaults on 5,000 images of
Fashion-MNIST, 2 local slots, a time limit. It counts from the call to the deadline, so that data preparation, worker
start and slots without a job before the deadline are idle time; `members/h` are stored networks. The paper's table 1
reports 33 to 62 % for its Hyperband on 6 GPUs and more.
Writes benchmarks/results/search-occupancy.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "house"))
sys.path.insert(0, str(Path(__file__).parent))
from lcbench import EPOCHS, LCBench
from quality import full_seconds
from record import record
from search import fashion  # type: ignore[attr-defined]

import ripieno
from ripieno.search import Settings, Snapshot, simulate


def real(data: Path, minutes: float) -> dict[str, object]:
    """Measure the slot time of a real search, from the call to its deadline."""
    trained, failures, slots = 0.0, 0, 2

    def watch(snapshot: Snapshot) -> None:
        nonlocal trained, failures
        trained += sum(o.finished - o.started for o in snapshot.finished)
        failures = snapshot.failures

    x, y = fashion(data)
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        library = ripieno.tune((x, y), Path(folder) / "run", hours=minutes / 60, slots=slots, free="off", watch=watch)
        took = time.time() - started
        stops = [m.epoch for m in library.members()]
    return {
        "where": "local, Fashion-MNIST",
        "workers": slots,
        "jobs": len(stops),
        "occupancy": trained / slots / max(took, 60 * minutes),
        "seconds": took,
        "members/h": len(stops) / took * 3600,
        "failures": failures,
    }


def main() -> None:
    """Simulate, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
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
    rows.append(real(arguments.data, minutes))
    name = "search-occupancy" + ("-quick" if arguments.quick else "")
    record(name, {"task": task, "minutes": minutes}, rows, "the paper's Hyperband: 0.33 to 0.62 (table 1)")


if __name__ == "__main__":
    main()
