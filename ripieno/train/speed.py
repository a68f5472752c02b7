"""Training throughput of a configuration on this machine, from real steps; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import torch

from ripieno.data import open_dataset
from ripieno.train.config import TrainingConfig
from ripieno.train.loading_strategy import INLINE, LoadingStrategy, StrategyTiming
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.types import Configuration, Job


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
    trainer = NetworkTrainer(config, Job(0, configuration, 0, 1 << 20), open_dataset(config.dataset), strategy)
    pipeline = trainer.pipeline
    plan = pipeline.plan
    plan.block = min(plan.block, (batches or plan.steps) * plan.batch_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    images, started, counted = 0, 0.0, 0
    try:
        with closing(pipeline), trainer.seeded(1):
            trainer.network.train()
            for epoch in range(1, 1 << 20):
                for block in pipeline.batches(epoch):
                    for pixels, labels in block:
                        trainer.step(pixels, labels, 0.0)
                        images += len(labels)
                    _synchronize(trainer.device)
                    now = time.perf_counter()
                    if not counted:
                        ready()
                        pipeline.waited()
                        started, counted = time.perf_counter(), images
                    elif now - started >= seconds:
                        took = now - started
                        return StrategyTiming(strategy, (images - counted) / took, pipeline.waited() / took)
        raise AssertionError(f"all epochs ended before {seconds:g} s")
    finally:
        torch.set_num_threads(threads)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
