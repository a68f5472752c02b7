"""The part of an agent that acts, as one network: from observations to actions in the environment's own units."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from ripieno.types import PolicyOutput, Task


@final
class PolicyNetwork(nn.Module):
    """Network from observations (batch, *shape) to `output` (batch, n), without any randomness.

    It shares the weights of `agent`, an algorithm of stable-baselines3. Actions in a box are scaled and clipped to its
    bounds, those of `task`.
    """

    low: Tensor
    high: Tensor

    def __init__(self, algorithm: str, agent: Any, task: Task) -> None:
        super().__init__()
        policy = agent.policy
        self.output: PolicyOutput = "action" if task.low else "values" if algorithm == "dqn" else "probabilities"
        self.is_scaled = algorithm in ("ddpg", "sac")
        """whether the last layer gives an action from -1 to 1"""
        parts: dict[str, Any] = {
            "dqn": lambda: (policy.q_net.q_net,),
            "ppo": lambda: (policy.mlp_extractor.policy_net, policy.action_net),
            "ddpg": lambda: (policy.actor.mu,),  # which ends with a tanh
            "sac": lambda: (policy.actor.latent_pi, policy.actor.mu, nn.Tanh()),
        }
        self.layers = nn.Sequential(nn.Flatten(), *parts[algorithm]())
        self.register_buffer("low", torch.tensor(task.low, dtype=torch.float32))
        self.register_buffer("high", torch.tensor(task.high, dtype=torch.float32))

    def forward(self, observations: Tensor) -> Tensor:
        """Return the actions, or the values or probabilities of discrete actions, (batch, n)."""
        found: Tensor = self.layers(observations)
        if self.output == "values":
            return found
        if self.output == "probabilities":
            return found.softmax(dim=1)
        if self.is_scaled:
            found = self.low + 0.5 * (found + 1.0) * (self.high - self.low)
        return torch.minimum(torch.maximum(found, self.low), self.high)

    def count_parameters(self) -> int:
        """Return the number of parameters of the layers."""
        return sum(parameter.numel() for parameter in self.layers.parameters())
