"""Training losses of networks by name, and their hyperparameters; each kind of task names those that fit it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ripieno.data.blocks import blocks
from ripieno.errors import ModelError
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import IGNORED, Configuration, Float32s, Task

ClassWeights = Literal["none", "balanced"]
Sampling = Literal["natural", "balanced"]


@dataclass(frozen=True)
class LossConfig:
    """Hyperparameters of the training loss and their defaults, which fit every task."""

    training_loss: str = ""
    """a key of `LOSSES`; empty: the first that fits the task"""
    label_smoothing: float = 0.0
    """share of a label that is spread over all classes"""
    class_weights: ClassWeights = "none"
    """`balanced`: each class, or both values of each label, has the same weight in the loss"""
    sampling: Sampling = "natural"
    """`balanced`: an epoch draws samples with replacement, each class as often as any other"""


NAMES = frozenset(f.name for f in fields(LossConfig))


def loss_config(configuration: Configuration, task: Task) -> LossConfig:
    """Read the loss's part of `configuration`. Raises ModelError for a value that is wrong or does not fit the task."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    kind, defaults = kind_of(task), LossConfig()
    for name, value in chosen.items():
        if name == "label_smoothing":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ModelError(f"{name} is {value!r}: it must be a number of at least 0 and below 1")
        elif value not in (allowed := _allowed(name, kind)):
            raise ModelError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
        if name != "training_loss" and name not in kind.training_options and value != getattr(defaults, name):
            raise ModelError(f"{name} is {value!r}, but it does not fit task {kind.name}: leave it out")
    return LossConfig(**{"training_loss": kind.training_losses[0], **chosen})


def _allowed(name: str, kind: TaskKind) -> tuple[str, ...]:
    choices = {"class_weights": get_args(ClassWeights), "sampling": get_args(Sampling)}
    return choices.get(name, kind.training_losses)


class TrainingLoss:
    """Mean loss of a batch: of a network's outputs, before the activation, and encoded targets.

    Outputs are (batch, outputs), of a segmentation (batch, classes, height, width) with masks (batch, height, width) as
    targets, of which ignored pixels do not count.
    """

    def __init__(
        self,
        config: LossConfig,
        task: Task,
        targets: NDArray[Any],
        device: torch.device,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Prepare the loss of `config`; `targets` are those of the training split, for weights and moments.

        With `rows`, they are those of the `targets` at these rows; masks are read block by block.
        """
        self._is_pixelwise = kind_of(task).is_pixelwise
        self._function = LOSSES[config.training_loss]
        self._smoothing = config.label_smoothing
        self._weights: Tensor | None = None
        if config.class_weights == "balanced":
            self._weights = torch.from_numpy(balanced_weights(targets, task, rows)).to(device)
        self.moments = target_moments(targets) if kind_of(task).activation == "identity" else None

    def encode(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return `targets` in the form that the loss takes: values are standardised, labels become float32."""
        if self._is_pixelwise:
            return targets
        if self.moments is not None:
            mean, std = self.moments
            targets = (targets - mean) / std
        return targets if targets.ndim == 1 else targets.reshape(len(targets), -1).astype(np.float32)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean loss of `outputs` and encoded `targets`, a number in float32."""
        return self._function(outputs.float(), targets, self._weights, self._smoothing)


def _cross_entropy(outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    if targets.ndim == 1 or targets.is_floating_point():  # indices, or the probabilities of a teacher
        return functional.cross_entropy(outputs, targets, weights, label_smoothing=smoothing)
    classes = targets.long()
    total = functional.cross_entropy(
        outputs, classes, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
    )
    counted = classes != IGNORED
    # the mean of torch has no value where every pixel is ignored
    count = counted.sum() if weights is None else weights[classes[counted]].sum()
    return total / count.clamp(min=torch.finfo(total.dtype).tiny)


def _cross_entropy_dice(outputs: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    return _cross_entropy(outputs, targets, weights, smoothing) + dice_loss(outputs, targets)


def dice_loss(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return 1 minus the soft Dice coefficient of a batch, the mean of the classes that it has; 0 where it has none.

    `outputs` are logits (batch, classes, height, width), `masks` (batch, height, width). The sums of a coefficient are
    over all counted pixels of the batch, as in nnU-Net: small objects of single images have noisy ones.
    """
    counted = (masks != IGNORED)[:, None]
    probabilities = torch.where(counted, torch.softmax(outputs, 1), 0.0)
    true = masks[:, None] == torch.arange(outputs.shape[1], device=masks.device)[:, None, None]
    pixels = (0, 2, 3)
    common = torch.where(true, probabilities, 0.0).sum(pixels)
    sizes = true.sum(pixels)
    present = sizes > 0
    coefficients = 2 * common / (probabilities.sum(pixels) + sizes).clamp(min=1.0)
    return torch.where(present, 1 - coefficients, 0.0).sum() / present.sum().clamp(min=1)


def _binary_cross_entropy(outputs: Tensor, targets: Tensor, weights: Tensor | None, _smoothing: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights)


def _squared_error(outputs: Tensor, targets: Tensor, _weights: Tensor | None, _smoothing: float) -> Tensor:
    return functional.mse_loss(outputs, targets)


def _huber(outputs: Tensor, targets: Tensor, _weights: Tensor | None, _smoothing: float) -> Tensor:
    return functional.huber_loss(outputs, targets)


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "cross-entropy-dice": _cross_entropy_dice,
    "cross-entropy": _cross_entropy,
    "binary-cross-entropy": _binary_cross_entropy,
    "squared-error": _squared_error,
    "huber": _huber,
}
"""Functions of outputs, encoded targets, weights and label smoothing by name. `huber` turns linear at one deviation."""


def target_moments(targets: NDArray[Any]) -> tuple[Float32s, Float32s]:
    """Return mean and standard deviation of each target, (*output); the deviation of a constant one is 1."""
    mean, std = targets.mean(axis=0, dtype=np.float64), targets.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def balanced_weights(targets: NDArray[Any], task: Task, rows: NDArray[np.int64] | None = None) -> Float32s:
    """Return weights by which all classes count alike, (classes,), or a label's ones as much as its zeros, (labels,).

    A class or label that does not occur gets the weight of one sample, or of one pixel of masks. With `rows`, masks at
    these rows count.
    """
    if kind_of(task).is_pixelwise:
        counts = np.zeros(IGNORED + 1, np.int64)
        chosen = np.arange(len(targets)) if rows is None else rows
        for block in blocks(targets, len(chosen)):
            counts += np.bincount(targets[chosen[block]].ravel(), minlength=IGNORED + 1)
        counts = np.maximum(counts[: len(task.names)], 1)
        return np.asarray(counts.sum() / (len(counts) * counts), np.float32)
    if targets.ndim == 1:
        counts = np.maximum(np.bincount(targets, minlength=len(task.names)), 1)
        return (len(targets) / (len(counts) * counts)).astype(np.float32)
    ones = np.maximum(targets.sum(axis=0, dtype=np.int64), 1)
    return np.asarray(np.maximum(len(targets) - ones, 1) / ones, np.float32)


def balanced_shares(targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each sample (samples,) by which an epoch draws every class equally often."""
    counts = np.bincount(targets)
    shares = 1.0 / counts[targets]
    return np.asarray(shares / shares.sum(), dtype=np.float64)
