"""Overhead of a job: no-op jobs through each pool, alone and within the whole search.

    python benchmarks/search/overhead.py [--quick] [--jobs N] [--slots N] [--no-ray]

`pool` submits jobs and takes results. `search` also writes them to the journal, with hyperband: a job waits for the
disk (a row of its own) before it starts. The last row keeps 1,000 simulated workers busy in real time, with epochs
of 3 s. For comparison: Optuna's own `optimize` on its journal file, and Ray Tune's no-op ASHA, with reused actors and
without, if it is installed (`pip install 'ray[tune]' -c constraints.txt`).
Rounds alternate between the rows. Writes benchmarks/results/search-overhead.{json,txt}.
"""

from __future__ import annotations

import argparse
import heapq
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import jobs
from record import record

from ripieno.cluster import InlinePool, LocalPool, Pool, RayPool
from ripieno.library import Library
from ripieno.search import Continuous, Settings, Space, run_search
from ripieno.types import Job, JobResult

SPACE = Space("one", "none", {"rate": Continuous(0.0, 1.0)})


class TimedPool:
    """Simulated workers in real time: a job ends at its time, without a thread.

    A thousand threads would measure how Python shares one interpreter.
    """

    def __init__(self, slots: int, epoch: float) -> None:
        self.slots = slots
        self.spans: list[tuple[float, float]] = []
        self._epoch = epoch
        self._running: list[tuple[float, int, float, Job]] = []  # a heap ordered by end time

    def submit(self, job: Job) -> None:
        """Start `job`: a search in arrival order submits at most one job per slot."""
        assert len(self._running) < self.slots
        now = time.time()
        end = now + self._epoch * (job.stop - job.start)
        heapq.heappush(self._running, (end, len(self.spans), now, job))
        self.spans.append((now, end))

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Return all finished jobs, at least one."""
        left = self._running[0][0] - time.time() if self._running else 0.0
        time.sleep(max(0.0, min(left, 60 if timeout is None else timeout)))
        now, ended = time.time(), []
        while self._running and self._running[0][0] <= now:
            end, _, started, job = heapq.heappop(self._running)
            ended.append(JobResult(job, jobs.nothing(job).member, None, 0, started, end))
        return ended

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Discard the running jobs."""
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def alone(pool: Pool, count: int) -> float:
    """Return milliseconds per job, with a queue ahead."""
    started, left, next_job = time.perf_counter(), count, 0
    for next_job in range(min(count, 2 * pool.slots)):
        pool.submit(Job(next_job, {"rate": 0.5}, 0, 1))
    while left:
        for _ in pool.wait(60):
            left -= 1
            next_job += 1
            if next_job < count:
                pool.submit(Job(next_job, {"rate": 0.5}, 0, 1))
    return (time.perf_counter() - started) / count * 1000


def searched(pool: Pool, count: int, order: str) -> float:
    """Return milliseconds per job of a search of `count` trials."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(SPACE, trials=count, epochs=27, order=order)  # type: ignore[arg-type]
        started = time.perf_counter()
        summary = run_search(Library(folder), settings, pool)
        return (time.perf_counter() - started) / summary.jobs * 1000


def thousand(seconds: float, epoch: float) -> dict[str, object]:
    """Run a thousand workers in real time, with `epoch` seconds per epoch.

    `busy` covers the middle half of the time.
    """
    with tempfile.TemporaryDirectory() as folder, TimedPool(1000, epoch) as pool:
        started = time.time()
        summary = run_search(Library(folder), Settings(SPACE, epochs=9), pool, deadline=started + seconds)
        first, last = started + seconds / 4, started + 3 * seconds / 4
        busy = sum(max(0.0, min(end, last) - max(start, first)) for start, end in pool.spans) / (last - first) / 1000
        return {"what": "1,000 workers", "jobs/s": summary.jobs / summary.seconds, "busy": busy, "jobs": summary.jobs}


def disk(count: int) -> float:
    """Return the milliseconds to write a journal-sized line to disk."""
    with tempfile.NamedTemporaryFile(buffering=0) as stream:
        started = time.perf_counter()
        for _ in range(count):
            stream.write(b"x" * 400)
            os.fdatasync(stream.fileno())
        return (time.perf_counter() - started) / count * 1000


def optuna_itself(count: int) -> float:
    """Return milliseconds per trial of Optuna's own loop with its journal file, one report per trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        loss = trial.suggest_float("rate", 0, 1)
        trial.report(loss, 1)
        return loss

    with tempfile.TemporaryDirectory() as folder:
        storage = JournalStorage(JournalFileBackend(f"{folder}/journal"))
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(0))
        started = time.perf_counter()
        study.optimize(objective, n_trials=count)
        return (time.perf_counter() - started) / count * 1000


def tune_itself(count: int, slots: int, reuse: bool) -> float:
    """Return milliseconds per no-op trial of Ray Tune under its ASHA, on its own cluster.

    A bare `init` would connect to any existing cluster.
    """
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trainable(config: dict[str, float]) -> None:
        tune.report({"loss": config["rate"], "training_iteration": 1})

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            tuner = tune.Tuner(
                trainable,
                param_space={"rate": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(
                    num_samples=count,
                    scheduler=ASHAScheduler(metric="loss", mode="min", max_t=27),
                    reuse_actors=reuse,
                ),
                run_config=tune.RunConfig(verbose=0, storage_path=folder),
            )
            started = time.perf_counter()
            tuner.fit()
            return (time.perf_counter() - started) / count * 1000
        finally:
            ray.shutdown()


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--no-ray", action="store_true")
    arguments = parser.parse_args()
    count = arguments.jobs or (100 if arguments.quick else 1000)
    rounds = 1 if arguments.quick else 5
    makers: dict[str, Callable[[], Pool]] = {
        "inline": partial(InlinePool, jobs.nothing),
        "local": partial(LocalPool, jobs.nothing, arguments.slots),
    }
    if not arguments.no_ray:
        makers["ray"] = partial(RayPool, jobs.nothing, "local", slots=arguments.slots)
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, make in makers.items():
            with make() as pool:
                alone(pool, 4 * pool.slots)  # start the workers
                times.setdefault(f"{name}: pool", []).append(alone(pool, count))
                for order in ("virtual", "arrival"):
                    times.setdefault(f"{name}: search, {order}", []).append(searched(pool, count, order))
        times.setdefault("a line to disk", []).append(disk(count // 10))
        times.setdefault("Optuna's optimize", []).append(optuna_itself(count))
    note = ""
    if not arguments.no_ray:
        try:
            for name, share, reuse in (("Ray Tune, reused actors", 2, True), ("Ray Tune", 20, False)):
                each = max(2 * arguments.slots, count // share)
                times[name] = [tune_itself(each, arguments.slots, reuse) for _ in range(min(rounds, 2))]
        except ImportError as error:
            note = f"Ray Tune left out (pip install 'ray[tune]' -c constraints.txt): {error}"
    rows: list[dict[str, object]] = [
        {
            "what": name,
            "ms a job": statistics.median(found),
            "from": min(found),
            "to": max(found),
            "jobs/s": 1000 / statistics.median(found),
        }
        for name, found in times.items()
    ]
    rows.append(thousand(40 if arguments.quick else 120, 3.0))
    name = "search-overhead" + ("-quick" if arguments.quick else "")
    record(name, {"jobs": count, "slots": arguments.slots, "rounds": rounds}, rows, note)


if __name__ == "__main__":
    main()
