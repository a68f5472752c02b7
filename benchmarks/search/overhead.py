"""What a job costs beside its training: no-op jobs through each pool, alone and under the whole search.

    python benchmarks/search/overhead.py [--quick] [--jobs N] [--slots N] [--no-ray]

`pool` hands jobs over and takes outcomes; `search` journals them to disk too, with hyperband. The last row keeps 1,000
workers busy that sleep in threads. Beside them Optuna's own `optimize` on its journal file, and Ray Tune's no-op ASHA
where Ray Tune is installed. Rounds alternate between the rows. Writes benchmarks/results/search-overhead.{json,txt}.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
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
from ripieno.search import Continuous, Settings, Snapshot, Space, run_search
from ripieno.types import Job, Outcome

SPACE = Space("one", "none", {"rate": Continuous(0.0, 1.0)})


class ThreadPool:
    """Slots that are threads: for a thousand workers on one machine."""

    def __init__(self, function: Callable[[Job], Outcome], slots: int) -> None:
        self.slots = slots
        self.busy = 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._function = function
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(slots)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = time.time()
            with self._lock:
                self.busy += 1
            outcome = self._function(job)
            with self._lock:
                self.busy -= 1
            self._outcomes.put(Outcome(job, outcome.member, None, 0, started, time.time()))

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        self._jobs.put(job)

    def wait(self, timeout: float | None = None) -> list[Outcome]:
        """All that have ended, one at least."""
        try:
            outcomes = [self._outcomes.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._outcomes.empty():
            outcomes.append(self._outcomes.get())
        return outcomes

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """End the threads."""
        for _ in self._threads:
            self._jobs.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def alone(pool: Pool, count: int) -> float:
    """Milliseconds a job, with a queue ahead."""
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
    """Milliseconds a job of a search of `count` trials."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(SPACE, trials=count, epochs=27, order=order)  # type: ignore[arg-type]
        started = time.perf_counter()
        summary = run_search(Library(folder), settings, pool)
        return (time.perf_counter() - started) / summary.jobs * 1000


def thousand(seconds: float, epoch: float) -> dict[str, object]:
    """A thousand workers in real time, whose epochs take `epoch` seconds each; busy in the middle half of the time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPool(partial(jobs.sleep, epoch), 1000) as pool:
        busy: list[tuple[float, int]] = []
        started = time.time()

        def watch(snapshot: Snapshot) -> None:
            busy.append((snapshot.seconds, pool.busy))

        settings = Settings(SPACE, epochs=9)
        summary = run_search(Library(folder), settings, pool, deadline=started + seconds, watch=watch)
        middle = [count for at, count in busy if seconds / 4 < at < 3 * seconds / 4]
        rate = summary.jobs / summary.seconds
        return {"what": "1,000 workers", "jobs/s": rate, "busy": statistics.mean(middle) / 1000, "jobs": summary.jobs}


def optuna_itself(count: int) -> float:
    """Optuna's own loop with its journal file, a trial a report."""
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


def tune_itself(count: int) -> float:
    """Ray Tune's no-op trial under its ASHA, with reused actors."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trainable(config: dict[str, float]) -> None:
        tune.report({"loss": config["rate"], "training_iteration": 1})

    tuner = tune.Tuner(
        trainable,
        param_space={"rate": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(
            num_samples=count, scheduler=ASHAScheduler(metric="loss", mode="min", max_t=27), reuse_actors=True
        ),
        run_config=tune.RunConfig(verbose=0, storage_path=tempfile.mkdtemp()),
    )
    started = time.perf_counter()
    tuner.fit()
    return (time.perf_counter() - started) / count * 1000


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
                alone(pool, 4 * pool.slots)  # let the workers be up
                times.setdefault(f"{name}: pool", []).append(alone(pool, count))
                for order in ("virtual", "arrival"):
                    times.setdefault(f"{name}: search, {order}", []).append(searched(pool, count, order))
        times.setdefault("Optuna's optimize", []).append(optuna_itself(count))
    note = ""
    if not arguments.no_ray:
        try:
            times["Ray Tune, reused actors"] = [tune_itself(count // 2) for _ in range(min(rounds, 2))]
        except ImportError as error:
            note = f"Ray Tune left out: {error}"
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
