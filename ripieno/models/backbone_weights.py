"""Weights of pretrained backbones: reading, and loading into a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ripieno.errors import LibraryError, ModelError, require
from ripieno.models.smp_network import SmpBody

BACKBONE_TENSORS = "body.backbone."
"""Start of the names of a backbone's tensors in a `Network`."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors. Raises LibraryError when it is absent or no safetensors file."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise LibraryError(f"{path} does not exist; restore it from a copy") from error
    except (OSError, SafetensorError) as error:
        raise LibraryError(f"{path} is no readable safetensors file: {error}") from error


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load the weights at `path`, of three channels, into a timm model without its classifier.

    A model of other channels gets the first convolution adapted by timm. Raises LibraryError when the file is absent,
    broken or of another network.
    """
    tensors = read_tensors(path)
    current = backbone.state_dict()
    timm_model: Any = backbone
    for name in [name for name, tensor in tensors.items() if name in current and tensor.shape != current[name].shape]:
        tensors[name] = _adapt(timm_model.pretrained_cfg.get("first_conv"), name, tensors[name], current[name])
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in current.items()}:
        raise LibraryError(f"{path} holds the weights of another backbone; use another folder with --run")
    with torch.no_grad():
        backbone.load_state_dict(tensors)


def load_encoder(body: SmpBody, path: Path) -> None:
    """Load the weights at `path`, of a network of timm with three channels, into the encoder of a network of smp.

    Its batch norms keep their statistics from then on. Raises LibraryError when the file is absent, broken or of
    another network.
    """
    tensors, current = read_tensors(path), body.encoder.state_dict()
    try:
        names = body.encoder_tensors(tensors)
    except ModelError as error:
        raise LibraryError(f"{path}: {error}") from error
    first = require("timm").get_pretrained_cfg(body.timm_name).first_conv
    loaded = {}
    for name, inner in names.items():
        tensor = tensors[name]
        if tensor.shape != current[inner].shape:
            tensor = _adapt(first, name, tensor, current[inner])
        if tensor.shape != current[inner].shape:
            raise LibraryError(f"{path} holds the weights of another backbone; use another folder with --run")
        loaded[inner] = tensor
    with torch.no_grad():
        body.encoder.load_state_dict(loaded)
    body.keeps_statistics = True


def _adapt(first: str | Sequence[str] | None, name: str, tensor: Tensor, current: Tensor) -> Tensor:
    """Return a tensor with the channels of `current`, or as it is where it is not of one of the `first` convolutions.

    These are named as in timm's configuration of pretrained weights.
    """
    convolutions = (first,) if isinstance(first, str) else first or ()
    if name.removesuffix(".weight") in convolutions and tensor.ndim == current.ndim == 4:
        adapted: Tensor = require("timm.models").adapt_input_conv(current.shape[1], tensor)
        return adapted
    return tensor
