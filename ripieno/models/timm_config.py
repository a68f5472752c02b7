"""Hyperparameters of timm's networks: names, defaults, checks. Pure Python.

Their families are `timm:NAME`, NAME as in timm. A search may have the family `timm`: the hyperparameter `backbone` then
names the network, and the members are of family `timm:NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ripieno.errors import ModelError
from ripieno.models.value_rules import SHARE_BELOW_1, NumberRule, ValueRules, check_values
from ripieno.types import Configuration, Value

FAMILY = "timm"
"""The family of a search whose configurations name the network."""
PREFIX = f"{FAMILY}:"
Frozen = Literal["none", "most", "all"]


@dataclass(frozen=True)
class BackboneConfig:
    """A pretrained network's hyperparameters and their defaults."""

    backbone: str
    """name in timm, such as mobilenetv2_100"""
    resolution: int = 0
    """side in pixels of the backbone's input, to which images are resized in the network; 0: as the backbone was made
    for"""
    frozen: Frozen = "none"
    """parts of the backbone that are not trained: `none`, `most` for all but its last stage, `all`"""
    layer_decay: float = 0.9
    """factor of the learning rate from each layer to the one before it"""
    drop_path: float = 0.0
    """probability of dropping the last residual branch in training, rising from 0 at the first"""
    dropout: float = 0.0
    """share of the features that are dropped before the head in training"""
    ema: float = 0.0
    """decay of the moving average of the weights, which is what is kept; 0: none"""


NAMES = frozenset(f.name for f in fields(BackboneConfig))
TRAINING_DEFAULTS: Mapping[str, Value] = {"optimizer": "adamw", "learning_rate": 1e-4, "weight_decay": 1e-3}
"""Defaults of the optimisation of these families, as in AutoGluon; see `ripieno.train.optim` for the others."""
_RULES: ValueRules = {
    "resolution": NumberRule(
        lambda value: isinstance(value, int) and value >= 1, "a whole number of pixels of at least 1"
    ),
    "layer_decay": NumberRule(lambda value: 0 < value <= 1, "a number above 0 and at most 1"),
    **dict.fromkeys(("drop_path", "dropout", "ema"), SHARE_BELOW_1),
    "frozen": get_args(Frozen),
}


def is_timm(family: str) -> bool:
    """Return whether `family` is of timm's networks."""
    return family == FAMILY or family.startswith(PREFIX)


def backbone_config(family: str, configuration: Configuration) -> BackboneConfig:
    """Read the backbone's part of `configuration`, with defaults for absent names. Raises ModelError for a bad one."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    name = family.removeprefix(PREFIX) if family != FAMILY else ""
    backbone = chosen.setdefault("backbone", name)
    if not isinstance(backbone, str) or not backbone:
        raise ModelError("family timm has no backbone: name one as timm:NAME, or in the space as backbone")
    if name not in ("", backbone):
        raise ModelError(f"backbone is {backbone!r}, but the family is {family}: leave one of them out")
    check_values(chosen, _RULES)
    return BackboneConfig(**chosen)
