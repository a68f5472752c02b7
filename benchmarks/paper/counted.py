"""A search whose networks are trained for real and whose clock counts: equal time for all, on a machine never quiet.

An epoch counts for the seconds that table2.py's searches took for one, by its steps and its network's size (fitted to
489 members, half of them within 15 %). Two searches of one seed train the same trials for the most part: each is
trained once, and kept apart by the rung that its bracket begins with, for its learning rate depends on that. A search
cut off starts again, and finds what was trained.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from searches import Plan
from sets import prepared

from ripieno import Library
from ripieno.data import open_dataset
from ripieno.models.resnet_flops import megaflops
from ripieno.pipeline.promotion import make_promotion_score
from ripieno.search import Settings, find_space, run_search
from ripieno.train import TrainingConfig, train_job
from ripieno.types import Configuration, Input, Job, JobResult

EPOCH, STEP, MEGAFLOP = 0.38, 0.0038, 0.153 / 3600
"""Seconds of an epoch, of each step, and of each sample's million multiply-adds."""


def price(shape: Input, samples: int, configuration: Configuration) -> float:
    """Seconds that an epoch counts for."""
    steps = samples / float(configuration["batch_size"])
    return EPOCH + STEP * steps + MEGAFLOP * samples * megaflops(configuration, shape)


class Counted:
    """A pool of one slot in this process; `clock` tells what all jobs so far count for."""

    slots = 1

    def __init__(self, function: Callable[[Job], JobResult], epoch: Callable[[Configuration], float]) -> None:
        self._function = function
        self._epoch = epoch
        self._queue: deque[Job] = deque()
        self._now = 0.0

    def clock(self) -> float:
        """Seconds counted."""
        return self._now

    def submit(self, job: Job) -> None:
        """Queue `job`."""
        self._queue.append(job)

    def wait(self, timeout: float | None = None) -> list[JobResult]:  # noqa: ARG002
        """Run the oldest job."""
        if not self._queue:
            return []
        job = self._queue.popleft()
        started, outcome = self._now, self._function(job)
        self._now += (job.stop - job.start) * self._epoch(job.configuration)
        return [dataclasses.replace(outcome, started=started, finished=self._now)]

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Forget the queued jobs."""
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def folder(asked: Plan) -> Path:
    """Of all searches of a plan."""
    return asked.folder.with_name(f"{asked.folder.name}-counted")


def counted(asked: Plan, name: str, algorithm: str, seed: int, budget: dict[str, float]) -> Path:
    """The folder of a search of `asked.minutes`, counted; with a `budget` it promotes for the ensemble."""
    run, dataset = folder(asked) / f"{name}-{seed}", prepared(asked.set, asked.data, asked.images)
    if (run / "done").exists():
        return run
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    (run / "dataset").symlink_to(dataset.resolve())
    data, space, library = open_dataset(dataset), find_space(asked.space), Library(run)
    first: dict[int, int] = {}

    def train(job: Job) -> JobResult:
        rung = first.setdefault(job.trial, job.stop)
        shared = Library(folder(asked) / f"trained-{seed}-from-{rung}")
        task = TrainingConfig(shared.path.resolve(), dataset.resolve(), space.family, asked.epochs, seed)
        outcome = train_job(task, job)
        if outcome.member is not None:
            name = outcome.member.id
            weights = shared.weights_path(name).read_bytes()
            library.add(outcome.member, shared.probabilities(name), shared.labels(), weights)
        return outcome

    epoch = partial(price, data.input, len(data.rows("train")))
    pool = Counted(train, epoch)
    settings = Settings(
        space, algorithm, epochs=asked.epochs, seed=seed, promote="ensemble" if budget else "loss", budget=budget
    )
    worth = make_promotion_score(library, space.family, budget) if budget else None
    run_search(
        library, settings, pool, weight=epoch, deadline=60 * asked.minutes, clock=pool.clock, worth=worth
    )  # fmt: skip
    if worth is not None:
        (run / "said").write_text(worth.said() + "\n")
    (run / "done").touch()
    return run
