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


def estimate_epoch_cost(family: str, shape: Input, samples: int, configuration: Configuration) -> float:
    """Estimate the milliseconds of one epoch; results are ordered by it, reproducibly, whatever the real timing.

    Where it orders results only ratios between configurations matter, and only roughly: a wrong guess costs waiting. A
    search in a given time leaves out networks that it finds too slow, residual networks by a short timing of this
    machine: see `time_fit`.
    """
    configuration = {**training_defaults(family), **configuration}
    if not has_fixed_transform(family, configuration):
        samples *= count_passes(samples, int(configuration.get("epoch_samples", 0)))
    steps = samples / float(configuration.get("batch_size", 64))
    passes = 3.0  # forward and backward are three times the forward
    if is_timm(family):
        work = timm_megaflops(family, configuration)
        passes = {"all": 1.0, "most": 1.5}.get(str(configuration.get("frozen")), passes)
    elif is_smp(family):
        work = smp_megaflops(family, configuration, shape)
    elif values := network_megavalues(family, configuration, shape):
        # in units of the others; fitted to 18 networks of resnet-small on images of 48 pixels, within a sixth
        work = 0.44 * network_megaflops(family, configuration, shape) + 73.0 * values
    else:
        work = network_megaflops(family, configuration, shape)
        passes = 1.0 if has_fixed_transform(family, configuration) else passes
    # a step costs some milliseconds however small the network
    return steps * 5.0 + samples * passes * work / 20.0
