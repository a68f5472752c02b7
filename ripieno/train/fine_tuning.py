"""Fine-tuning of networks of timm: their optimiser, and the moving average of their weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ripieno.models.timm_network import TimmBody
from ripieno.models.torchvision_import import import_timm
from ripieno.train.optim import OptimizerConfig


def fine_tuning_optimizer(chosen: OptimizerConfig, body: TimmBody, layer_decay: float) -> torch.optim.Optimizer:
    """Make the optimiser of a network of timm, as timm groups its parameters.

    The learning rate of a group is the schedule's times its `lr_scale`: 1 in the head, and `layer_decay` times less
    with each layer before it. Norms, biases and what the network names have no weight decay.
    """
    optim = import_timm("timm.optim")
    backbone: Any = body.backbone
    kept = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    groups = optim.param_groups_layer_decay(backbone, chosen.weight_decay, kept, layer_decay=layer_decay)
    groups = [{**group, "lr_scale": group["lr_scale"] * layer_decay} for group in groups]
    groups += [{"lr_scale": 1.0, **g} for g in optim.param_groups_weight_decay(body.head, chosen.weight_decay)]
    made: torch.optim.Optimizer = optim.create_optimizer_v2(groups, chosen.optimizer, chosen.learning_rate, fused=True)
    return made


class WeightAverage:
    """Exponential moving average of a network's weights and buffers, which follows quickly in its first updates."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._average = import_timm("timm.utils").ModelEmaV3(network, decay, use_warmup=True)
        self.updates = 0
        """number of calls of `update`"""

    @property
    def network(self) -> Any:
        """Network with the averages, in evaluation mode."""
        return self._average.module

    def update(self, network: nn.Module) -> None:
        """Take the present weights of `network` into the average."""
        self.updates += 1
        self._average.update(network, self.updates)
