"""Throughput of a configuration while other trials train at the same time: the job of a packing profile."""

from __future__ import annotations

import time
from pathlib import Path

from ripieno import files
from ripieno.train.config import TrainingConfig
from ripieno.train.loading_strategy import INLINE, THREAD
from ripieno.train.speed import measure_throughput
from ripieno.types import Job, JobResult

PATIENCE = 30.0
"""Seconds to wait for the other trials."""


def train_concurrently(config: TrainingConfig, folder: Path, together: int, seconds: float, job: Job) -> JobResult:
    """Train `job`'s configuration for `seconds` once all `together` trials are ready; write the timing to `folder`."""

    def ready() -> None:
        files.write_bytes(folder / f"{job.trial}.ready", b"")
        until = time.monotonic() + PATIENCE
        while len(list(folder.glob("*.ready"))) < together:
            if time.monotonic() > until:
                raise TimeoutError(f"not all of {together} trials began within {PATIENCE:g} s: at least one failed")
            time.sleep(0.01)

    strategy = THREAD if config.spare else INLINE
    timing = measure_throughput(config, job.configuration, seconds, strategy, batches=1, ready=ready)
    files.write_json(folder / f"{job.trial}.json", timing)
    return JobResult(job)
