"""Optimisation: defaults of all its hyperparameters, optimisers, schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import nn

from ripieno.models.value_rules import ABOVE_0, SHARE_BELOW_1, NumberRule, ValueRules, check_values
from ripieno.types import Configuration

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "rung"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimisation hyperparameters (the "Optimization" rows of table 5 and a few more) and their defaults."""

    learning_rate: float = 0.003
    batch_size: int = 32
    weight_decay: float = 0.0
    """for convolutions and matrices, never for norms and biases; `adam` and `sgd` add weight_decay x weights to the
    gradient (an L2 penalty, table 5's "L2 regularization factor"); `adamw` multiplies the weights by
    1 - learning_rate x weight_decay, apart from the gradient (decoupled)"""
    optimizer: Optimizer = "adam"
    """`sgd` has Nesterov momentum 0.9"""
    schedule: Schedule = "rung"
    """`rung` rises briefly and falls to zero by a cosine within each job, so that every stopped member is annealed"""
    warm_up: float = 0.1
    """share of a job in which the rate of the `rung` schedule rises"""
    epoch_samples: int = 0
    """samples of an epoch, at least: a smaller training split is used several times in each; 0: once"""


NAMES = frozenset(f.name for f in fields(OptimizerConfig))
_RULES: ValueRules = {
    "learning_rate": ABOVE_0,
    "batch_size": NumberRule(lambda value: isinstance(value, int) and value >= 2, "a whole number of at least 2"),
    "weight_decay": NumberRule(lambda value: 0 <= value < math.inf, "a number of at least 0"),
    "epoch_samples": NumberRule(lambda value: isinstance(value, int) and value >= 0, "a whole number of at least 0"),
    "warm_up": SHARE_BELOW_1,
    "optimizer": get_args(Optimizer),
    "schedule": get_args(Schedule),
}


def optimizer_config(configuration: Configuration) -> OptimizerConfig:
    """Read the optimiser's part of `configuration`, with defaults for absent names. Raises ModelError for a bad one."""
    chosen: dict[str, Any] = {name: value for name, value in configuration.items() if name in NAMES}
    check_values(chosen, _RULES)
    return OptimizerConfig(**chosen)


def make_optimizer(
    chosen: OptimizerConfig, network: nn.Module, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimiser, with torch's fused kernels: on tiny networks they save a tenth of a step.

    `rates` are factors of the learning rate of parameters by the beginning of their names; others have 1. A group has
    its factor as `lr_scale`.
    """
    parts: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rate = next((rate for start, rate in (rates or {}).items() if name.startswith(start)), 1.0)
        if parameter.requires_grad:
            parts.setdefault(rate, []).append(parameter)
    groups = []
    for rate, parameters in parts.items():
        scale = {"lr_scale": rate} if rates else {}
        for decay, own in (
            (chosen.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            groups += [{"params": own, "weight_decay": decay, **scale}] if own else []
    if chosen.optimizer == "sgd":
        return torch.optim.SGD(groups, chosen.learning_rate, momentum=0.9, nesterov=True, fused=True)
    if chosen.optimizer == "adamw":
        return torch.optim.AdamW(groups, chosen.learning_rate, fused=True)
    return torch.optim.Adam(groups, chosen.learning_rate, fused=True)


def learning_rates(chosen: OptimizerConfig, start: int, stop: int, epoch: int, steps: int) -> list[float]:
    """Return the learning rate of each of the `steps` of epoch `epoch` (from 1) in a job from `start` to `stop`.

    It depends on nothing else, so that a resumed job continues as if it had never stopped. Epochs before the job's
    start (after a lost checkpoint) are scheduled as one job from 0.
    """
    if epoch <= start:
        start, stop = 0, start
    rates = []
    for step in range(steps):
        done = (epoch - 1 - start + (step + 0.5) / steps) / (stop - start)
        rise = min(1.0, done / chosen.warm_up) if chosen.warm_up else 1.0
        factor = 1.0 if chosen.schedule == "constant" else rise * (1 + math.cos(math.pi * done)) / 2
        rates.append(chosen.learning_rate * factor)
    return rates
