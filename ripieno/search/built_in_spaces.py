"""The built-in search spaces, found by name, and made to fit data and task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import SearchError
from ripieno.models import cell_config, policy_config, series_config, smp_config, table_config, unet_config
from ripieno.models.cell_spec import MOST_BLOCKS
from ripieno.models.timm_config import FAMILY
from ripieno.search.space import Categorical, Continuous, Integer, Range, Space, space_from_json
from ripieno.tasks.registry import kind_of
from ripieno.tasks.task_kind import TRAINING_OPTIONS
from ripieno.types import DataKind, Task

_BLOCKS = ("blocks_1", "blocks_2", "blocks_3", "blocks_4")

_PAPER = Space(
    "resnet-paper",
    "resnet",
    {  # table 5, row by row
        "learning_rate": Continuous(0.001, 0.01),
        "batch_size": Integer(8, 48),
        "weight_decay": Continuous(0.0, 0.1),
        "convolution": Categorical(("v1", "v2", "next")),
        "activation": Categorical(("tanh", "relu", "elu")),
        "stem_filters": Integer(32, 128),
        "width": Integer(32, 128),
        **dict.fromkeys(_BLOCKS, Integer(1, 11)),
        "max_zoom": Continuous(0.0, 0.6),
        "max_translation": Continuous(0.0, 0.6),
        "max_shear": Continuous(0.0, 0.3),
        "max_channel_shift": Continuous(0.0, 0.3),
        "max_rotation": Integer(0, 90),
    },
    {"optimizer": "adam", "schedule": "constant", "flip": False, "label_smoothing": 0.0},
)
"""Section A.2: "we use Adam"; the learning rate is constant, as the paper states no schedule."""

_RESNET = Space(
    "resnet",
    "resnet",
    {
        "learning_rate": Continuous(0.001, 0.03, log=True),
        "batch_size": Integer(32, 128, log=True),
        "weight_decay": Continuous(1e-5, 0.03, log=True),
        "optimizer": Categorical(("adamw", "sgd")),
        "label_smoothing": Continuous(0.0, 0.1),
        "convolution": Categorical(("v1", "v2", "next")),
        "activation": Categorical(("relu", "elu")),
        "stem_filters": Integer(16, 64, log=True),
        "width": Integer(16, 64, log=True),
        **dict.fromkeys(_BLOCKS, Integer(1, 3)),
        "max_zoom": Continuous(0.0, 0.2),
        "max_translation": Continuous(0.0, 0.15),
        "max_shear": Continuous(0.0, 0.1),
        "max_channel_shift": Continuous(0.0, 0.1),
        "max_rotation": Integer(0, 15),
        "flip": Categorical((False, True)),
    },
    {"schedule": "rung"},
)
"""Log-uniform rates, annealed jobs, moderate augmentation, networks about thirty times cheaper than the paper's."""

_SMALL = Space(
    "resnet-small",
    "resnet",
    {
        **_RESNET.ranges,
        "stem_filters": Integer(8, 24, log=True),
        "width": Integer(6, 16, log=True),
        **dict.fromkeys(_BLOCKS, Integer(1, 2)),
    },
    _RESNET.fixed,
)
"""`resnet` for CPUs: 1 to 16 million multiply-adds for 28 x 28 pixels; an epoch takes seconds, not minutes."""

_TINY = Space(
    "resnet-tiny",
    "resnet",
    {
        "learning_rate": Continuous(0.002, 0.03, log=True),
        "batch_size": Integer(32, 128, log=True),
        "weight_decay": Continuous(1e-5, 0.03, log=True),
        "convolution": Categorical(("v1", "v2", "next")),
        "activation": Categorical(("relu", "elu")),
        "stem_filters": Integer(8, 16),
        "width": Integer(4, 16),
        **dict.fromkeys(_BLOCKS, Integer(1, 2)),
        "max_zoom": Continuous(0.0, 0.15),
        "max_translation": Continuous(0.0, 0.12),
        "max_shear": Continuous(0.0, 0.1),
        "max_rotation": Integer(0, 15),
    },
    {"optimizer": "adamw", "schedule": "rung", "flip": False, "label_smoothing": 0.0, "max_channel_shift": 0.0},
)
"""For images of 8 x 8 pixels on CPUs."""

_RESNET_TABLE = Space(
    "resnet-table",
    "resnet",
    {
        **{name: _TINY.ranges[name] for name in ("learning_rate", "batch_size", "weight_decay", "activation")},
        "convolution": Categorical(("v1", "v2")),
        "label_smoothing": Continuous(0.0, 0.1),
        "stem_filters": Integer(16, 64, log=True),
        "width": Integer(8, 32, log=True),
        **dict.fromkeys(_BLOCKS, Integer(1, 2)),
    },
    {"optimizer": "adamw", "schedule": "rung"},
)
"""For images of one pixel with one channel per feature, as version 1 read tables; without augmentation."""

_FAST_BACKBONES = (
    "resnet10t",
    "lcnet_100",
    "mobilenetv1_125",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "hgnetv2_b0",
    "hgnetv2_b2",
    "edgenext_small",
    "convnext_pico",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
)
"""The most accurate on ImageNet among the fastest on a CPU, by timm's tables, with some variety of design.

Their inputs may have any size from 32 pixels. MobileNetV2 and EfficientNet-Lite have no operation that a quantised or
embedded backend lacks.
"""
_LARGER_BACKBONES = (
    "resnet50",
    "efficientnet_b0",
    "regnety_032",
    "rexnetr_200",
    "mobilenetv4_conv_large",
    "fastvit_sa12",
    "hgnetv2_b4",
    "edgenext_base",
    "convnext_nano",
    "convnext_tiny",
    "convnextv2_tiny",
    "caformer_s18",
    "nextvit_small",
    "hgnet_small",
)
_TIMM_SMALL = Space(
    "timm-small",
    FAMILY,
    {
        "backbone": Categorical(_FAST_BACKBONES),
        "resolution": Categorical((96, 128, 160)),
        "frozen": Categorical(("most", "none")),
        "learning_rate": Continuous(1e-4, 1e-3, log=True),
        "layer_decay": Continuous(0.8, 0.98),
        "batch_size": Integer(16, 64, log=True),
        "weight_decay": Continuous(1e-3, 0.3, log=True),
        "label_smoothing": Continuous(0.0, 0.2),
        "dropout": Continuous(0.0, 0.3),
        "drop_path": Continuous(0.0, 0.2),
        "ema": Categorical((0.0, 0.99)),
        "min_crop": Continuous(0.3, 1.0),
        "flip": Categorical((False, True)),
        "colour": Continuous(0.0, 0.4),
        "mixup": Categorical((0.0, 0.2)),
    },
    {"optimizer": "adamw", "schedule": "rung", "warm_up": 0.1},
)
"""Fine-tuning on a CPU. The backbone's rate is lower than the head's by `layer_decay`, about 10 times in its middle.

No trial trains its head alone (`frozen` "all") beyond the first epoch, which fits the head better. There is no CutMix:
it takes more epochs than a CPU trains.
"""
_TIMM = Space(
    "timm",
    FAMILY,
    {
        **_TIMM_SMALL.ranges,
        "backbone": Categorical((*_FAST_BACKBONES, *_LARGER_BACKBONES)),
        "resolution": Categorical((160, 192, 224)),
        "batch_size": Integer(32, 128, log=True),
        "cutmix": Categorical((0.0, 1.0)),
    },
    _TIMM_SMALL.fixed,
)
"""`timm-small` for GPUs, with larger backbones, and CutMix."""

_ENCODERS = (
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite2",
    "efficientnet_b0",
    "resnet34",
    "resnet50",
)
"""Encoders of timm that all architectures take, and whose pretrained weights are common."""
_PIXEL_AUGMENTATION: dict[str, Range] = {
    "max_zoom": Continuous(0.0, 0.3),
    "max_translation": Continuous(0.0, 0.15),
    "max_rotation": Integer(0, 15),
    "max_channel_shift": Continuous(0.0, 0.1),
    "colour": Continuous(0.0, 0.4),
    "flip": Categorical((False, True)),
}

_FACTORS = ("width_factor", "kernel_factor")
_SERIES = Space(
    "series",
    series_config.FAMILY,
    {
        "network": Categorical(series_config.NETWORKS),
        "normalisation": Categorical(("series", "channel")),
        "width_factor": Continuous(0.25, 1.0, log=True),
        "kernel_factor": Continuous(0.5, 1.5),
        "dropout": Continuous(0.0, 0.5),
        "learning_rate": Continuous(5e-4, 1e-2, log=True),
        "batch_size": Integer(8, 64, log=True),
        "weight_decay": Continuous(1e-4, 0.3, log=True),
        "label_smoothing": Continuous(0.0, 0.1),
        "jitter": Continuous(0.0, 0.2),
        "scaling": Continuous(0.0, 0.2),
        "window_warp": Continuous(0.0, 0.3),
        "crop": Continuous(0.0, 0.2),
    },
    {"optimizer": "adamw", "schedule": "rung", "epoch_samples": 1000},
)
"""All networks of series; with 200 series, 27 epochs of 1,000 samples pass each 135 times."""

_TABLE = Space(
    "table",
    table_config.FAMILY,
    {
        "network": Categorical(table_config.NETWORKS),
        "embedding": Categorical(("periodic", "piecewise-linear")),
        "normalisation": Categorical(("quantile", "robust")),
        "layers": Integer(1, 4),
        "units": Integer(64, 512, log=True),
        "dropout": Continuous(0.0, 0.5),
        "embedding_size": Integer(8, 32),
        "frequency_scale": Continuous(0.02, 2.0, log=True),
        "bins": Integer(8, 64, log=True),
        "category_size": Integer(4, 32, log=True),
        "learning_rate": Continuous(5e-4, 1e-2, log=True),
        "batch_size": Integer(64, 512, log=True),
        "weight_decay": Continuous(1e-3, 1.0, log=True),
    },
    {"optimizer": "adamw", "schedule": "rung", "epoch_samples": 2000},
)
"""Both networks of tables, about the ranges of Gorishniy et al. 2022; with 500 rows, an epoch passes each 4 times.

Labels are not smoothed: it costs more of the log-loss of unbalanced classes than it gains.
"""

_SEGMENTATION = Space(
    "segmentation",
    unet_config.FAMILY,
    {
        "convolution": Categorical(("v1", "v2", "next")),
        "activation": Categorical(("relu", "elu")),
        "width": Integer(16, 48, log=True),
        "levels": Integer(4, 6),
        "blocks": Integer(1, 3),
        "stem_stride": Categorical((1, 2)),
        "dropout": Continuous(0.0, 0.3),
        "training_loss": Categorical(("cross-entropy-dice", "cross-entropy")),
        "learning_rate": Continuous(5e-4, 1e-2, log=True),
        "batch_size": Integer(4, 16, log=True),
        "weight_decay": Continuous(1e-4, 0.1, log=True),
        **_PIXEL_AUGMENTATION,
    },
    {"optimizer": "adamw", "schedule": "rung", "epoch_samples": 1000},
)
"""U-Nets from random weights, for GPUs; with 400 images, 27 epochs of 1,000 samples pass each 81 times."""

_SEGMENTATION_SMALL = Space(
    "segmentation-small",
    unet_config.FAMILY,
    {
        **_SEGMENTATION.ranges,
        "width": Integer(6, 16, log=True),
        "levels": Integer(3, 5),
        "blocks": Integer(1, 2),
        "stem_stride": Categorical((2, 4)),
        "batch_size": Integer(2, 8, log=True),
    },
    _SEGMENTATION.fixed,
)
"""`segmentation` for CPUs: the first level has a quarter or a sixteenth of the pixels."""

_SEGMENTATION_PRETRAINED = Space(
    "segmentation-pretrained",
    smp_config.FAMILY,
    {
        "architecture": Categorical(get_args(smp_config.SmpArchitecture)),
        "backbone": Categorical(_ENCODERS),
        "decoder_width": Continuous(0.25, 1.0, log=True),
        "encoder_rate": Continuous(0.03, 0.5, log=True),
        "training_loss": Categorical(("cross-entropy-dice", "cross-entropy")),
        "learning_rate": Continuous(3e-4, 3e-3, log=True),
        "batch_size": Integer(4, 16, log=True),
        "weight_decay": Continuous(1e-4, 0.1, log=True),
        **_PIXEL_AUGMENTATION,
    },
    {"optimizer": "adamw", "schedule": "rung", "warm_up": 0.1},
)
"""Decoders on pretrained encoders; the decoder is larger and trains faster than the encoder."""


def _cell_slots(kind: DataKind) -> dict[str, Range]:
    """Return the ranges of the inputs and operators of the blocks of cells."""
    values = cell_config.slot_values(cell_config.SEARCHED[kind])
    return {name: Categorical(choices) for name, choices in values.items()}


_CELL = Space(
    "cell",
    cell_config.FAMILY,
    {
        "blocks": Integer(1, MOST_BLOCKS),
        **{
            name: Categorical(values) for name, values in cell_config.slot_values(cell_config.SEARCHED["image"]).items()
        },
        "filters": Integer(8, 24, log=True),
        "motifs": Integer(2, 4),
        "normal_cells": Integer(1, 2),
        "outputs": Categorical(("concatenate", "add")),
        "residual": Categorical((False, True)),
        "dropout": Continuous(0.0, 0.3),
        "learning_rate": Continuous(0.001, 0.03, log=True),
        "batch_size": Integer(32, 128, log=True),
        "weight_decay": Continuous(1e-5, 0.03, log=True),
        "label_smoothing": Continuous(0.0, 0.1),
        "max_zoom": Continuous(0.0, 0.2),
        "max_translation": Continuous(0.0, 0.15),
        "max_rotation": Integer(0, 15),
        "flip": Categorical((False, True)),
    },
    {"optimizer": "adamw", "schedule": "rung"},
)
"""Cells of one to five blocks, drawn edge by edge, in networks for CPUs; what later blocks would have is ignored."""
_MACRO = ("filters", "motifs", "normal_cells", "outputs", "residual")
_CELL_SERIES = Space(
    "cell-series",
    cell_config.FAMILY,
    {
        "blocks": _CELL.ranges["blocks"],
        **_cell_slots("series"),
        **{name: _CELL.ranges[name] for name in _MACRO},
        **{name: choice for name, choice in _SERIES.ranges.items() if name not in ("network", *_FACTORS)},
    },
    _SERIES.fixed,
)
"""Cells of series."""
_CELL_SEGMENTATION = Space(
    "cell-segmentation",
    cell_config.FAMILY,
    {
        "blocks": _CELL.ranges["blocks"],
        **_cell_slots("image"),
        **{name: _CELL.ranges[name] for name in ("outputs", "residual")},
        "filters": Integer(6, 16, log=True),
        "motifs": Integer(3, 5),
        **{name: choice for name, choice in _SEGMENTATION_SMALL.ranges.items() if name not in unet_config.NAMES},
        **{name: _SEGMENTATION_SMALL.ranges[name] for name in ("stem_stride", "dropout")},
    },
    {**_SEGMENTATION.fixed, "normal_cells": 1},
)
"""Cells as encoders of U-Nets, for CPUs."""

_LIGHTGBM = Space(
    "lightgbm",
    "trees:lightgbm",
    {
        "learning_rate": Continuous(0.02, 0.3, log=True),
        "num_leaves": Integer(4, 63, log=True),
        "min_child_samples": Integer(5, 50, log=True),
        "feature_fraction": Continuous(0.3, 1.0),
        "bagging_fraction": Continuous(0.5, 1.0),
        "lambda_l2": Continuous(1e-3, 10.0, log=True),
    },
    {"rounds": 10},
)
"""An epoch is ten rounds: 27 epochs are 270."""

_FOREST: dict[str, Range] = {
    "max_features": Continuous(0.02, 0.6, log=True),
    "min_samples_leaf": Integer(1, 10, log=True),
}
_RANDOM_FOREST = Space("random-forest", "trees:random-forest", _FOREST, {"trees": 10})
_EXTRA_TREES = Space("extra-trees", "trees:extra-trees", _FOREST, {"trees": 10})

_POLICY = Space(
    "policy",
    policy_config.FAMILY,
    {
        "algorithm": Categorical(tuple(policy_config.ALGORITHMS)),
        "layers": Integer(1, 3),
        "units": Integer(32, 256, log=True),
        "activation": Categorical(("tanh", "relu")),
        "learning_rate": Continuous(1e-4, 3e-3, log=True),
        "gamma": Continuous(0.95, 0.999),
        "batch_size": Integer(32, 256, log=True),
        "learning_starts": Categorical((100, 500)),
        "train_freq": Categorical((1, 4)),
        "exploration_steps": Integer(500, 10_000, log=True),
        "exploration_final_eps": Continuous(0.01, 0.1),
        "target_update_interval": Integer(50, 2000, log=True),
        "tau": Continuous(0.002, 0.05, log=True),
        "action_noise": Continuous(0.05, 0.5),
        "n_steps": Categorical((125, 250, 500, 1000)),
        "n_epochs": Integer(4, 20),
        "gae_lambda": Continuous(0.9, 0.99),
        "clip_range": Continuous(0.1, 0.3),
        "ent_coef": Continuous(1e-5, 0.02, log=True),
    },
    {"steps": 1000, "buffer_size": 100_000},
)
"""Policies; 27 units are 27,000 steps of the environment. An algorithm ignores what only others have."""

_BUILT_IN = (
    *(_TINY, _SMALL, _RESNET, _PAPER, _TIMM_SMALL, _TIMM, _SERIES, _TABLE),
    *(_SEGMENTATION_SMALL, _SEGMENTATION, _SEGMENTATION_PRETRAINED),
    *(_CELL, _CELL_SERIES, _CELL_SEGMENTATION, _LIGHTGBM, _RANDOM_FOREST, _EXTRA_TREES),
    _POLICY,
)
SPACES: dict[str, Space] = {space.name: space for space in _BUILT_IN}
"""The built-in spaces by name."""
RETIRED = {_RESNET_TABLE.name: _RESNET_TABLE}
"""Built-in spaces of former versions, which are not listed: runs have them, and scripts may name them."""

_AUGMENTATION = (
    *("max_zoom", "max_translation", "max_shear", "max_channel_shift", "max_rotation"),
    *("flip", "min_crop", "colour", "cutmix", "erasing"),
)
"""Hyperparameters of images only."""
_SERIES_AUGMENTATION = ("jitter", "scaling", "window_warp", "crop")
"""Hyperparameters of series only."""


def find_space(name: str | Path) -> Space:
    """Return the space called `name` or in the JSON file `name`. Raises SearchError that lists the known names."""
    if (found := (SPACES | RETIRED).get(str(name))) is not None:
        return found
    if str(name).endswith(".json"):
        return space_from_json(name)
    raise SearchError(f"no space {str(name)!r}; there are: {', '.join(SPACES)}, or the path of a .json file")


def fit_space(space: Space, kind: DataKind, task: Task) -> Space:
    """Return `space` without the hyperparameters that do not fit inputs of `kind` or the `task`.

    Built-in spaces leave them out. Raises SearchError when another space has one.
    """
    unfit = {name: f"task {task.kind}" for name in TRAINING_OPTIONS if name not in kind_of(task).training_options}
    if not DATA_KINDS[kind].is_picture:
        unfit |= dict.fromkeys(_AUGMENTATION, f"inputs of kind {kind}")
    if kind != "series":
        unfit |= dict.fromkeys(_SERIES_AUGMENTATION, f"inputs of kind {kind}")
    ranges = {name: choice for name, choice in space.ranges.items() if name not in unfit}
    fixed = {name: value for name, value in space.fixed.items() if name not in unfit}
    if not is_built_in_space(space):
        if wrong := [name for name in space.ranges if name in unfit]:
            raise SearchError(f"space {space.name}: {wrong[0]} does not fit {unfit[wrong[0]]}: leave it out")
        return space
    return replace(space, ranges=ranges, fixed=fixed)


def fit_policy_space(space: Space, task: Task) -> Space:
    """Return a `space` of policies without the algorithms that do not take the actions of `task`.

    Hyperparameters that only these have are left out of the built-in space. Raises SearchError when another space has
    such an algorithm, or no algorithm is left.
    """
    fitting = policy_config.fitting_algorithms(task)
    default = policy_config.PolicyConfig().algorithm
    asked = space.ranges.get("algorithm", Categorical((space.fixed.get("algorithm", default),)))
    chosen = asked.choices if isinstance(asked, Categorical) else ()
    kept = tuple(str(name) for name in chosen if name in fitting)
    wrong = [name for name in chosen if name not in fitting]
    if not kept or (wrong and not is_built_in_space(space)):
        actions = "an action in a box" if task.low else "discrete actions"
        named = f"algorithm {wrong[0]!r}" if wrong else "the range of its algorithm"
        raise SearchError(f"space {space.name}: {named} does not take {actions}: use {' or '.join(fitting)}")
    if not wrong:
        return space
    unused = policy_config.unused_names(kept)
    ranges = {name: choice for name, choice in space.ranges.items() if name not in unused}
    fixed = {name: value for name, value in space.fixed.items() if name not in unused}
    return replace(space, ranges={**ranges, "algorithm": Categorical(kept)}, fixed=fixed)


def is_built_in_space(space: Space) -> bool:
    """Return whether all ranges of `space` are those of the built-in space of its name."""
    built_in = (SPACES | RETIRED).get(space.name)
    return built_in is not None and space.ranges.items() <= built_in.ranges.items()
