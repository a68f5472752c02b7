"""Networks of segmentation-models-pytorch (smp): a decoder on an encoder of timm, which may be pretrained, or of smp.

The package is imported only when such a network is built. Sides that are no multiples of the encoder's stride are
padded, and the logits cropped.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ripieno.errors import ModelError, error_summary
from ripieno.models.image_padding import ImagePadding
from ripieno.models.resnet_config import image_shape
from ripieno.models.smp_config import TIMM_PREFIX, SmpConfig, smp_config, smp_family
from ripieno.models.timm_network import NEAREST, pretrained_moments
from ripieno.models.torchvision_import import import_timm
from ripieno.types import Configuration, Input

STRIDE = 32
"""Multiple of the sides of images that all encoders take."""
UNET_CHANNELS = (256, 128, 64, 32, 16)
DECODER_CHANNELS = 256
"""Channels of the other decoders."""
WIDTH_STEP = 0.25
"""Difference of the decoder widths of which costs are counted."""
GROUPS = 32
"""Groups of channels in the group norms of FPN's decoder."""


def import_smp() -> ModuleType:
    """Import segmentation-models-pytorch. Raises MissingExtraError where it, timm or torchvision is not installed."""
    return import_timm("segmentation_models_pytorch")


class SmpBody(nn.Module):
    """Network of smp: normalised images (batch, channels, height, width) to logits (batch, classes, height, width)."""

    def __init__(self, config: SmpConfig, input: Input, outputs: int) -> None:
        """Build the network with random weights. Raises ModelError when there is no such encoder."""
        super().__init__()
        height, width, channels = image_shape(input)
        self.keeps_statistics = False
        """whether batch norms of the encoder use the statistics of pretrained weights in training too"""
        self.padding = ImagePadding(height, width, STRIDE)
        self.encoder_rate = config.encoder_rate
        name = encoder_name(config.backbone)
        self.timm_name = config.backbone if name != config.backbone else ""
        """name of the encoder in timm; empty where it is smp's own"""
        given: dict[str, Any] = {"encoder_name": name, "encoder_weights": None, "in_channels": channels}
        try:
            network = import_smp().create_model(
                config.architecture, **given, classes=outputs, **_decoder_options(config)
            )
        except Exception as error:  # encoders report what they cannot do by any exception
            reason = error_summary(error)[:200]
            raise ModelError(f"{config.architecture} cannot be built on {config.backbone}: {reason}") from error
        self.encoder, self.decoder, self.head = network.encoder, network.decoder, network.segmentation_head
        self.encoder.requires_grad_(config.encoder_rate > 0)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (batch, classes, height, width) of normalised images (batch, channels, height, width)."""
        x = self.padding(x)
        # a batch norm on the mean of a map, as in DeepLabV3+, cannot train on a single image
        alone = self.training and len(x) == 1
        logits: Tensor = self.head(self.decoder(self.encoder(x.expand(2, -1, -1, -1) if alone else x)))
        return self.padding.crop(logits[:1] if alone else logits)

    def train(self, mode: bool = True) -> SmpBody:
        """Set the mode of training, in which frozen encoders and the batch norms with kept statistics do not change."""
        super().train(mode)
        for module in self.encoder.modules():
            if self.encoder_rate == 0 or (
                self.keeps_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm)
            ):
                module.eval()
        return self

    def moments(self, input: Input, mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel for the encoder's normalisation, in the unit of `input`.

        `mean` and `std` are those of the data, by which networks on an encoder of smp's own are normalised.
        """
        if not self.timm_name:
            return list(mean), list(std)
        own = import_timm().get_pretrained_cfg(self.timm_name)
        return pretrained_moments(own.mean, own.std, input, mean, std)

    def encoder_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return the names of the encoder's tensors by the names that timm has for the whole network.

        `tensors` are those of the whole network. Raises ModelError when it lacks one of the encoder.
        """
        names = {}
        for name in self.encoder.state_dict():
            inner = name.removeprefix("model.")
            # timm's networks of features number the stages of a sequence by an underscore
            found = next((n for n in (inner, *_unflattened(inner)) if n in tensors), None)
            if found is None:
                raise ModelError(f"the weights of {self.timm_name} have no tensor {inner}")
            names[found] = name
        return names


def smp_network(configuration: Configuration, input: Input, outputs: int, family: str) -> SmpBody:
    """Build the network of `configuration`. Raises ModelError when smp has none, or it cannot take the images."""
    return SmpBody(smp_config(family, configuration), input, outputs)


def encoder_name(backbone: str) -> str:
    """Return smp's name of an encoder: `tu-NAME` of a network of timm, else NAME. Raises ModelError for neither."""
    known = import_timm().list_models()
    if backbone.partition(".")[0] in known:
        return TIMM_PREFIX + backbone
    own = import_smp().encoders.get_encoder_names()
    if backbone in own:
        return backbone
    near = difflib.get_close_matches(backbone, (*known, *own), NEAREST, 0.5)
    proposal = f"; nearest: {', '.join(near)}" if near else "; timm.list_models() lists most"
    raise ModelError(f"neither timm nor smp has an encoder {backbone!r}{proposal}")


def smp_megaflops(family: str, configuration: Configuration, input: Input) -> float:
    """Count the multiply-adds of one sample in millions, of a decoder of about the width.

    Raises ModelError when there is no such network, or it cannot take the images.
    """
    config = smp_config(family, configuration)
    # a count takes a network's construction: configurations of about the same width share one
    width = max(WIDTH_STEP, round(config.decoder_width / WIDTH_STEP) * WIDTH_STEP)
    return _count(smp_family(config), width, input.shape, 2)[1]


def smp_counts(family: str, configuration: Configuration, input: Input, outputs: int) -> tuple[int, float]:
    """Count the parameters of a network, and the multiply-adds of one image in millions.

    Raises ModelError as `smp_megaflops`. The network is built, which takes some tenths of a second.
    """
    config = smp_config(family, configuration)
    return _count(smp_family(config), config.decoder_width, input.shape, outputs)


@functools.cache
def _count(family: str, decoder_width: float, shape: tuple[int, ...], outputs: int) -> tuple[int, float]:
    config = smp_config(family, {"decoder_width": decoder_width})
    # networks of smp's own cannot be made without weights
    device = "meta" if encoder_name(config.backbone) != config.backbone else "cpu"
    with torch.device(device):
        body = SmpBody(config, Input(shape), outputs).eval()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                body(torch.zeros(1, shape[2], *shape[:2]))
        except Exception as error:  # networks report a wrong size by any exception
            reason = error_summary(error)[:200]
            raise ModelError(f"{family} cannot take images of {shape[0]} x {shape[1]}: {reason}") from error
    return sum(p.numel() for p in body.parameters()), float(counter.get_total_flops()) / 2e6


def _decoder_options(config: SmpConfig) -> dict[str, Any]:
    """Return the options of smp by which the decoder gets its channels."""

    def scaled(channels: int, multiple: int = 1) -> int:
        return max(multiple, round(channels * config.decoder_width / multiple) * multiple)

    if config.architecture == "Unet":
        return {"decoder_channels": [scaled(channels) for channels in UNET_CHANNELS]}
    if config.architecture == "FPN":
        return {
            "decoder_pyramid_channels": scaled(DECODER_CHANNELS),
            # two channels a group: one alone, on a map of one place, has no deviation
            "decoder_segmentation_channels": scaled(DECODER_CHANNELS // 2, 2 * GROUPS),
        }
    name = "decoder_segmentation_channels" if config.architecture == "Segformer" else "decoder_channels"
    return {name: scaled(DECODER_CHANNELS)}


def _unflattened(name: str) -> list[str]:
    """Return the names that a tensor of a network of features may have in the whole network."""
    first, dot, rest = name.partition(".")
    stem, underscore, number = first.rpartition("_")
    return [f"{stem}.{number}{dot}{rest}"] if underscore and number.isdigit() else []
