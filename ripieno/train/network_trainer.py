"""Trainer of networks: their state, and the training of an epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ripieno.data.dataset import spread_rows
from ripieno.errors import ModelError
from ripieno.library import Library
from ripieno.models import timm_config
from ripieno.models.backbone_weights import BACKBONE_TENSORS
from ripieno.models.build import Network, build, built_in_family
from ripieno.models.family_config import (
    family_kind,
    hyperparameter_names,
    network_group,
    network_megaflops,
    training_defaults,
)
from ripieno.models.fixed_transform import FixedTransform
from ripieno.models.smp_network import SmpBody
from ripieno.models.table import TableNetwork
from ripieno.models.timm_network import TimmBody, timm_megaflops
from ripieno.tasks.registry import kind_of
from ripieno.train import losses, mixing, optim
from ripieno.train.augmentation import AUGMENTATIONS, augmentation
from ripieno.train.batching import EpochBatches
from ripieno.train.checkpoint import own_weights, weights_bytes
from ripieno.train.data_pipeline import BatchPipeline
from ripieno.train.evaluate import DivergedError, predict
from ripieno.train.fine_tuning import WeightAverage, fine_tuning_optimizer
from ripieno.train.frozen_backbone import FrozenBackbone, load_pretrained
from ripieno.train.head_fit import FLOOR, fit_head, fit_wide_head, penalty_of
from ripieno.train.loading_strategy import LoadingStrategy
from ripieno.train.mixing import Mixture, draw_mixture, erase
from ripieno.train.trainer import BatchReport, ignore_batch
from ripieno.train.training_config import TrainingConfig
from ripieno.train.transform_features import TransformFeatures
from ripieno.types import Configuration, DataKind, Dataset, Job

_WEIGHTS, _STATE, _AVERAGE, _EPOCH, _UPDATES = "weights.", "optimizer.", "average.", "epoch", "updates"
"""Names and prefixes of names of a checkpoint's tensors."""
FITTED_ROWS, FITTED_VALUES = 20_000, 20_000_000
"""Training rows, and values of them, that the preparation of tables is fitted to, at most."""


class NetworkTrainer:
    """Trainer of networks; a given `strategy` prepares the data, instead of the fastest one measured."""

    unit = "epochs"

    def __init__(self, config: TrainingConfig | None = None, strategy: LoadingStrategy | None = None) -> None:
        self.on_batch: BatchReport = ignore_batch
        self.config = config or TrainingConfig()
        self._strategy = strategy

    def start(self, job: Job, data: Dataset) -> None:
        """Build the network of `job` and its optimiser. Raises ModelError for a bad configuration."""
        config = self.config
        check_hyperparameters(config.family, job.configuration, data.kind)
        self.job, self.dataset, self.finished = job, data, 0
        self.device = torch.device(config.device)
        self.optimizer_config = optim.optimizer_config({**training_defaults(config.family), **job.configuration})
        self.augment = augmentation(job.configuration, data)
        self.mixing_config = mixing.mixing_config(job.configuration, data.task, data.kind)
        self.loss_config = losses.loss_config(job.configuration, data.task)
        rows = data.rows("train")
        # masks stay in their file
        is_pixelwise = kind_of(data.task).is_pixelwise
        trained = data.targets if is_pixelwise else np.asarray(data.targets[rows])
        self.loss = losses.TrainingLoss(
            self.loss_config, data.task, trained, self.device, rows if is_pixelwise else None
        )
        trusted = (config.family,)
        with self.seeded(0):
            self.network = build(
                config.family, job.configuration, data.input, data.task, data.mean, data.std, trusted=trusted
            )
            body = self.network.body
            self.transform: TransformFeatures | None = None
            if isinstance(body, FixedTransform):
                self.transform = TransformFeatures(self.network, body, data, config.epochs)
            if isinstance(body, TableNetwork):
                most = min(FITTED_ROWS, max(1, FITTED_VALUES // data.inputs.shape[1]))
                fitted = spread_rows(rows, most)
                body.fit(np.asarray(data.inputs[fitted]))
        self.pretrained = load_pretrained(self.network, config, job.configuration, data)
        if self.loss.moments is not None:
            self.network.set_target_moments(*self.loss.moments)
        # channels-last: the layout of the images, and faster than NCHW on CPUs (1.1 to 1.9 times) and on GPUs
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._make_optimizer()
        self.body = torch.compile(self.network.body) if config.compiled else self.network.body
        # GPUs that only emulate bfloat16 are slower with it, and float16 needs loss scaling: these train in float32
        self.half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        # not a method: it would keep the trainer, and its memory on the GPU, alive until garbage collection
        drawn = partial(generators, config.seed, job.trial)
        size, shares = self.optimizer_config.batch_size, None
        if self.loss_config.sampling == "balanced":
            shares = losses.balanced_shares(trained)
        least = self.optimizer_config.epoch_samples
        batches = EpochBatches(data, size, self.augment, drawn, self.device.type, shares, least)
        # networks of timm have moments of their own, those of tables none
        mean, std = (tuple(moments.tolist()) for moments in (self.network.mean, self.network.std))
        learnt = self.loss.encode(self._learnt_targets(data))
        encoded = dataclasses.replace(data, targets=learnt, mean=mean, std=std)
        record = Library(config.run).path / "feeds" / f"{self._kind()}.json"
        self.pipeline = BatchPipeline(encoded, batches, self.device, job.stop, config.spare, record, self._strategy)

    def _learnt_targets(self, data: Dataset) -> NDArray[Any]:
        """Return the targets that the network learns, those of all samples, before they are encoded."""
        return np.asarray(data.targets)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimiser, and the moving average of the weights where the configuration has one."""
        self.average: WeightAverage | None = None
        body = self.network.body
        if isinstance(body, SmpBody):
            return optim.make_optimizer(self.optimizer_config, body, {"encoder.": body.encoder_rate})
        if not isinstance(body, TimmBody):
            return optim.make_optimizer(self.optimizer_config, self.network)
        chosen = timm_config.backbone_config(self.config.family, self.job.configuration)
        if chosen.ema:
            self.average = WeightAverage(self.network, chosen.ema)
        return fine_tuning_optimizer(self.optimizer_config, body, chosen.layer_decay)

    @property
    def kept(self) -> Network:
        """Network that predicts and that is kept: the average of the weights where there is one."""
        return self.network if self.average is None else self.average.network

    def _kind(self) -> str:
        """Return the name of a class of trials for which the same way of preparing data is fastest."""
        configuration = self.job.configuration
        if isinstance(self.network.body, TimmBody):
            family, work = "timm", int(timm_megaflops(self.config.family, configuration) * 1e6)
        elif isinstance(self.network.body, SmpBody):
            family, work = "smp", sum(p.numel() for p in self.network.parameters())
        elif built_in_family(self.config.family):
            family = network_group(self.config.family) or self.config.family
            work = int(network_megaflops(self.config.family, configuration, self.dataset.input) * 1e6)
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

    def epoch(self) -> float:
        """Train one epoch; return the mean loss, with label smoothing, augmentation and mixing.

        A network of fixed convolutions has its head fitted, without augmentation, to the share of its features that
        this epoch is of all epochs. The first epoch on a pretrained backbone fits the head to the features of the
        frozen backbone, without augmentation. Where the whole backbone is frozen, later epochs train the head on these
        features too.
        """
        number = self.finished + 1
        with self.seeded(number):
            if self.transform is not None:
                loss = self._fit_features(self.transform, number)
            elif self.pretrained is not None and number == 1:
                loss = self._fit_head(self.pretrained)
            elif self.pretrained is not None and self.pretrained.config.frozen == "all":
                loss = self._train_head(self.pretrained, number)
            else:
                loss = self._train_pass(number)
        self.finished = number
        return loss

    @property
    def backbone(self) -> str:
        """Id of the frozen backbone that the network shares with others; empty where it has its own."""
        if self.pretrained is None or (self.finished > 1 and self.pretrained.config.frozen != "all"):
            return ""
        return str(self.pretrained.id)

    def _fit_head(self, pretrained: FrozenBackbone) -> float:
        """Fit the head to the features of the samples of the first epoch; return the loss."""
        rows = np.sort(np.concatenate([block.rows for block in self.pipeline.plan.blocks(1)]))
        features, targets = pretrained.features(self.network, rows), self._targets_at(rows)
        head: Any = self.network.body.head
        penalty = penalty_of(self.optimizer_config.weight_decay)
        loss = fit_head(head[-1], features.to(self.device), targets, self.loss, penalty, FLOOR)
        if self.average is not None:
            self.average.network.load_state_dict(self.network.state_dict())
        if not math.isfinite(loss):
            raise DivergedError("the loss of the head on frozen features is not finite")
        return loss

    def _fit_features(self, transform: TransformFeatures, number: int) -> float:
        """Fit the head of fixed convolutions to their features of epoch `number`; return the loss."""
        transform.use_epoch(number)
        features, targets = transform.at(transform.rows), self._targets_at(transform.rows)
        # ten times as many features as a backbone's: their loss is flat from 0.03 to 1
        penalty = penalty_of(self.optimizer_config.weight_decay, factor=1.0)
        fit = fit_wide_head if features.shape[1] > features.shape[0] else fit_head
        loss = fit(transform.head, features.to(self.device), targets, self.loss, penalty)
        if not math.isfinite(loss):
            raise DivergedError(f"the loss of the head on fixed features is not finite in epoch {number}")
        return loss

    def _train_head(self, pretrained: FrozenBackbone, epoch: int) -> float:
        """Train the head on cached features once, without augmentation; return the mean loss."""
        batches, head = self.pipeline.plan, self.network.body.head
        rates = iter(self._learning_rates(epoch))
        total = torch.zeros((), device=self.device)
        self.network.train()
        for block in batches.blocks(epoch):
            for first in range(0, len(block.rows), batches.batch_size):
                rows = block.rows[first : first + batches.batch_size]
                outputs = head(pretrained.features(self.network, rows).to(self.device))  # type: ignore[operator]
                total += self._update(self.loss(outputs, self._targets_at(rows)), next(rates)) * len(rows)
        return _check_loss(total, epoch) / batches.samples

    def _targets_at(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the encoded targets of samples of the data set, on the device."""
        return torch.from_numpy(np.asarray(self.pipeline.dataset.targets)[rows]).to(self.device)

    def _learning_rates(self, epoch: int) -> list[float]:
        """Return the learning rate of each step of an epoch; a fitted head counts as a job of its own."""
        start, steps = self.job.start, self.pipeline.plan.steps
        start = start if self.pretrained is None else max(1, start)
        return optim.learning_rates(self.optimizer_config, start, self.job.stop, epoch, steps)

    def _train_pass(self, epoch: int) -> float:
        """Train on the training split once; return the mean loss, with label smoothing, augmentation and mixing."""
        batches = self.pipeline.plan
        rates = iter(self._learning_rates(epoch))
        draws = np.random.default_rng(seeds(self.config.seed, self.job.trial, epoch)[3])
        total, on_cpu = torch.zeros((), device=self.device), self.device.type == "cpu"
        done = 0
        self.network.train()
        for block in self.pipeline.batches(epoch):
            for inputs, targets in block:
                inputs = erase(self.mixing_config, inputs, draws)
                mixture = draw_mixture(self.mixing_config, inputs, draws)
                total += self.step(inputs, targets, next(rates), mixture) * len(targets)
                done += 1
                self.on_batch(done, batches.steps)
            if on_cpu:  # on a GPU this check would wait for the device
                _check_loss(total, epoch)
        return _check_loss(total, epoch) / batches.samples

    def step(self, inputs: Tensor, targets: Tensor, rate: float, mixture: Mixture | None = None) -> Tensor:
        """Train one step on a batch of the pipeline, mixed by `mixture`; return its loss, on the device."""
        # the loss stays float32
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            outputs = self.body(inputs if mixture is None else mixture.inputs(inputs))
        loss = self.loss(outputs, targets) if mixture is None else mixture.loss(self.loss, outputs, targets)
        return self._update(loss, rate)

    def _update(self, loss: Tensor, rate: float) -> Tensor:
        """Change the weights by the gradient of `loss`; return it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach()

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output), activated."""
        return predict(self.kept, inputs, device=self.device)

    def predict_rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Predict samples of the train or validation split from cached features; None where there are none."""
        if self.transform is not None and self.transform.fit(rows):
            return self._predict_features(self.network, self.transform.at(rows))
        if self.pretrained is None or not self.backbone:
            return None
        return self._predict_features(self.kept, self.pretrained.features(self.network, rows))

    def _predict_features(self, network: Network, features: Tensor) -> NDArray[np.float32]:
        """Predict by the head of `network` from the features of samples."""
        was_training = network.training
        network.eval()
        with torch.inference_mode():
            outputs = network.forward_head(features.to(self.device))
            predictions: NDArray[np.float32] = network.activate(outputs).cpu().numpy()
        network.train(was_training)
        return predictions

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the number of finished epochs, the weights, their average and the state of the optimiser.

        The weights of a shared backbone are left out: they are in the run.
        """
        shared = BACKBONE_TENSORS if self.backbone else ""
        tensors = {_WEIGHTS + name: tensor for name, tensor in own_weights(self.network, shared).items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{_STATE}{index}.{name}": t for name, t in state.items() if isinstance(t, Tensor)}
        numbers = {_EPOCH: np.array(self.finished)}
        if self.average is not None:
            average = own_weights(self.average.network, shared)
            tensors |= {_AVERAGE + name: tensor for name, tensor in average.items()}
            numbers[_UPDATES] = np.array(self.average.updates)
        return {**numbers, **{name: _to_array(tensor) for name, tensor in tensors.items()}}

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `tensors`. Raises ModelError when they are of another network; nothing has then changed."""
        if self.transform is not None:
            self.transform.use_epoch(int(tensors[_EPOCH]))
        weights, average, state = (_with_prefix(tensors, prefix) for prefix in (_WEIGHTS, _AVERAGE, _STATE))
        current = self.network.state_dict()
        shapes = {n: t.shape for n, t in current.items()}
        for found in (weights,) if self.average is None else (weights, average):
            if self.pretrained is not None and not any(name.startswith(BACKBONE_TENSORS) for name in found):
                found |= {name: t for name, t in current.items() if name.startswith(BACKBONE_TENSORS)}
            if {n: t.shape for n, t in found.items()} != shapes:
                raise ModelError("the checkpoint holds the weights of another network")
        self.network.load_state_dict(weights)
        if self.average is not None:
            self.average.network.load_state_dict(average)
            self.average.updates = int(tensors[_UPDATES])
        self._load_optimizer(state)
        self.finished = int(tensors[_EPOCH])

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            index, _, name = key.partition(".")
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # fused kernels iterate over memory: a state must have its parameter's memory format
                tensor = torch.empty_like(parameter).copy_(tensor)
            state.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def weights(self) -> bytes:
        """Return the weights and buffers of the network, but for a shared backbone, as a safetensors file."""
        return weights_bytes(self.kept, BACKBONE_TENSORS if self.backbone else "")

    @property
    def parameters(self) -> int:
        """Number of trained numbers in the network."""
        return sum(p.numel() for p in self.network.parameters())

    def waited(self) -> float:
        """Return the seconds since the last call in which there was no batch to train on."""
        return self.pipeline.waited()

    def close(self) -> None:
        """End the preparation of data and free its memory on the GPU."""
        self.pipeline.close()


def _with_prefix(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    found = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    return {name: torch.from_numpy(np.array(array)) for name, array in found.items()}


def _to_array(tensor: Tensor) -> NDArray[Any]:
    """Convert a tensor to an array that does not change with it."""
    on_cpu = tensor.detach().to("cpu")
    # NumPy has no bfloat16; float32 holds its values
    on_cpu = on_cpu.float() if on_cpu.dtype == torch.bfloat16 else on_cpu
    return np.array(on_cpu.numpy(), order="C")


def seeds(seed: int, trial: int, epoch: int) -> tuple[int, int, int, int]:
    """Return the seeds of an epoch: for the order, for augmentation, for the layers, for mixing.

    More seeds leave those before them as they are.
    """
    sequence = np.random.SeedSequence((seed, trial, epoch))
    order, draws, layers, mixtures = (int(n) >> 1 for n in sequence.generate_state(4, np.uint64))
    return order, draws, layers, mixtures


def generators(seed: int, trial: int, epoch: int) -> tuple[np.random.Generator, torch.Generator]:
    """Return the generators of an epoch: for the order and for augmentation."""
    order, draws, *_ = seeds(seed, trial, epoch)
    return np.random.default_rng(order), torch.Generator().manual_seed(draws)


def _check_loss(total: Tensor, epoch: int) -> float:
    """Return `total` as a number; wait for the device. Raises DivergedError when it is not finite."""
    value = total.item()
    if not math.isfinite(value):
        raise DivergedError(f"the training loss is not finite in epoch {epoch}")
    return value


def check_hyperparameters(family: str, configuration: Configuration, kind: DataKind | None = None) -> None:
    """Raise ModelError for an unknown hyperparameter; a user's family may have any.

    `kind` is that of the data; None: that of the family.
    """
    kind = kind or family_kind(family)
    changes = AUGMENTATIONS[kind] | (mixing.NAMES if kind != "table" else set())  # a mixture of categories is none
    known = hyperparameter_names(family) | optim.NAMES | losses.NAMES | changes
    unknown = sorted(set(configuration) - known)
    if built_in_family(family) and unknown:
        raise ModelError(
            f"{unknown[0]!r} is not a hyperparameter of {family}: it must be one of {', '.join(sorted(known))}"
        )
