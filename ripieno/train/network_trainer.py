"""A network in training: its configuration, its state, and the training of an epoch."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno import clock
from ripieno.data.augment import Augmentation
from ripieno.errors import ModelError
from ripieno.library import Library
from ripieno.models.build import FAMILIES, build
from ripieno.models.resnet_config import NAMES, megaflops
from ripieno.tasks import metrics
from ripieno.train import optim
from ripieno.train.batching import EpochBatches
from ripieno.train.checkpoint import TrainingState, fingerprint
from ripieno.train.data_pipeline import BatchPipeline
from ripieno.train.evaluate import predict
from ripieno.train.loading_strategy import LoadingStrategy
from ripieno.types import Configuration, Dataset, Epoch, Job, Member


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Training options that all jobs of a search share."""

    run: Path
    """folder of the library"""
    dataset: Path
    """folder of the prepared data set"""
    family: str
    """a built-in family or the user's `module:function`, which is trusted because the user gave it"""
    epochs: int
    """most epochs of a job"""
    seed: int
    threads: int = 1
    device: str = "cpu"
    """name in torch: `cpu`, `cuda:0`"""
    spare: int = 0
    """cores per trainer for data loading"""
    compiled: bool = False
    """train networks with torch.compile: worth its minute on a GPU, for trials of hours"""
    deadline: float | None = None
    """time by `ripieno.clock` after which a job stops at the end of its current epoch"""


class DivergedError(Exception):
    """The loss is no finite number."""


class NetworkTrainer:
    """Trainer of the network of `job`; a given `strategy` prepares the data, instead of the fastest one measured."""

    def __init__(
        self, config: TrainingConfig, job: Job, dataset: Dataset, strategy: LoadingStrategy | None = None
    ) -> None:
        check_hyperparameters(config.family, job.configuration)
        self.config, self.job, self.dataset = config, job, dataset
        self.device = torch.device(config.device)
        self.optimizer_config = optim.optimizer_config(job.configuration)
        self.augment = augmentation(job.configuration, dataset)
        self.fingerprint = fingerprint(config.seed, job.trial, config.family, job.configuration, dataset)
        with self.seeded(0):
            self.network = build(
                config.family,
                job.configuration,
                dataset.input,
                len(dataset.classes),
                dataset.mean,
                dataset.std,
                trusted=(config.family,),
            )
        # channels-last: the layout of the images, and faster than NCHW on CPUs (1.1 to 1.9 times) and on GPUs
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optim.make_optimizer(self.optimizer_config, self.network)
        self.body = torch.compile(self.network.body) if config.compiled else self.network.body
        # GPUs that only emulate bfloat16 are slower with it, and float16 needs loss scaling: these train in float32
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        # not a method: it would keep the trainer, and its memory on the GPU, alive until garbage collection
        drawn = partial(generators, config.seed, job.trial)
        batches = EpochBatches(dataset, self.optimizer_config.batch_size, self.augment, drawn, self.device.type)
        record = Library(config.run).path / "feeds" / f"{self._kind()}.json"
        self.pipeline = BatchPipeline(dataset, batches, self.device, job.stop, config.spare, record, strategy)
        self.rows = dataset.rows("valid")
        self.labels: NDArray[np.int64] = dataset.targets[self.rows]

    def _kind(self) -> str:
        """Return the name of a class of trials for which the same way of preparing data is fastest."""
        if self.config.family == "resnet":
            family, work = "resnet", int(megaflops(self.job.configuration, self.dataset.input) * 1e6)
        else:
            family, work = "own", sum(p.numel() for p in self.network.parameters())
        changed = "plain" if self.augment.is_identity else "warped" if self.augment.warps else "light"
        # trials within a factor of four have the same size
        size = max(0, work.bit_length() - 1) // 2
        return f"{self.device.type}-{self.config.threads}-{self.config.spare}-{changed}-{family}-{size}"

    @contextmanager
    def seeded(self, epoch: int) -> Iterator[None]:
        """Seed torch's global generator, for initial weights and dropout; restore its state at the end."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seeds(self.config.seed, self.job.trial, epoch)[2])
            yield

    def epoch(self, progress: TrainingState) -> tuple[TrainingState, NDArray[np.float32]]:
        """Train one epoch and validate; return the new progress and the validation probabilities."""
        started = time.perf_counter()
        number = progress.epoch + 1
        with self.seeded(number):
            loss = self._train_pass(number)
        waited = self.pipeline.waited()
        answers = self.answers()
        valid = metrics.scores(answers, self.labels)
        if not math.isfinite(valid["cross_entropy"]):
            raise DivergedError(f"the validation loss is not finite after epoch {number}")
        score = valid["macro_f1" if self.dataset.task.metric == "macro-f1" else "accuracy"]
        seconds = time.perf_counter() - started
        curve = (*progress.curve, Epoch(number, loss, valid["cross_entropy"], score, seconds, waited))
        return TrainingState(self.fingerprint, number, progress.seconds + seconds, curve), answers

    def _train_pass(self, epoch: int) -> float:
        """Train on the training split once; return the mean loss, with label smoothing and augmentation."""
        batches = self.pipeline.plan
        rates = iter(optim.learning_rates(self.optimizer_config, self.job.start, self.job.stop, epoch, batches.steps))
        total, on_cpu = torch.zeros((), device=self.device), self.device.type == "cpu"
        self.network.train()
        for block in self.pipeline.batches(epoch):
            for images, labels in block:
                total += self.step(images, labels, next(rates)) * len(labels)
            if on_cpu:  # on a GPU this check would wait for the device
                _check_loss(total, epoch)
        return _check_loss(total, epoch) / batches.samples

    def step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Train one step on a batch of the pipeline; return its loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # the loss stays float32
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            logits = self.body(images)
        smoothing = self.optimizer_config.label_smoothing
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def answers(self) -> NDArray[np.float32]:
        """Predict probabilities (samples, classes) of the validation split."""
        return predict(self.network, self.dataset.inputs, device=self.device, rows=self.rows)

    def member(self, name: str, progress: TrainingState, answers: NDArray[np.float32]) -> Member:
        """Describe the current network as a member."""
        return Member(
            id=name,
            trial=self.job.trial,
            epoch=progress.epoch,
            family=self.config.family,
            configuration=dict(self.job.configuration),
            input=self.dataset.input,
            task=self.dataset.task,
            losses=metrics.losses(answers, self.labels),
            parameters=sum(p.numel() for p in self.network.parameters()),
            seconds=progress.seconds,
            created=clock.now(),
            curve=progress.curve,
        )


def seeds(seed: int, trial: int, epoch: int) -> tuple[int, int, int]:
    """Return the seeds of an epoch: for the order, for augmentation, for the layers."""
    sequence = np.random.SeedSequence((seed, trial, epoch))
    order, draws, layers = (int(n) >> 1 for n in sequence.generate_state(3, np.uint64))
    return order, draws, layers


def generators(seed: int, trial: int, epoch: int) -> tuple[np.random.Generator, torch.Generator]:
    """Return the generators of an epoch: for the order and for augmentation."""
    order, draws, _ = seeds(seed, trial, epoch)
    return np.random.default_rng(order), torch.Generator().manual_seed(draws)


def _check_loss(total: Tensor, epoch: int) -> float:
    """Return `total` as a number; wait for the device. Raises DivergedError when it is not finite."""
    value = total.item()
    if not math.isfinite(value):
        raise DivergedError(f"the training loss is not finite in epoch {epoch}")
    return value


_AUGMENTATION = frozenset(f.name for f in dataclasses.fields(Augmentation)) - {"value_range"}


def augmentation(configuration: Configuration, dataset: Dataset) -> Augmentation:
    """Return the augmentation in `configuration`; absent names add none. Raises DataError for a value out of range.

    Channel shifts are a share of the value range, which is taken as four standard deviations for float images.
    """
    chosen = {name: value for name, value in configuration.items() if name in _AUGMENTATION}
    value_range = 255.0 if dataset.inputs.dtype == np.uint8 else 4 * float(np.mean(dataset.std))
    return Augmentation(**chosen, value_range=value_range)  # type: ignore[arg-type]


def check_hyperparameters(family: str, configuration: Configuration) -> None:
    """Raise ModelError for an unknown hyperparameter; a user's family may have any."""
    unknown = sorted(set(configuration) - NAMES - optim.NAMES - _AUGMENTATION)
    if family in FAMILIES and unknown:
        known = ", ".join(sorted(NAMES | optim.NAMES | _AUGMENTATION))
        raise ModelError(f"{unknown[0]!r} is not a hyperparameter of {family}: it must be one of {known}")
