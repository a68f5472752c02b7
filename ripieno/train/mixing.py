"""Mixup and CutMix: training on mixtures of two images of a batch (Zhang et al. 2018, Yun et al. 2019).

Theory of operation. Each batch is mixed with itself in another order. One share holds for the whole batch, drawn from
a Beta distribution: of the values with mixup, of the area with CutMix, where a box comes from the other image. The loss
is the same mixture of the losses of both targets, so that it fits every training loss, its weights and its smoothing.
For a squared error its gradient is that of the mixed targets. A mixture of series of unequal lengths is as long as the
shorter. All numbers of an epoch come from one generator in the order of its batches, so that they depend on no
preparation of batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import ModelError
from ripieno.tasks.registry import kind_of
from ripieno.train.device_copy import to_device
from ripieno.types import Configuration, DataKind, Task


@dataclass(frozen=True)
class MixingConfig:
    """Hyperparameters of mixing and their defaults; with both, one of the two is drawn for each batch."""

    mixup: float = 0.0
    """both parameters of the Beta distribution of the shares; 0: no mixup"""
    cutmix: float = 0.0
    """both parameters of the Beta distribution of the areas; 0: no CutMix"""


NAMES = frozenset(f.name for f in fields(MixingConfig))


def mixing_config(configuration: Configuration, task: Task, kind: DataKind) -> MixingConfig:
    """Read mixing from `configuration`. Raises ModelError for a value that is wrong, or does not fit task or inputs."""
    chosen = {name: value for name, value in configuration.items() if name in NAMES}
    for name, value in chosen.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ModelError(f"{name} is {value!r}: it must be a number of at least 0")
        if value and name not in kind_of(task).training_options:
            raise ModelError(f"{name} is {value!r}, but it does not fit task {task.kind}: leave it out")
    config = MixingConfig(**chosen)  # type: ignore[arg-type]
    if config.cutmix and not DATA_KINDS[kind].is_picture:
        raise ModelError(f"cutmix mixes images, but the inputs are of kind {kind}: leave it out")
    return config


@dataclass(frozen=True)
class Mixture:
    """Mixture of one batch: each sample keeps the share `kept` and takes the rest from the sample at `order`."""

    kept: float
    order: Tensor
    """(samples,) positions in the batch, on its device"""
    box: tuple[slice, slice] | None = None
    """rows and columns that come from the other sample; None: values are mixed"""

    def inputs(self, inputs: Tensor) -> Tensor:
        """Return mixed `inputs` (samples, channels, ...), of the same shape; a box needs images."""
        if self.box is None:
            return inputs * self.kept + inputs[self.order] * (1 - self.kept)
        mixed = inputs.clone()
        mixed[:, :, *self.box] = inputs[self.order][:, :, *self.box]
        return mixed

    def loss(self, function: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mixture of the losses of `outputs` from both targets."""
        return self.kept * function(outputs, targets) + (1 - self.kept) * function(outputs, targets[self.order])


def draw_mixture(config: MixingConfig, inputs: Tensor, generator: np.random.Generator) -> Mixture | None:
    """Draw the mixture of a batch of `inputs` (samples, channels, ...); None without mixing, which draws nothing."""
    if not (config.mixup or config.cutmix):
        return None
    cuts = config.cutmix > 0 and (config.mixup == 0 or generator.random() < 0.5)
    alpha = config.cutmix if cuts else config.mixup
    kept = generator.beta(alpha, alpha)
    order = to_device(torch.from_numpy(generator.permutation(len(inputs))), inputs.device)
    if not cuts:
        return Mixture(kept, order)
    height, width = inputs.shape[2:]
    rows, columns = (_interval(size, math.sqrt(1 - kept), generator.random()) for size in (height, width))
    taken = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return Mixture(1 - taken, order, (rows, columns))


def _interval(size: int, share: float, centre: float) -> slice:
    """Return the pixels of `size` in an interval of a `share` of them around `centre` (0..1), cut off at the border."""
    half = size * share / 2
    start, stop = (round(min(max(size * centre + side, 0), size)) for side in (-half, half))
    return slice(start, stop)
