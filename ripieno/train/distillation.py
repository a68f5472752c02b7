"""Distillation: a network learns the predictions of a teacher instead of the targets (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ripieno.train.checkpoint import TrainingState, fingerprint, read_checkpoint, write_checkpoint
from ripieno.train.folds import predict_valid
from ripieno.train.job import train_epoch
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Dataset, Float32s, Job


class DistillationTrainer(NetworkTrainer):
    """Trainer of networks on `taught` (samples, *task.output), a teacher's predictions of all samples it trains on.

    Probabilities take the place of classes and labels, values that of targets. Without `taught` it trains on the
    targets, as `NetworkTrainer` does.
    """

    def __init__(self, config: TrainingConfig, taught: Float32s | None) -> None:
        super().__init__(config)
        self._taught = taught

    def _learnt_targets(self, data: Dataset) -> NDArray[Any]:
        return super()._learnt_targets(data) if self._taught is None else self._taught


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """A network that was trained for a comparison."""

    state: TrainingState
    predictions: NDArray[Any]
    """(samples, *task.output), of the validation split"""
    weights: bytes
    """content of a safetensors file"""
    parameters: int


def train_student(
    config: TrainingConfig,
    job: Job,
    dataset: Dataset,
    taught: Float32s | None,
    checkpoint: Path,
    on_epoch: Callable[[int], None] = lambda _: None,
) -> TrainedStudent:
    """Train the network of `job` to epoch `job.stop` on `taught`, or on the targets; resume from `checkpoint`.

    Order, augmentation and first weights depend on the job's trial and the seed alone: they are the same for both.
    `on_epoch` gets the number of finished epochs. Raises ModelError for a bad configuration, DivergedError when a loss
    is not finite.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    trial = fingerprint(config.seed, job.trial, config.family, job.configuration, dataset)
    try:
        trainer = DistillationTrainer(config, taught)
        trainer.start(job, dataset)
        with closing(trainer):
            state, predictions = TrainingState(trial), None
            if (found := read_checkpoint(checkpoint, trial, job.stop)) is not None:
                state, tensors = found
                trainer.load(tensors)
            while state.epoch < job.stop:
                on_epoch(state.epoch)
                state, predictions = train_epoch(trainer, state, dataset, None)
                write_checkpoint(checkpoint, state, trainer.tensors())
            on_epoch(state.epoch)
            if predictions is None:
                predictions = np.asarray(predict_valid(trainer, dataset))
            return TrainedStudent(state, predictions, trainer.weights(), trainer.parameters)
    finally:
        torch.set_num_threads(threads)
