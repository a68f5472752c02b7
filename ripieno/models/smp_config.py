"""Hyperparameters of networks of segmentation-models-pytorch (smp): names, defaults, checks. Pure Python.

Their families are `smp:ARCHITECTURE/ENCODER`, such as `smp:Unet/resnet18`. ENCODER is a network of timm, or else one of
smp's own. A search may have the family `smp`: the hyperparameters `architecture` and `backbone` then name the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ripieno.errors import ModelError
from ripieno.models.value_rules import NumberRule, ValueRules, check_values
from ripieno.types import Configuration, Value

FAMILY = "smp"
"""The family of a search whose configurations name architecture and encoder."""
PREFIX = f"{FAMILY}:"
SmpArchitecture = Literal["Unet", "FPN", "DeepLabV3Plus", "Segformer"]
_ALIASES = {"DeepLabV3+": "DeepLabV3Plus", "SegFormer": "Segformer"}
TIMM_PREFIX = "tu-"
"""How smp marks the networks of timm."""


@dataclass(frozen=True)
class SmpConfig:
    """A network's hyperparameters and their defaults."""

    architecture: SmpArchitecture
    """decoder, by smp's name"""
    backbone: str
    """encoder: name in timm, such as mobilenetv2_100, or in smp, such as mit_b0"""
    decoder_width: float = 1.0
    """factor of the decoder's channels"""
    encoder_rate: float = 0.1
    """factor of the learning rate in the encoder; 0: the encoder is not trained"""


NAMES = frozenset(f.name for f in fields(SmpConfig))
TRAINING_DEFAULTS: Mapping[str, Value] = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-3}
"""Defaults of the optimisation of these families; see `ripieno.train.optim` for the others."""
_RULES: ValueRules = {
    "architecture": get_args(SmpArchitecture),
    "decoder_width": NumberRule(lambda value: 0 < value <= 4, "a number above 0 and at most 4"),
    "encoder_rate": NumberRule(lambda value: 0 <= value <= 1, "a number from 0 to 1"),
}


def is_smp(family: str) -> bool:
    """Return whether `family` is of smp's networks."""
    return family == FAMILY or family.startswith(PREFIX)


def smp_config(family: str, configuration: Configuration) -> SmpConfig:
    """Read the network's part of `configuration`, with defaults for absent names. Raises ModelError for a bad one."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    if family != FAMILY:
        architecture, _, backbone = family.removeprefix(PREFIX).partition("/")
        for name, own in (("architecture", architecture), ("backbone", backbone)):
            if _plain(chosen.setdefault(name, own)) != _plain(own):
                raise ModelError(f"{name} is {chosen[name]!r}, but the family is {family}: leave one of them out")
    for name in ("architecture", "backbone"):
        chosen[name] = _plain(chosen.get(name, ""))
        if not isinstance(chosen[name], str) or not chosen[name]:
            raise ModelError(
                f"family {family} names no {name}: write smp:ARCHITECTURE/ENCODER, such as smp:Unet/resnet18, or name "
                f"{name} in the space"
            )
    check_values(chosen, _RULES)
    return SmpConfig(**chosen)


def smp_family(config: SmpConfig) -> str:
    """Return the family of members with the architecture and encoder of `config`."""
    return f"{PREFIX}{config.architecture}/{config.backbone}"


def encoder_of(family: str) -> str:
    """Return the name of the encoder in the family of a member."""
    return str(_plain(family.partition("/")[2]))


def _plain(name: Any) -> Any:
    """Return the one spelling of a name of an architecture or an encoder."""
    return _ALIASES.get(name, name.removeprefix(TIMM_PREFIX)) if isinstance(name, str) else name
