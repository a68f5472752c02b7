"""Job that trains nothing: synthetic learning curves from the configuration, members written to a real library."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from pathlib import Path

import numpy as np

from ripieno.library import Library
from ripieno.search import Categorical, Continuous, Integer, Space
from ripieno.types import Configuration, Failure, Input, Job, JobResult, Member, classification

SPACE = Space(
    "synthetic",
    "none",
    {"rate": Continuous(1e-3, 1.0, log=True), "width": Integer(4, 16), "kind": Categorical(("a", "b", True))},
    {"schedule": "rung"},
)
LABELS = np.array([0, 1, 1])


def loss_of(configuration: Configuration, epoch: int) -> float:
    rate, width = float(configuration["rate"]), float(configuration["width"])
    return abs(math.log(rate) + 3) / 4 + 1 / width + math.exp(-epoch * rate * 3)


def weight(configuration: Configuration) -> float:
    return 1.0 + float(configuration["width"])


def member_of(job: Job, epoch: int | None = None) -> Member:
    epoch = epoch or job.stop
    loss = {"valid_cross_entropy": loss_of(job.configuration, epoch)}
    name = f"{job.trial:05d}-e{epoch:03d}"
    return Member(
        name, job.trial, epoch, "none", job.configuration, Input((1,)), classification(("a", "b")), loss, 1, 0.1
    )


def work(run: str, seconds: float, job: Job) -> JobResult:
    """Write the member after a random delay; every seventh trial diverges, every eleventh crashes once."""
    path = Path(run) / f"crashed-{job.trial}"
    if job.trial % 11 == 3 and not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(random.random() * 2 * seconds)
    if job.trial % 7 == 5:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"))
    member = member_of(job)
    Library(run).add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member)


def nothing(job: Job) -> JobResult:
    return JobResult(job, member_of(job))
