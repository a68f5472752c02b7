"""Training throughput of a configuration on this machine, from real steps, alone or while other trials train."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from ripieno import files
from ripieno.data import open_dataset
from ripieno.train.loading_strategy import INLINE, THREAD, LoadingStrategy, StrategyTiming
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Configuration, Job, JobResult

PATIENCE = 30.0
"""Seconds to wait for the other trials."""


def measure_throughput(
    config: TrainingConfig,
    configuration: Configuration,
    seconds: float,
    strategy: LoadingStrategy = INLINE,
    batches: int | None = None,
    ready: Callable[[], None] = lambda: None,
) -> StrategyTiming:
    """Train a network of `configuration` for `seconds` after its first block, and discard it.

    Returns images per second, and the share of the time without data, with data prepared by `strategy`. A block has at
    most `batches` batches; fewer suit slow networks. `ready` is called before the clock starts, to wait there for other
    trials.
    """
    trainer = NetworkTrainer(config, strategy)
    trainer.start(Job(0, configuration, 0, 1 << 20), open_dataset(config.dataset))
    pipeline = trainer.pipeline
    plan = pipeline.plan
    plan.block = min(plan.block, (batches or plan.steps) * plan.batch_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    images, started = 0, 0.0
    try:
        with closing(pipeline), trainer.seeded(1):
            trainer.network.train()
            for block in itertools.chain.from_iterable(map(pipeline.batches, range(1, 1 << 20))):
                for pixels, labels in block:
                    trainer.step(pixels, labels, 0.0)
                    images += len(labels)
                if trainer.device.type == "cuda":
                    torch.cuda.synchronize(trainer.device)
                took = time.perf_counter() - started
                if not started:
                    ready()
                    pipeline.waited()
                    images, started = 0, time.perf_counter()
                elif took >= seconds:
                    return StrategyTiming(strategy, images / took, pipeline.waited() / took)
        raise AssertionError(f"all epochs ended before {seconds:g} s")
    finally:
        torch.set_num_threads(threads)


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
