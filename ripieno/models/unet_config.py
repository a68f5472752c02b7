"""Architecture of a U-Net from its configuration: defaults, levels, sizes of maps, cost. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args

from ripieno.models.resnet_config import LEAST, Activation, Convolution, block_parameters, groups, image_shape
from ripieno.models.value_rules import COUNT, SHARE_BELOW_1, NumberRule, ValueRules, check_values
from ripieno.types import Configuration, Input

FAMILY = "unet"
STEM_STRIDES = (1, 2, 4)
STEM_SIDE = 16
"""Shortest side of the map after the stem, in pixels at least: a larger stride would lose small objects."""


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net's hyperparameters and their defaults."""

    convolution: Convolution = "v1"
    """blocks of the residual family: `v1` post-activation, `v2` pre-activation, `next` grouped bottlenecks"""
    activation: Activation = "relu"
    width: int = 16
    """filters of the first level; each further level has twice as many"""
    levels: int = 4
    """resolutions of maps, each half of the one before it"""
    blocks: int = 1
    """blocks of each level on the way down; there is one on the way up"""
    stem_stride: int = 1
    """side in pixels of what becomes one place of the first level; the logits are enlarged by it at the end"""
    dropout: float = 0.0
    """share of the channels of the last level that are dropped in training"""


NAMES = frozenset(f.name for f in fields(UNetConfig))
_RULES: ValueRules = {
    "convolution": get_args(Convolution),
    "activation": get_args(Activation),
    **dict.fromkeys(("width", "levels", "blocks"), COUNT),
    "stem_stride": NumberRule(lambda value: value in STEM_STRIDES, f"one of {', '.join(map(str, STEM_STRIDES))}"),
    "dropout": SHARE_BELOW_1,
}


@dataclass(frozen=True)
class Level:
    """One resolution: `filters` channels, and the `side` in pixels of the image that one place of its map covers."""

    filters: int
    side: int


def unet_config(configuration: Configuration) -> UNetConfig:
    """Read the network's part of `configuration`, with defaults for absent names. Raises ModelError for a bad value."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    check_values(chosen, _RULES)
    return UNetConfig(**chosen)


def levels(network: UNetConfig, input: Input) -> tuple[Level, ...]:
    """Return the levels of a network for images of this size: small images have fewer, and a smaller stem's stride."""
    height, width, _ = image_shape(input)
    shorter = min(height, width)
    side = next((s for s in reversed(STEM_STRIDES) if s <= network.stem_stride and shorter // s >= STEM_SIDE), 1)
    found = [Level(network.width, side)]
    while len(found) < network.levels and shorter // (2 * side) >= LEAST:
        side *= 2
        found.append(Level(2 * found[-1].filters, side))
    return tuple(found)


def block_filters(network: UNetConfig, channels: int) -> int:
    """Return the filters of a block that gives `channels`: bottlenecks double theirs."""
    return max(1, channels // 2) if network.convolution == "next" else channels


def unet_megaflops(configuration: Configuration, input: Input, outputs: int = 0) -> float:
    """Count the multiply-adds of one sample in millions: all convolutions, of the last one those of `outputs` classes.

    Raises ModelError for a bad configuration, and for inputs that are no images.
    """
    network = unet_config(configuration)
    height, width, channels = image_shape(input)
    chosen = levels(network, input)
    first, deepest = chosen[0], chosen[-1]
    padded = _pixels(height, deepest.side) * _pixels(width, deepest.side) * deepest.side**2
    places = [padded // level.side**2 for level in chosen]
    total = places[0] * stem_kernel(first) ** 2 * channels * first.filters
    before = first.filters
    for index, level in enumerate(chosen):
        for number in range(network.blocks):
            stride = 2 if index and not number else 1
            total += _block(network, before, level.filters, places[index] * stride**2, places[index], stride)
            before = level.filters
    for index in reversed(range(len(chosen) - 1)):
        filters = chosen[index].filters
        total += places[index + 1] * chosen[index + 1].filters * filters
        total += _block(network, 2 * filters, filters, places[index], places[index], 1)
    return (total + places[0] * first.filters * outputs) / 1e6


def unet_parameters(configuration: Configuration, input: Input, outputs: int) -> int:
    """Count the parameters of a network for `outputs` classes.

    Raises ModelError for a bad configuration, and for inputs that are no images.
    """
    network = unet_config(configuration)
    _, _, channels = image_shape(input)
    chosen = levels(network, input)
    first = chosen[0]

    def block(c_in: int, c_out: int, stride: int) -> int:
        return block_parameters(network.convolution, block_filters(network, c_out), c_in, c_out, stride)

    before = first.filters
    total = stem_kernel(first) ** 2 * channels * before + 2 * before
    for index, level in enumerate(chosen):
        total += block(before, level.filters, 2 if index else 1)
        before = level.filters
        total += (network.blocks - 1) * block(before, before, 1)
    for level in reversed(chosen[:-1]):
        total += before * level.filters + block(2 * level.filters, level.filters, 1)
        before = level.filters
    last_norm = 2 * before if network.convolution == "v2" else 0
    return total + last_norm + (before + 1) * outputs


def stem_kernel(first: Level) -> int:
    """Return the side of the first convolution's kernel, which overlaps its neighbours' at any stride."""
    return 2 * first.side + 1 if first.side > 1 else 3


def _block(network: UNetConfig, c_in: int, c_out: int, before: int, after: int, stride: int) -> int:
    """Count the multiply-adds of a block from a map of `before` places to one of `after`."""
    project = after * c_in * c_out if stride != 1 or c_in != c_out else 0
    if network.convolution != "next":
        return project + after * 9 * (c_in + c_out) * c_out
    count, middle = groups(block_filters(network, c_out))
    return project + before * c_in * middle + after * 9 * middle * middle // count + after * middle * c_out


def _pixels(side: int, stride: int) -> int:
    return -(-side // stride)
