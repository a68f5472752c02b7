"""Functions that worker processes import by name: a job and a backend that lose their GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from ripieno import backends
from ripieno.backends import Backend
from ripieno.types import Device, Failure, Job, JobResult, Member


def lose_the_gpu() -> None:
    """Read past the end of a table on the GPU: every later CUDA call of this process fails."""
    table = torch.zeros(1, device="cuda")
    table[torch.tensor([1 << 20], device="cuda")].sum().item()


def work(folder: str, job: Job) -> JobResult:
    """Note the visible GPUs and the process; lose the GPU if the job says so; compute."""
    seen = f"{os.environ['CUDA_VISIBLE_DEVICES']} {torch.cuda.device_count()} {os.getpid()}"
    Path(folder, str(job.trial)).write_text(seen)
    try:
        if job.configuration["do"] == "lose":
            lose_the_gpu()
        assert torch.ones(4, device="cuda").sum().item() == 4
    except RuntimeError as error:
        return JobResult(job, failure=Failure("error", str(error).splitlines()[0]))
    return JobResult(job)


class FaultyBackend:
    """The backend `torch`, which loses its GPU once, while the file `marker` does not exist."""

    def __init__(self, inner: Backend, marker: Path) -> None:
        self._inner, self._marker = inner, marker

    def infer(self, images):
        if len(images) > 1 and not self._marker.exists():
            self._marker.touch()
            lose_the_gpu()
        return self._inner.infer(images)

    def close(self) -> None:
        self._inner.close()


def load(backend: str, path: Path, member: Member, device: Device, threads: int) -> FaultyBackend:
    """Replace `ripieno.backends.load`; the marker lies beside the weights and must be armed by a file."""
    inner = backends.load(backend, path, member, device, threads)
    marker = path.with_name("lost")
    if not path.with_name("armed").exists():
        marker = path  # it exists: nothing is lost
    return FaultyBackend(inner, marker)
