"""Architecture of a residual network from its configuration: defaults, stages, sizes of maps, cost. Pure Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

from ripieno.errors import ModelError
from ripieno.types import Configuration, Input

Convolution = Literal["v1", "v2", "next"]
Activation = Literal["tanh", "relu", "elu"]

SMALL = 64
"""Longer side of images with the 3x3 stem of stride 1, at most (appendix A.2: CIFAR's); larger images get 7x7."""
LEAST = 2
"""Shortest side of a map after a stride, in pixels at least, so that every tap of a 3x3 kernel can learn."""
CARDINALITY = 32
"""Groups of a grouped convolution at most, as in ResNeXt 32x4d."""


@dataclass(frozen=True)
class Architecture:
    """A residual network's hyperparameters (the "NN architecture" rows of table 5) and their defaults."""

    convolution: Convolution = "v1"
    """`v1` post-activation and `v2` pre-activation basic blocks, `next` grouped bottlenecks"""
    activation: Activation = "relu"
    stem_filters: int = 32
    width: int = 32
    """base width w: the four stages have w, 2w, 4w, 8w filters"""
    blocks_1: int = 2
    blocks_2: int = 2
    blocks_3: int = 2
    blocks_4: int = 2

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        """Blocks per stage."""
        return self.blocks_1, self.blocks_2, self.blocks_3, self.blocks_4

    @property
    def expansion(self) -> int:
        """Output channels of a block per filter of its stage: ResNeXt's bottlenecks double them."""
        return 2 if self.convolution == "next" else 1


NAMES = frozenset(f.name for f in fields(Architecture))
"""Hyperparameters that this module reads; the others of a configuration belong to training and augmentation."""


def architecture(configuration: Configuration) -> Architecture:
    """Read the architecture of `configuration`, with defaults for absent names. Raises ModelError for a bad value."""
    chosen = {name: value for name, value in configuration.items() if name in NAMES}
    for name, value in chosen.items():
        allowed = {"convolution": get_args(Convolution), "activation": get_args(Activation)}.get(name)
        if allowed is not None:
            if value not in allowed:
                raise ModelError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(f"{name} is {value!r}; expected a whole number of at least 1")
    return Architecture(**chosen)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stage:
    """One of the four stages: `blocks` blocks of `filters` filters, the first with `stride`."""

    blocks: int
    filters: int
    stride: int
    channels_in: int
    channels_out: int
    before: int
    """pixels of the input map"""
    after: int
    """pixels of the output map"""


@dataclass(frozen=True)
class Stem:
    """First convolution: `kernel` and `stride`; `pool`: a 3x3 max pool of stride 2 follows; `after`: output pixels."""

    kernel: int
    stride: int
    pool: bool
    after: int


def image_shape(input: Input) -> tuple[int, int, int]:
    """Return height, width and channels of one sample. Raises ModelError when it is no image."""
    if len(input.shape) != 3 or min(input.shape) < 1:
        raise ModelError(f"samples have shape {input.shape}; networks need (height, width, channels)")
    height, width, channels = input.shape
    return height, width, channels


def stem(input: Input) -> Stem:
    """Return the stem for images of this size."""
    height, width, _ = image_shape(input)
    if max(height, width) <= SMALL:
        return Stem(kernel=3, stride=1, pool=False, after=height * width)
    return Stem(kernel=7, stride=2, pool=True, after=_half(height) * _half(width))


def stages(network: Architecture, input: Input) -> Iterator[Stage]:
    """Yield the four stages with their strides and maps; kernels are padded, so that stride 2 gives ceil(side / 2)."""
    height, width, _ = image_shape(input)
    if stem(input).pool:
        height, width = _half(_half(height)), _half(_half(width))
    channels = network.stem_filters
    for index, blocks in enumerate(network.blocks):
        before = height * width
        stride = 2 if index > 0 and _half(min(height, width)) >= LEAST else 1
        if stride == 2:
            height, width = _half(height), _half(width)
        filters = network.width * 2**index
        out = filters * network.expansion
        yield Stage(blocks, filters, stride, channels, out, before, height * width)
        channels = out


def groups(filters: int) -> tuple[int, int]:
    """Return the groups of a grouped convolution and its channels, for a stage of `filters` filters.

    Each group has four channels up to 32 groups, and more beyond; the channels are rounded up to a multiple of the
    groups, so that every width can be grouped.
    """
    count = max(1, min(CARDINALITY, filters // 4))
    return count, -(-filters // count) * count


def megaflops(configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one sample in millions: all convolutions (the classifier's share is negligible).

    This takes a few microseconds and builds no network. Raises ModelError for a configuration that makes no residual
    network.
    """
    network = architecture(configuration)
    first = stem(input)
    _, _, channels = image_shape(input)
    total = first.after * first.kernel**2 * channels * network.stem_filters
    return (total + sum(_stage(network, stage) for stage in stages(network, input))) / 1e6


def megavalues(configuration: Configuration, input: Input) -> float:
    """Count the values that all convolutions give for one sample, in millions.

    Networks of few filters take longer to read and write their maps than to multiply. Raises ModelError for a
    configuration that makes no residual network.
    """
    network = architecture(configuration)
    total = stem(input).after * network.stem_filters
    for stage in stages(network, input):
        _, middle = groups(stage.filters)
        out = stage.after * stage.channels_out
        project = out if stage.stride != 1 or stage.channels_in != stage.channels_out else 0
        first = stage.before * middle + stage.after * middle + out if network.convolution == "next" else 2 * out
        other = 2 * stage.after * middle + out if network.convolution == "next" else 2 * out
        total += project + first + (stage.blocks - 1) * other
    return total / 1e6


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


def resnet_parameters(configuration: Configuration, input: Input, outputs: int) -> int:
    """Count the parameters of a network. Raises ModelError for a configuration that makes no residual network."""
    network, first = architecture(configuration), stem(input)
    _, _, channels = image_shape(input)
    total, features = first.kernel**2 * channels * network.stem_filters, network.stem_filters
    for stage in stages(network, input):
        form = network.convolution, stage.filters
        total += block_parameters(*form, stage.channels_in, stage.channels_out, stage.stride)
        features = stage.channels_out
        total += (stage.blocks - 1) * block_parameters(*form, features, features, 1)
    # pre-activation has its last norm at the end instead of after the stem
    normalised = features if network.convolution == "v2" else network.stem_filters
    return total + 2 * normalised + (features + 1) * outputs


def last_features(configuration: Configuration) -> int:
    """Return the number of features that the classifier takes. Raises ModelError for a bad configuration."""
    network = architecture(configuration)
    return 8 * network.width * network.expansion  # of the last stage


def block_parameters(convolution: Convolution, filters: int, c_in: int, c_out: int, stride: int) -> int:
    """Count the parameters of a block of `filters` filters from `c_in` to `c_out` channels, with its norms."""
    projects = stride != 1 or c_in != c_out
    project = c_in * c_out if projects else 0
    if convolution == "v2":
        return project + 9 * (c_in + c_out) * c_out + 2 * (c_in + c_out)
    project += 2 * c_out if projects else 0
    if convolution == "v1":
        return project + 9 * (c_in + c_out) * c_out + 4 * c_out
    count, middle = groups(filters)
    return project + (c_in + c_out + 9 * middle // count) * middle + 4 * middle + 2 * c_out


def _half(side: int) -> int:
    return -(-side // 2)
