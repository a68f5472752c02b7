"""What the live front costs: processor time of its thread in a search with hundreds of members, and of one selection.

    python benchmarks/search/live_front.py [--quick]

`search` runs a search of which the jobs only wait and write a member that was made before, on 4 slots: the processor
time of the front's thread by the time of the search, that of the whole process with and without a front, and how long
the search waits for the last front. Rounds with and without a front alternate. `selection` is one selection from so
many members with so many rows, in processor time; by default the thread rests 50 times as long after it. Writes
benchmarks/results/search-live-front.{json,txt}.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.library import Library
from ripieno.pipeline.live_front import SHARE, FrontThread
from ripieno.search import Continuous, Settings, Space, run_search
from ripieno.selection.growing_front import GrowingFront
from ripieno.tasks.registry import kind_of
from ripieno.types import Input, Job, JobResult, Member, classification

SPACE = Space("one", "none", {"rate": Continuous(0.0, 1.0)})
TASK = classification(tuple(f"class {n}" for n in range(10)))
SLOTS, ROWS = 4, 2000


class WaitingPool:
    """Simulated workers in real time: a job waits `seconds` and adds a member with random predictions."""

    def __init__(self, library: Library, seconds: float) -> None:
        self.slots = SLOTS
        self._library, self._seconds = library, seconds
        self._random = np.random.default_rng(0)
        self._labels = self._random.integers(0, 10, ROWS)
        self._running: list[tuple[float, int, float, Job]] = []  # a heap ordered by end time
        self._number = 0

    def submit(self, job: Job) -> None:
        """Start `job` when a slot is free."""
        now = time.time()
        free = now if len(self._running) < SLOTS else sorted(end for end, *_ in self._running)[-SLOTS]
        self._number += 1
        heapq.heappush(self._running, (free + self._seconds, self._number, free, job))

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        """Return all finished jobs, at least one."""
        left = self._running[0][0] - time.time() if self._running else 0.0
        time.sleep(max(0.0, min(left, 60 if timeout is None else timeout)))
        ended = []
        while self._running and self._running[0][0] <= time.time():
            end, _, started, job = heapq.heappop(self._running)
            ended.append(JobResult(job, self._member(job), None, 0, started, end))
        return ended

    def _member(self, job: Job) -> Member:
        logits = 2.0 * np.eye(10)[self._labels] + self._random.normal(0, 1.5, (ROWS, 10))
        raised = np.exp(logits)
        predictions = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
        losses = kind_of(TASK).losses(predictions, self._labels, TASK)
        size = int(self._random.integers(1_000, 1_000_000))
        made = Member(job.member, job.trial, job.stop, "none", job.configuration, Input((1,)), TASK, losses, size, 1.0)
        self._library.add(made, predictions, self._labels)
        return made

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Discard the running jobs."""
        self._running.clear()


class TimedFront(FrontThread):
    """Front that counts the processor time of its thread, and the time that the search waits for the last one."""

    processor = waited = 0.0

    def finish(self) -> None:
        """Make the front of all members."""
        started = time.perf_counter()
        super().finish()
        self.waited = time.perf_counter() - started

    def _run(self) -> None:
        super()._run()
        self.processor = time.thread_time()


def search(trials: int, seconds: float, has_front: bool) -> dict[str, float]:
    """Search and return seconds of the search, of its thread, and members."""
    with tempfile.TemporaryDirectory() as folder:
        library = Library(folder)
        fronts = TimedFront(library) if has_front else None
        settings = Settings(SPACE, trials=trials, epochs=27, order="arrival")
        started, used = time.perf_counter(), time.process_time()
        last = run_search(library, settings, WaitingPool(library, seconds), fronts=fronts)
        took, used = time.perf_counter() - started, time.process_time() - used
        figures = {"seconds": took, "process": used, "members": float(last.members)}
        if fronts is not None:
            assert not fronts.problem, fronts.problem
            figures |= {"thread": fronts.processor, "waited": fronts.waited, "journal": _journal_bytes(library)}
        return figures


def _journal_bytes(library: Library) -> float:
    lines = library.journal_path.read_bytes().splitlines()
    return float(sum(len(line) for line in lines if b'"front:' in line or b"hypervolume" in line))


def selection(members: int, rows: int, rounds: int) -> float:
    """Return the median of the milliseconds of processor time of one selection."""
    random, times = np.random.default_rng(0), []
    truth = random.beta(2.0, 1.0, (members, rows)).clip(1e-3, 1)
    costs = random.integers(1_000, 1_000_000, members).astype(float)
    for _ in range(rounds):
        front = GrowingFront()
        for number in range(members):
            front.add(f"m{number}", truth[number], float(-np.log(truth[number]).mean()), costs[number])
        started = time.thread_time()
        front.grow(lambda names: {"costs": {"parameters": [costs[int(name[1:])] for name in names]}})
        times.append(1000 * (time.thread_time() - started))
    return statistics.median(times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds")
    quick = parser.parse_args().quick
    trials, seconds, rounds = (60, 0.1, 1) if quick else (300, 0.4, 3)
    runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(rounds):
        for has_front in (False, True):
            runs[has_front].append(search(trials, seconds, has_front))
    ours = runs[True]
    shares = [run["thread"] / run["seconds"] for run in ours]
    rows: list[dict[str, object]] = [
        {
            "what": f"search, {ours[0]['members']:.0f} members",
            "thread, share of the time": statistics.median(shares),
            "from": min(shares),
            "to": max(shares),
            "seconds": statistics.median(run["seconds"] for run in ours),
            "processor, s": statistics.median(run["process"] for run in ours),
            "without a front": statistics.median(run["process"] for run in runs[False]),
            "last front, s": statistics.median(run["waited"] for run in ours),
            "journal, kB": statistics.median(run["journal"] / 1000 for run in ours),
        }
    ]
    for members in (50, 200) if quick else (50, 200, 800):
        for count in (1000, 8192):
            name = f"selection, {members} members, {count} rows"
            rows.append({"what": name, "ms": selection(members, count, 1 if quick else 3)})
    settings = {"trials": trials, "slots": SLOTS, "seconds a job": seconds, "rounds": rounds, "share": SHARE}
    record("search-live-front" + ("-quick" if quick else ""), settings, rows)


if __name__ == "__main__":
    main()
