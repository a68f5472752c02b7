"""Jobs for pool tests; `configuration["do"]` selects the behaviour."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path

from ripieno.types import Failure, Input, Job, JobResult, Member, classification


def job(number: int, do: str = "work", **values: str | float) -> Job:
    return Job(number, {"do": do, **values}, 0, 1)


def work(folder: str, job: Job) -> JobResult:
    note(folder, f"{job.trial}:{os.getpid()}")
    do = job.configuration["do"]
    if do == "raise":
        raise ValueError("no such layer\nmore")
    if do == "lose the GPU":
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
    if do == "exit":
        raise SystemExit(3)
    if do == "memory":
        raise MemoryError("too large")
    if do == "memory once" and not first(folder, job):
        raise MemoryError("others have it")
    if do == "fault":
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    if do == "diverge":
        return JobResult(job, failure=Failure("diverged", "loss is nan"))
    if do == "leave":
        os._exit(7)
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "die once" and not first(folder, job):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "get on" and times(folder, job) < 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "hang once" and not first(folder, job):
        time.sleep(60)
    if do == "sleep":
        time.sleep(float(job.configuration["seconds"]))
    if do == "environment":
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "OMP_WAIT_POLICY")
        note(folder, " ".join(repr(os.environ.get(name)) for name in names))
    if do == "speak":
        os.write(2, b"a word from the worker\n")
    member = Member(
        job.member, job.trial, 1, "none", job.configuration, Input((1,)), classification(("a", "b")), {}, 0, 0.0
    )
    return JobResult(job, member)


def first(folder: str, job: Job) -> bool:
    return times(folder, job) > 1


def times(folder: str, job: Job) -> int:
    """Return the number of starts of `job`: its progress."""
    return sum(line.startswith(f"{job.trial}:") for line in notes(folder))


def note(folder: str, line: str) -> None:
    with open(Path(folder) / "notes", "a") as stream:
        stream.write(line + "\n")


def notes(folder: str | Path) -> list[str]:
    path = Path(folder) / "notes"
    return path.read_text().splitlines() if path.exists() else []
