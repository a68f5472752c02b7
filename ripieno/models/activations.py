"""Activations from a network's outputs to the predictions of its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ripieno.types import OutputActivation

ACTIVATIONS: Mapping[OutputActivation, Callable[[Tensor], Tensor]] = {
    "softmax": lambda outputs: torch.softmax(outputs, -1),
    "sigmoid": torch.sigmoid,
    "identity": lambda outputs: outputs,
}
"""Functions of outputs (batch, *output), float32, by name; `softmax` is over the last axis."""
