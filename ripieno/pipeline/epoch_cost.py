"""Cost of an epoch of a configuration, estimated before it is trained."""

from __future__ import annotations

from ripieno.models.family_config import network_megaflops, network_megavalues, training_defaults
from ripieno.models.series_config import has_fixed_transform
from ripieno.models.smp_config import is_smp
from ripieno.models.smp_network import smp_megaflops
from ripieno.models.timm_config import is_timm
from ripieno.models.timm_network import timm_megaflops
from ripieno.train.batching import count_passes
from ripieno.types import Configuration, Input

STEP = 5.0
"""Milliseconds of a step, however small the network."""
RATE = 20.0
"""Millions of multiply-adds that a core does in a millisecond, about."""
PASSES = 3.0
"""What a sample takes, forward and backward, in passes forward."""
FROZEN_PASSES = {"all": 1.0, "most": 1.5}
"""The same of a network of timm whose backbone is frozen."""
PLACED, MOVED = 0.44, 73.0
"""Work of a million multiply-adds and of a million values of maps, where maps are counted.

Fitted to 18 networks of resnet-small on images of 48 pixels, within a sixth.
"""
PIXEL, LOGIT = 45e-6, 39e-6
"""Milliseconds of a pixel in augmentation, and of a logit of a pixel in enlarging, loss and validation.

Fitted to 30 U-Nets on CamVid (256 x 192, 11 classes), which took 8.5 s an epoch of 367 images more than their network.
"""


def estimate_epoch_cost(
    family: str, shape: Input, samples: int, configuration: Configuration, *, pixel_classes: int = 0
) -> float:
    """Estimate the milliseconds of one epoch; results are ordered by it, reproducibly, whatever the real timing.

    Where it orders results only ratios between configurations matter, and only roughly: a wrong guess costs waiting. A
    search in a given time leaves out networks that it finds too slow, residual networks by a short timing of this
    machine: see `time_fit`. `pixel_classes` is the number of classes of each pixel, 0 where a sample is predicted as a
    whole.
    """
    configuration = {**training_defaults(family), **configuration}
    if not has_fixed_transform(family, configuration):
        samples *= count_passes(samples, int(configuration.get("epoch_samples", 0)))
    steps = samples / float(configuration.get("batch_size", 64))
    pixels = shape.shape[0] * shape.shape[1] if pixel_classes else 0
    sample = training_work(family, shape, configuration) / RATE + pixels * (PIXEL + LOGIT * pixel_classes)
    return steps * STEP + samples * sample


def training_work(family: str, shape: Input, configuration: Configuration) -> float:
    """Return the work of training on one sample, forward and backward, in millions of multiply-adds or their like."""
    if is_timm(family):
        passes = FROZEN_PASSES.get(str(configuration.get("frozen")), PASSES)
        return passes * timm_megaflops(family, configuration)
    if is_smp(family):
        return PASSES * smp_megaflops(family, configuration, shape)
    work = network_megaflops(family, configuration, shape)
    if values := network_megavalues(family, configuration, shape):
        return PASSES * (PLACED * work + MOVED * values)
    return work if has_fixed_transform(family, configuration) else PASSES * work
