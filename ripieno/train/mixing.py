"""Mixup, CutMix and random erasing: batches of mixtures of two images, and of images with a part hidden.

The references are Zhang et al. 2018, Yun et al. 2019, and Zhong et al. 2020.

Theory of operation. Each batch is mixed with itself in another order. One share holds for the whole batch, drawn from
a Beta distribution: of the values with mixup, of the area with CutMix, where a box comes from the other image. The loss
is the same mixture of the losses of both targets, so that it fits every training loss, its weights and its smoothing.
For a squared error its gradient is that of the mixed targets. A mixture of series of unequal lengths is as long as the
shorter. Erasing comes first: a box of an image has the mean of all, 0. All numbers of an epoch come from one generator
in the order of its batches, so that they depend on no preparation of batches.
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
    erasing: float = 0.0
    """share of the images of which a box is hidden"""


ERASED = (0.02, 1 / 3)
"""Least and largest area of a hidden box, as a share of the image's."""
ASPECT = 10 / 3
"""Largest ratio of the sides of a hidden box, in units of the image's sides."""
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
    if config.erasing > 1:
        raise ModelError(f"erasing is {config.erasing!r}: it must be a number from 0 to 1")
    for name, verb in (("cutmix", "mixes"), ("erasing", "hides parts of")):
        if getattr(config, name) and not DATA_KINDS[kind].is_picture:
            raise ModelError(f"{name} {verb} images, but the inputs are of kind {kind}: leave it out")
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


def erase(config: MixingConfig, inputs: Tensor, generator: np.random.Generator) -> Tensor:
    """Return normalised `inputs` (samples, channels, height, width) with a box of some set to 0; see `MixingConfig`."""
    if not config.erasing:
        return inputs
    numbers = generator.random((len(inputs), 5), dtype=np.float32)
    hidden, area, ratio, down, across = to_device(torch.from_numpy(numbers), inputs.device)[:, :, None].unbind(1)
    area = ERASED[0] + (ERASED[1] - ERASED[0]) * area
    ratio = torch.exp(math.log(ASPECT) * (2 * ratio - 1))
    rows = _is_inside(inputs.shape[2], (area * ratio).sqrt(), down)
    columns = _is_inside(inputs.shape[3], (area / ratio).sqrt(), across)
    boxes = (hidden < config.erasing)[:, :, None] & rows[:, :, None] & columns[:, None, :]
    return inputs.masked_fill(boxes[:, None], 0)


def _is_inside(side: int, share: Tensor, place: Tensor) -> Tensor:
    """Return which pixels of a `side` are in an interval of a `share` of it: (samples, side), for (samples, 1) each."""
    length = (side * share.clamp(max=1)).round().clamp(min=1)
    start = (place * (side - length + 1)).floor()
    pixels = torch.arange(side, device=share.device)
    return (pixels >= start) & (pixels < start + length)


def _interval(size: int, share: float, centre: float) -> slice:
    """Return the pixels of `size` in an interval of a `share` of them around `centre` (0..1), cut off at the border."""
    half = size * share / 2
    start, stop = (round(min(max(size * centre + side, 0), size)) for side in (-half, half))
    return slice(start, stop)
