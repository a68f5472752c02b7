"""How fast a configuration trains while others train beside it: the job of a profile of packs."""

from __future__ import annotations

import time
from pathlib import Path

from ripieno import files
from ripieno.train.config import TrainingConfig
from ripieno.train.speed import measure_throughput
from ripieno.train.loading_strategy import INLINE, THREAD
from ripieno.types import Job, JobResult

PATIENCE = 30.0
"""Seconds to wait for the others."""


def train_concurrently(task: TrainingConfig, folder: Path, together: int, seconds: float, job: Job) -> JobResult:
    """Train `job`'s configuration for `seconds` once all `together` have begun; writes its `StrategyTiming` into `folder`."""

    def ready() -> None:
        files.write_bytes(folder / f"{job.trial}.ready", b"")
        until = time.monotonic() + PATIENCE
        while len(list(folder.glob("*.ready"))) < together:
            if time.monotonic() > until:
                raise TimeoutError(f"{together} trials did not begin within {PATIENCE:g} s: one of them failed")
            time.sleep(0.01)

    strategy = THREAD if task.spare else INLINE
    found = measure_throughput(task, job.configuration, seconds, strategy, batches=1, ready=ready)
    files.write_json(folder / f"{job.trial}.json", found)
    return JobResult(job)
