"""Networks of timm: a backbone, which may be pretrained, and a linear head for the task.

Images are resized in the network, so that an exported graph takes them as the data set has them.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ripieno.errors import ModelError, error_summary
from ripieno.models.timm_config import BackboneConfig, Frozen, backbone_config
from ripieno.models.torchvision_import import import_timm
from ripieno.types import Configuration, Input

NEAREST = 3
"""Names that are proposed for an unknown one."""
_COLOURS = 3


class ImageResize(nn.Module):
    """Bilinear resize of images (batch, channels, height, width) to a square, antialiased where they shrink.

    It is two products with constant matrices: every backend then computes the same, and no exporter has to know it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, side: int) -> None:
        super().__init__()
        # not in the state: they follow from the sizes
        self.register_buffer("rows", resize_matrix(height, side), persistent=False)
        self.register_buffer("columns", resize_matrix(width, side).T.contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize `images` (batch, channels, height, width) to (batch, channels, side, side)."""
        resized: Tensor = self.rows @ (images.contiguous() @ self.columns)
        return resized


def resize_matrix(size: int, new_size: int) -> Tensor:
    """Return the matrix (new_size, size) of a bilinear, antialiased resize along one axis."""
    identity = torch.eye(size, device="cpu")[None, None]
    resized = nn.functional.interpolate(identity, (new_size, size), mode="bilinear", antialias=True)
    return resized[0, 0]


class TimmBody(nn.Module):
    """Backbone of timm and linear head: normalised images (batch, channels, height, width) to (batch, outputs)."""

    def __init__(self, config: BackboneConfig, input: Input, outputs: int) -> None:
        """Build the network with random weights. Raises ModelError when there is no such backbone."""
        super().__init__()
        height, width, channels = input.shape
        self.side = side = config.resolution or native_resolution(config.backbone)
        self.keeps_statistics = False
        """whether batch norms use the statistics of pretrained weights in training too"""
        self.resize = nn.Identity() if (height, width) == (side, side) else ImageResize(height, width, side)
        self.backbone = make_backbone(config.backbone, channels, config.drop_path)
        features = int(getattr(self.backbone, "head_hidden_size", self.backbone.num_features))
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(features, outputs))
        frozen = frozen_names(self.backbone, config.frozen)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad = name not in frozen

    def features(self, x: Tensor) -> Tensor:
        """Compute the features (batch, features) of normalised images (batch, channels, height, width)."""
        features: Tensor = self.backbone(self.resize(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of normalised images (batch, channels, height, width)."""
        outputs: Tensor = self.head(self.features(x))
        return outputs

    def train(self, mode: bool = True) -> TimmBody:
        """Set the mode of training, in which frozen parts and the batch norms with kept statistics do not change.

        Batches of a few images have other statistics than those that pretrained weights belong to.
        """
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            is_frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
            if is_frozen or (self.keeps_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)):
                module.eval()
        return self

    def moments(self, input: Input, mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel for the backbone's normalisation, in the unit of `input`.

        `mean` and `std` are those of the data. Images of floating point whose values are clearly not between 0 and 1
        are normalised by these instead.
        """
        own = self.backbone.pretrained_cfg
        return pretrained_moments(own["mean"], own["std"], input, mean, std)


def pretrained_moments(
    own_mean: Sequence[float], own_std: Sequence[float], input: Input, mean: Sequence[float], std: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return mean and deviation of each channel for pretrained weights, in the unit of `input`.

    `own_mean` and `own_std` are those of the weights, for pixels from 0 to 1, `mean` and `std` those of the data. By
    these, images of floating point are normalised whose values are clearly not between 0 and 1.
    """
    own = [[float(v) for v in values] for values in (own_mean, own_std)]
    channels = input.shape[-1]
    if channels != len(own[0]):
        own = [[sum(values) / len(values)] * channels for values in own]
    if input.dtype == "uint8":
        return [255 * v for v in own[0]], [255 * v for v in own[1]]
    if all(0 <= m <= 1 and s <= 0.5 for m, s in zip(mean, std, strict=True)):
        return own[0], own[1]
    return list(mean), list(std)


def timm_network(configuration: Configuration, input: Input, outputs: int, family: str) -> TimmBody:
    """Build the network of `configuration`. Raises ModelError when timm has none, or it cannot take the images."""
    return TimmBody(backbone_config(family, configuration), input, outputs)


def make_backbone(name: str, channels: int, drop_path: float = 0.0) -> Any:
    """Build a network of timm without its head, with random weights.

    `drop_path` is left out where the network takes none. Raises ModelError for an unknown name.
    """
    timm = import_timm()
    check_name(name)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels, "exportable": True}
    try:
        return timm.create_model(name, drop_path_rate=drop_path, **options)
    except TypeError:
        return timm.create_model(name, **options)


def check_name(name: str) -> None:
    """Raise ModelError, with the nearest names, when timm has no network `name`."""
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, NEAREST, 0.5)
        proposal = f"; nearest: {', '.join(near)}" if near else "; timm.list_models() lists all"
        raise ModelError(f"timm has no network {architecture!r}{proposal}")
    if tag and name not in timm.list_models(pretrained=True):
        tags = timm.list_models(f"{architecture}.*", pretrained=True)
        raise ModelError(f"timm has no weights {name!r}; it has {', '.join(tags) or 'none of this network'}")


def native_resolution(name: str) -> int:
    """Return the side in pixels of the images that a backbone was made for."""
    check_name(name)
    return int(import_timm().get_pretrained_cfg(name).input_size[-1])


def has_fixed_resolution(name: str) -> bool:
    """Return whether a backbone takes only images of its native resolution."""
    check_name(name)
    return bool(import_timm().get_pretrained_cfg(name).fixed_input_size)


def timm_megaflops(family: str, configuration: Configuration) -> float:
    """Count the multiply-adds of one colour image in millions, without making the network's weights.

    Raises ModelError when timm has no such network, or it cannot take images of the resolution.
    """
    config = backbone_config(family, configuration)
    return backbone_megaflops(config.backbone, config.resolution or native_resolution(config.backbone))


def backbone_megaflops(name: str, side: int) -> float:
    """Count the multiply-adds of a backbone in millions, for a colour image of `side` pixels, without its weights.

    Raises ModelError for an unknown name, and for images that the backbone cannot take.
    """
    return _count_backbone(name, side, _COLOURS)[1]


def timm_counts(family: str, configuration: Configuration, input: Input, outputs: int) -> tuple[int, float]:
    """Count the parameters of a network, and the multiply-adds of one image in millions, without making its weights.

    Raises ModelError as `timm_megaflops`.
    """
    config = backbone_config(family, configuration)
    side = config.resolution or native_resolution(config.backbone)
    height, width, channels = input.shape
    parameters, megaflops, features = _count_backbone(config.backbone, side, channels)
    resize = 0 if (height, width) == (side, side) else channels * height * side * (width + side)
    return parameters + (features + 1) * outputs, megaflops + (resize + features * outputs) / 1e6


@functools.cache
def _count_backbone(name: str, side: int, channels: int) -> tuple[int, float, int]:
    """Return parameters, multiply-adds in millions, and features of a backbone; see `backbone_megaflops`."""
    native = native_resolution(name)
    if side != native and has_fixed_resolution(name):
        raise ModelError(f"{name} takes images of {native} pixels only, not of {side}: set resolution to {native}")
    with torch.device("meta"):
        backbone = make_backbone(name, channels).eval()
    least = int(dict(backbone.feature_info[-1])["reduction"])
    if side < least:
        raise ModelError(f"{name} takes images of at least {least} pixels, not of {side}: raise resolution")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = backbone(torch.zeros(1, channels, side, side, device="meta"))
    except Exception as error:  # networks report a wrong size by any exception
        raise ModelError(f"{name} cannot take images of {side} pixels: {error_summary(error)[:200]}") from error
    parameters = sum(p.numel() for p in backbone.parameters())
    return parameters, float(counter.get_total_flops()) / 2e6, features.shape[1]


def frozen_names(backbone: Any, frozen: Frozen) -> frozenset[str]:
    """Return the names of a backbone's parameters that are not trained.

    The last stage, which `most` trains, is what follows the last feature map but one of timm's list of them.
    """
    names = [name for name, _ in backbone.named_parameters()]
    if frozen == "none":
        return frozenset()
    if frozen == "all":
        return frozenset(names)
    stages = parameter_stages(backbone)
    before = f"{dict(backbone.feature_info[-2])['module']}." if len(backbone.feature_info) > 1 else ""
    last = max((stages[name] for name in names if before and name.startswith(before)), default=-1)
    return frozenset(name for name in names if stages[name] <= last)


def parameter_stages(backbone: Any) -> dict[str, int]:
    """Return the number of the stage, from the images on, of each parameter of a backbone.

    It is the parameter's own position where timm knows no stages of the network.
    """
    if not hasattr(backbone, "group_matcher"):
        return {name: position for position, (name, _) in enumerate(backbone.named_parameters())}
    models = import_timm("timm.models")
    stages: dict[str, int] = models.group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=True)
    return stages
