"""A network in training: what a job needs at every epoch, and what an epoch does."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno import clock
from ripieno.data.augment import Augmentation
from ripieno.errors import ModelError
from ripieno.library import Library
from ripieno.models import resnet_config
from ripieno.models.build import FAMILIES, build
from ripieno.models.resnet_flops import megaflops
from ripieno.train import optim
from ripieno.train.batching import EpochBatches
from ripieno.train.checkpoint import TrainingState, fingerprint
from ripieno.train.config import TrainingConfig
from ripieno.train.data_pipeline import BatchPipeline
from ripieno.train.evaluate import predict, scores
from ripieno.train.loading_strategy import LoadingStrategy
from ripieno.types import Configuration, Dataset, Epoch, Job, Member


class DivergedError(Exception):
    """The loss is no longer a number."""


class NetworkTrainer:
    """The network of `job`, untrained. `strategy` overrides how its data is prepared."""

    def __init__(self, task: TrainingConfig, job: Job, dataset: Dataset, strategy: LoadingStrategy | None = None) -> None:
        check_names(task.family, job.configuration)
        self.task, self.job, self.dataset = task, job, dataset
        self.device = torch.device(task.device)
        self.recipe = optim.optimizer_config(job.configuration)
        self.augment = augmentation(job.configuration, dataset)
        self.fingerprint = fingerprint(task.seed, job.trial, task.family, job.configuration, dataset)
        with self.seeded(0):
            self.network = build(
                task.family,
                job.configuration,
                dataset.input,
                len(dataset.classes),
                dataset.mean,
                dataset.std,
                trusted=(task.family,),
            )
        # channels-last: what the images are, and quicker than NCHW on CPUs (1.1 to 1.9 times) as on GPUs
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optim.make_optimizer(self.recipe, self.network)
        self.body = torch.compile(self.network.body) if task.compiled else self.network.body
        # cards that only emulate bfloat16 lose by it, and float16 would need its losses scaled: these train in float32
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        # not a method: the plan would keep its trial alive, and all it has on the GPU, until the collector came by
        drawn = partial(generators, task.seed, job.trial)
        plan = EpochBatches(dataset, self.recipe.batch_size, self.augment, drawn, self.device.type)
        record = Library(task.run).path / "feeds" / f"{self._kind()}.json"
        self.feed = BatchPipeline(dataset, plan, self.device, job.stop, task.spare, record, strategy)
        self.rows = dataset.rows("valid")
        self.labels: NDArray[np.int64] = dataset.labels[self.rows]

    def _kind(self) -> str:
        """What trials have in common for which the same way of preparing data is best: a plain name."""
        if self.task.family == "resnet":
            family, work = "resnet", int(megaflops(self.job.configuration, self.dataset.input) * 1e6)
        else:
            family, work = "own", sum(p.numel() for p in self.network.parameters())
        changed = "plain" if self.augment.is_identity else "warped" if self.augment.warps else "light"
        # within a factor of four they are of one size
        size = max(0, work.bit_length() - 1) // 2
        return f"{self.device.type}-{self.task.threads}-{self.task.spare}-{changed}-{family}-{size}"

    @contextmanager
    def seeded(self, epoch: int) -> Iterator[None]:
        """Initial weights and dropout draw from torch's global generator: it is seeded inside and given back after."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seeds(self.task.seed, self.job.trial, epoch)[2])
            yield

    def epoch(self, progress: TrainingState) -> tuple[TrainingState, NDArray[np.float32]]:
        """Train one epoch and validate: the progress after it, and the validation probabilities."""
        started = time.perf_counter()
        number = progress.epoch + 1
        with self.seeded(number):
            loss = self._pass(number)
        waited = self.feed.waited()
        answers = self.answers()
        found = scores(answers, self.labels)
        if not math.isfinite(found["cross_entropy"]):
            raise DivergedError(f"the validation loss is not finite after epoch {number}")
        score = found["macro_f1" if self.dataset.metric == "macro-f1" else "accuracy"]
        seconds = time.perf_counter() - started
        curve = (*progress.curve, Epoch(number, loss, found["cross_entropy"], score, seconds, waited))
        return TrainingState(self.fingerprint, number, progress.seconds + seconds, curve), answers

    def _pass(self, epoch: int) -> float:
        """One pass over the training split; the mean loss (label smoothing and augmentation included)."""
        plan = self.feed.plan
        rates = iter(optim.learning_rates(self.recipe, self.job.start, self.job.stop, epoch, plan.steps))
        total, on_cpu = torch.zeros((), device=self.device), self.device.type == "cpu"
        self.network.train()
        for batches in self.feed.batches(epoch):
            for images, labels in batches:
                total += self.step(images, labels, next(rates)) * len(labels)
            if on_cpu:  # where looking costs nothing
                _check_loss(total, epoch)
        return _check_loss(total, epoch) / plan.samples

    def step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """One step on a batch of the feed; its loss, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # the loss stays float32
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            logits = self.body(images)
        smoothing = self.recipe.label_smoothing
        loss = torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def answers(self) -> NDArray[np.float32]:
        """Probabilities (samples, classes) of the validation split."""
        return predict(self.network, self.dataset.images, device=self.device, rows=self.rows)

    def member(self, name: str, progress: TrainingState, answers: NDArray[np.float32]) -> Member:
        """The network as it stands."""
        return Member(
            id=name,
            trial=self.job.trial,
            epoch=progress.epoch,
            family=self.task.family,
            configuration=dict(self.job.configuration),
            input=self.dataset.input,
            classes=self.dataset.classes,
            losses={f"valid_{key}": value for key, value in scores(answers, self.labels).items()},
            parameters=sum(p.numel() for p in self.network.parameters()),
            seconds=progress.seconds,
            created=clock.now(),
            curve=progress.curve,
        )


def seeds(seed: int, trial: int, epoch: int) -> tuple[int, int, int]:
    """Of an epoch: for the order, for augmentation, for the layers."""
    sequence = np.random.SeedSequence((seed, trial, epoch))
    order, draws, layers = (int(n) >> 1 for n in sequence.generate_state(3, np.uint64))
    return order, draws, layers


def generators(seed: int, trial: int, epoch: int) -> tuple[np.random.Generator, torch.Generator]:
    """Of an epoch, for the order and for augmentation."""
    order, draws, _ = seeds(seed, trial, epoch)
    return np.random.default_rng(order), torch.Generator().manual_seed(draws)


def _check_loss(total: Tensor, epoch: int) -> float:
    """`total` as a number; waits for the device. Raises Diverged when it is none."""
    value = total.item()
    if not math.isfinite(value):
        raise DivergedError(f"the training loss is not finite in epoch {epoch}")
    return value


_AUGMENTATION = frozenset(f.name for f in dataclasses.fields(Augmentation)) - {"value_range"}


def augmentation(configuration: Configuration, dataset: Dataset) -> Augmentation:
    """The augmentation in `configuration`; absent names change nothing. Raises DataError for a value out of range.

    The span of float images, which channel shifts are a part of, is taken as four standard deviations.
    """
    chosen = {name: value for name, value in configuration.items() if name in _AUGMENTATION}
    span = 255.0 if dataset.images.dtype == np.uint8 else 4 * float(np.mean(dataset.std))
    return Augmentation(**chosen, value_range=span)  # type: ignore[arg-type]


def check_names(family: str, configuration: Configuration) -> None:
    """Raise ModelError for a hyperparameter that nothing reads; a user's family may read any."""
    unknown = sorted(set(configuration) - resnet_config.NAMES - optim.NAMES - _AUGMENTATION)
    if family in FAMILIES and unknown:
        known = ", ".join(sorted(resnet_config.NAMES | optim.NAMES | _AUGMENTATION))
        raise ModelError(f"{unknown[0]!r} is no hyperparameter of {family}; there are: {known}")
