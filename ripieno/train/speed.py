"""How fast a configuration trains here: real steps, nothing kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import torch

from ripieno.data import open_dataset
from ripieno.train.config import TrainingConfig
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.loading_strategy import INLINE, LoadingStrategy, StrategyTiming
from ripieno.types import Configuration, Job


def measure_throughput(
    task: TrainingConfig,
    configuration: Configuration,
    seconds: float,
    strategy: LoadingStrategy = INLINE,
    batches: int | None = None,
    ready: Callable[[], None] = lambda: None,
) -> StrategyTiming:
    """Train a network of `configuration` for `seconds` after its first block, and forget it.

    Gives images per second, and the share of the time waited for data prepared by
    `strategy`. At most `batches` make a block: fewer, for slow networks. `ready` is called before the clock starts: what
    trains beside this one can be waited for there.
    """
    trial = NetworkTrainer(task, Job(0, configuration, 0, 1 << 20), open_dataset(task.dataset), strategy)
    plan = trial.feed.plan
    plan.block = min(plan.block, (batches or plan.steps) * plan.batch_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    images, started, counted = 0, 0.0, 0
    try:
        with closing(trial.feed), trial.seeded(1):
            trial.network.train()
            for epoch in range(1, 1 << 20):
                for block in trial.feed.batches(epoch):
                    for pixels, labels in block:
                        trial.step(pixels, labels, 0.0)
                        images += len(labels)
                    _wait(trial.device)
                    now = time.perf_counter()
                    if not counted:
                        ready()
                        trial.feed.waited()
                        started, counted = time.perf_counter(), images
                    elif now - started >= seconds:
                        took = now - started
                        return StrategyTiming(strategy, (images - counted) / took, trial.feed.waited() / took)
        raise AssertionError("epochs end")
    finally:
        torch.set_num_threads(threads)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
