"""Cost of a configuration in closed form: pure Python, a few microseconds, no network built."""

from __future__ import annotations

from ripieno.models.resnet_config import Architecture, Stage, architecture, groups, image_shape, stages, stem
from ripieno.types import Configuration, Input


def megaflops(configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one sample in millions: all convolutions (the classifier's share is negligible).

    Raises ModelError for a configuration that makes no residual network.
    """
    network = architecture(configuration)
    first = stem(input)
    _, _, channels = image_shape(input)
    total = first.after * first.kernel**2 * channels * network.stem_filters
    return (total + sum(_stage(network, stage) for stage in stages(network, input))) / 1e6


def _stage(network: Architecture, stage: Stage) -> int:
    """Count the multiply-adds of a stage: its first block, which strides and projects, and the others."""
    count, middle = groups(stage.filters)
    c_in, c_out = stage.channels_in, stage.channels_out
    project = stage.after * c_in * c_out if stage.stride != 1 or c_in != c_out else 0
    if network.convolution == "next":
        grouped = stage.after * 9 * middle * middle // count
        first = stage.before * c_in * middle + grouped + stage.after * middle * c_out
        other = stage.after * c_out * middle + grouped + stage.after * middle * c_out
    else:
        first = stage.after * 9 * (c_in + c_out) * c_out
        other = stage.after * 9 * 2 * c_out * c_out
    return project + first + (stage.blocks - 1) * other
