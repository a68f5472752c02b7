"""Hyperparameters of networks of series: names, defaults, checks, cost. No torch.

A search may have the family `series`: the hyperparameter `network` then names the network, and the members are of the
family of that name, such as `lite`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import ModelError
from ripieno.models.named_network import choose_network
from ripieno.models.value_rules import ABOVE_0, SHARE_BELOW_1, ValueRules, check_values
from ripieno.types import Configuration, Input, Value

FAMILY = "series"
"""The family of a search whose configurations name the network."""
NETWORKS = tuple(name for name in DATA_KINDS["series"].families if name not in (FAMILY, "cell"))
FIXED_TRANSFORMS = ("minirocket", "hydra")
"""Networks of fixed convolutions, of which only a linear head is trained."""
Normalisation = Literal["series", "channel"]


@dataclass(frozen=True)
class SeriesConfig:
    """Hyperparameters of a network of series and their defaults, of widths and kernels those published."""

    network: str
    """one of `NETWORKS`"""
    normalisation: Normalisation = "channel"
    """`series`: each channel of each series by its own mean and deviation; `channel`: by those of the data set"""
    width_factor: float = 1.0
    """factor of the published numbers of filters; of `minirocket` and `hydra`, of features"""
    kernel_factor: float = 1.0
    """factor of the published lengths of the trained kernels"""
    dropout: float = 0.0
    """share of the features that are dropped before the head in training"""

    def filters(self, published: int) -> int:
        """Return the number of filters for a `published` one."""
        return max(1, round(published * self.width_factor))

    def kernel(self, published: int, length: int) -> int:
        """Return the odd length of a kernel for a `published` one, at most that of the series, of `length` points."""
        longest = max(1, 2 * ((length + 1) // 2) - 1)
        return min(longest, 2 * round((published * self.kernel_factor - 1) / 2) + 1)


NAMES = frozenset(f.name for f in fields(SeriesConfig))
TRAINING_DEFAULTS: Mapping[str, Value] = {
    "optimizer": "adamw",
    "learning_rate": 0.003,
    "weight_decay": 0.01,
    "epoch_samples": 1000,
}
"""Defaults of the optimisation of these families; see `ripieno.train.optim` for the others."""
_RULES: ValueRules = {
    "width_factor": ABOVE_0,
    "kernel_factor": ABOVE_0,
    "dropout": SHARE_BELOW_1,
    "normalisation": get_args(Normalisation),
}


def is_series_family(family: str) -> bool:
    """Return whether `family` is of networks of series."""
    return family == FAMILY or family in NETWORKS


def has_fixed_transform(family: str, configuration: Configuration) -> bool:
    """Return whether only a linear head is trained in the network of `configuration`."""
    return is_series_family(family) and series_config(family, configuration).network in FIXED_TRANSFORMS


def series_config(family: str, configuration: Configuration) -> SeriesConfig:
    """Read the network's part of `configuration`, with defaults for absent names. Raises ModelError for a bad one."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    chosen["network"] = choose_network(FAMILY, NETWORKS, family, configuration)
    check_values(chosen, _RULES)
    return SeriesConfig(**chosen)


def series_shape(input: Input) -> tuple[int, int]:
    """Return length and channels of one sample. Raises ModelError when it is no series."""
    if len(input.shape) != 2 or min(input.shape) < 1:
        raise ModelError(f"samples have shape {input.shape}; networks of series need (length, channels)")
    length, channels = input.shape
    return length, channels


FCN_LAYERS = (128, 7), (256, 5), (128, 3)
"""Filters and kernel of each convolution of `fcn`; published with a kernel of 8 first, which has no middle."""
RESNET_FILTERS, RESNET_KERNELS = (64, 128, 128), (7, 5, 3)
"""Filters of each block of `resnet-1d`, and the kernels of each of its three convolutions (published: 8, 5, 3)."""
PARALLEL_FILTERS, PARALLEL_KERNELS = 32, (41, 21, 11)
"""Filters and kernels of the parallel convolutions of `inception` and `lite` (published: 40, 20, 10)."""
INCEPTION_DEPTH, INCEPTION_SHORTCUT = 6, 3
"""Modules of `inception`, and those that a shortcut passes."""
SEPARABLE_LAYERS = (21, 2), (11, 4)
"""Kernel and dilation of each separable convolution of `lite` (published: 20 and 10)."""
TREND_FILTERS, PEAK_FILTERS = (2, 4, 8, 16, 32, 64), (6, 12, 24, 48, 96)
"""Lengths of the hand-made filters of `lite`; each of a trend is there twice, for rise and fall."""
ROCKET_KERNELS, ROCKET_TAPS, ROCKET_FEATURES, ROCKET_DILATIONS = 84, 9, 9996, 16
"""Kernels of `minirocket`, their length, its features, and its dilations at most."""
HYDRA_GROUPS, HYDRA_KERNELS, HYDRA_TAPS, HYDRA_BLOCK = 64, 8, 9, 8
"""Groups of `hydra` for each dilation, kernels in a group, their length, and groups that are computed together."""


def fixed_lengths(lengths: tuple[int, ...], length: int) -> list[int]:
    """Return the lengths of hand-made filters that fit into a series of `length` points."""
    return [kernel for kernel in lengths if kernel <= length]


def rocket_dilations(length: int) -> list[int]:
    """Return the dilations of `minirocket`, in geometric steps from 1 to that at which a kernel has the length."""
    longest = math.log2(max(1.0, (length - 1) / (ROCKET_TAPS - 1)))
    steps = range(ROCKET_DILATIONS)
    return sorted({int(2 ** (longest * step / (ROCKET_DILATIONS - 1))) for step in steps})


def rocket_blocks(config: SeriesConfig) -> int:
    """Return the number of blocks of `minirocket`; a block has one feature of each kernel, at one dilation."""
    return max(1, round(ROCKET_FEATURES * config.width_factor / ROCKET_KERNELS))


def hydra_dilations(length: int) -> list[int]:
    """Return the dilations of `hydra`: the powers of two at which a kernel is no longer than the series."""
    longest = math.log2(max(1.0, (length - 1) / (HYDRA_TAPS - 1)))
    return [2**power for power in range(int(longest) + 1)]


def hydra_blocks(config: SeriesConfig, length: int) -> int:
    """Return the number of blocks of `hydra`; a block is some groups at one dilation."""
    return len(hydra_dilations(length)) * max(1, round(HYDRA_GROUPS * config.width_factor / HYDRA_BLOCK))


def series_megaflops(family: str, configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one series in millions: all convolutions. Raises ModelError for a bad configuration.

    This takes a few microseconds and builds no network.
    """
    config = series_config(family, configuration)
    length, channels = series_shape(input)
    return length * _COSTS[config.network](config, length, channels) / 1e6


def _fcn_cost(config: SeriesConfig, length: int, channels: int) -> int:
    cost = 0
    for published, kernel in FCN_LAYERS:
        filters = config.filters(published)
        cost += channels * filters * config.kernel(kernel, length)
        channels = filters
    return cost


def _resnet_cost(config: SeriesConfig, length: int, channels: int) -> int:
    first, second, third = (config.kernel(kernel, length) for kernel in RESNET_KERNELS)
    cost = 0
    for published in RESNET_FILTERS:
        filters = config.filters(published)
        shortcut = channels if channels != filters else 0
        cost += filters * (channels * first + filters * (second + third) + shortcut)
        channels = filters
    return cost


def _inception_cost(config: SeriesConfig, length: int, channels: int) -> int:
    filters = config.filters(PARALLEL_FILTERS)
    kernels = sum(config.kernel(kernel, length) for kernel in PARALLEL_KERNELS)
    wide, cost, before = 4 * filters, 0, channels
    for module in range(INCEPTION_DEPTH):
        narrow = filters if channels > 1 else channels
        cost += (channels * narrow if channels > 1 else 0) + narrow * filters * kernels + channels * filters
        channels = wide
        if module % INCEPTION_SHORTCUT == INCEPTION_SHORTCUT - 1:
            cost += before * wide
            before = wide
    return cost


def _lite_cost(config: SeriesConfig, length: int, channels: int) -> int:
    filters = config.filters(PARALLEL_FILTERS)
    cost = channels * filters * sum(config.kernel(kernel, length) for kernel in PARALLEL_KERNELS)
    trends, peaks = (fixed_lengths(lengths, length) for lengths in (TREND_FILTERS, PEAK_FILTERS))
    cost += _hand_made_cost(trends, peaks)
    channels = 3 * filters + 2 * len(trends) + len(peaks)
    for kernel, _ in SEPARABLE_LAYERS:
        cost += channels * (config.kernel(kernel, length) + filters)
        channels = filters
    return cost


def _hand_made_cost(trends: list[int], peaks: list[int]) -> int:
    # all have the odd length of the longest
    return (len(trends) + len(peaks)) * (max([*trends, *peaks], default=0) | 1)


def _rocket_cost(config: SeriesConfig, length: int, channels: int) -> int:
    blocks, dilations = rocket_blocks(config), len(rocket_dilations(length))
    # each feature compares all points with its bias
    return ROCKET_KERNELS * (min(blocks, dilations) * ROCKET_TAPS * channels + blocks)


def _hydra_cost(config: SeriesConfig, length: int, channels: int) -> int:
    # each kernel is compared with the others, twice
    return hydra_blocks(config, length) * HYDRA_BLOCK * HYDRA_KERNELS * (HYDRA_TAPS * channels + 2)


_COSTS: Mapping[str, Callable[[SeriesConfig, int, int], int]] = {
    "lite": _lite_cost,
    "inception": _inception_cost,
    "resnet-1d": _resnet_cost,
    "fcn": _fcn_cost,
    "minirocket": _rocket_cost,
    "hydra": _hydra_cost,
}
"""Multiply-adds of one point of a series, by network: functions of the hyperparameters, length and channels."""


def series_features(family: str, configuration: Configuration, input: Input) -> int:
    """Return the number of features that the head takes, after the last epoch. Raises ModelError as `series_megaflops`.

    Of networks of fixed convolutions, a network has fewer before its last epoch.
    """
    config = series_config(family, configuration)
    length, _ = series_shape(input)
    published = {"fcn": FCN_LAYERS[-1][0], "resnet-1d": RESNET_FILTERS[-1]}.get(config.network, PARALLEL_FILTERS)
    if config.network == "minirocket":
        return rocket_blocks(config) * ROCKET_KERNELS
    if config.network == "hydra":
        return hydra_blocks(config, length) * 2 * HYDRA_BLOCK * HYDRA_KERNELS
    return config.filters(published) * (4 if config.network == "inception" else 1)


def series_parameters(family: str, configuration: Configuration, input: Input, outputs: int) -> int:
    """Count the parameters of a network, after its last epoch. Raises ModelError as `series_megaflops`."""
    config = series_config(family, configuration)
    length, channels = series_shape(input)
    head = (series_features(family, configuration, input) + 1) * outputs
    if config.network in FIXED_TRANSFORMS:
        return head
    # a convolution has a weight for each multiply-add of a point, and a norm two for each of its maps
    weights = _COSTS[config.network](config, length, channels)
    filters = config.filters(PARALLEL_FILTERS)
    if config.network == "fcn":
        normalised = sum(config.filters(published) for published, _ in FCN_LAYERS)
    elif config.network == "resnet-1d":
        normalised = (len(RESNET_KERNELS) + 1) * sum(map(config.filters, RESNET_FILTERS))
    elif config.network == "inception":
        normalised = 4 * filters * (INCEPTION_DEPTH + INCEPTION_DEPTH // INCEPTION_SHORTCUT)
    else:
        trends, peaks = (fixed_lengths(lengths, length) for lengths in (TREND_FILTERS, PEAK_FILTERS))
        weights -= _hand_made_cost(trends, peaks)
        normalised = 3 * filters + 2 * len(trends) + len(peaks) + len(SEPARABLE_LAYERS) * filters
    return weights + 2 * normalised + head
