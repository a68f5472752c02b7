"""The two parts of a network that ends in a head on a backbone, as networks of their own."""

from __future__ import annotations

from torch import Tensor, nn

from ripieno.errors import ModelError
from ripieno.models.build import Network


class FeatureExtractor(nn.Module):
    """Backbone of `network`: inputs (batch, *shape), channels last, to features (batch, features), float32."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the features."""
        return self.network.forward_features(inputs)


class Head(nn.Module):
    """Head of `network`: features (batch, features) to outputs (batch, *output), without activation."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Compute the outputs."""
        return self.network.forward_head(features)

    def predict(self, features: Tensor) -> Tensor:
        """Compute the predictions, float32."""
        return self.network.activate(self(features))


def count_features(network: Network) -> int:
    """Return the number of features between backbone and head. Raises ModelError for a network without the two."""
    backbone, head = (getattr(network.body, name, None) for name in ("backbone", "head"))
    layers = head.modules() if isinstance(head, nn.Module) and isinstance(backbone, nn.Module) else ()
    for layer in layers:
        if isinstance(layer, nn.Linear):
            return layer.in_features
    raise ModelError(f"{type(network.body).__name__} has no backbone with a linear head, so it cannot share one")


def take_backbone(network: Network) -> FeatureExtractor:
    """Return the backbone of `network`, which loses its head. Raises ModelError as `count_features`."""
    count_features(network)
    network.body.head = nn.Identity()
    return FeatureExtractor(network)


def take_head(network: Network) -> Head:
    """Return the head of `network`, which loses its backbone. Raises ModelError as `count_features`."""
    count_features(network)
    network.body.backbone = nn.Identity()
    return Head(network)
