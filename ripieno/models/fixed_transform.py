"""Base of networks of series with fixed convolutions, of which only a linear head is trained.

The features are in blocks, and any number of the first of them makes a network: training gives a network more of them
with each epoch, and what it does not use it does not compute. The width of the head says how many it uses, so that the
weights of a network do, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ripieno.models.series_config import SeriesConfig
from ripieno.models.series_parts import normalise_series, split_padding


class FixedTransform(nn.Module):
    """Blocks of fixed features and a linear head on the first `used` of them."""

    def __init__(self, config: SeriesConfig, blocks: int, width: int, outputs: int) -> None:
        """Make a head on all features, `width` in each of the `blocks`."""
        super().__init__()
        self.by_series = config.normalisation == "series"
        self.blocks, self.width = blocks, width
        self.head = nn.Linear(blocks * width, outputs)
        self.register_load_state_dict_pre_hook(_fit_to_state)  # type: ignore[no-untyped-call]

    @property
    def used(self) -> int:
        """Number of features that the network computes."""
        return self.head.in_features

    def use(self, count: int) -> None:
        """Make a new head on the first `count` features, where it is not on as many."""
        if count != self.used:
            weight = self.head.weight
            self.head = nn.Linear(count, self.head.out_features, device=weight.device, dtype=weight.dtype)

    def use_share(self, share: float) -> None:
        """Make a head on a `share` of the features; see `use`."""
        self.use(math.ceil(share * self.blocks * self.width))

    def fit_transform(self, x: Tensor) -> None:
        """Choose what the transform takes from training series (samples, channels, length): by default nothing."""

    def compute_blocks(self, x: Tensor, mask: Tensor, first: int, last: int) -> list[Tensor]:
        """Compute the features (batch, width) of each block from `first` to before `last`."""
        raise NotImplementedError

    def features(self, x: Tensor, start: int = 0) -> Tensor:
        """Compute the features (batch, used - start) from `start` on, of series (batch, channels, length)."""
        x, mask = self.prepare(x)
        first, last = start // self.width, -(-self.used // self.width)
        found = torch.cat(self.compute_blocks(x, mask, first, last), 1)
        skipped = first * self.width
        return found[:, start - skipped : self.used - skipped]

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised series and the mask of their points; see `series_parts.split_padding`."""
        x, mask = split_padding(x)
        return (normalise_series(x, mask) if self.by_series else x), mask

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs (batch, outputs) of series (batch, channels, length), NaN at padding."""
        outputs: Tensor = self.head(self.features(x))
        return outputs


def _fit_to_state(body: FixedTransform, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Give `body` the head of a state that is about to be loaded."""
    weight = state.get(f"{prefix}head.weight")
    if isinstance(weight, Tensor) and weight.ndim == 2 and 0 < weight.shape[1] <= body.blocks * body.width:
        body.use(weight.shape[1])


def spread_order(count: int) -> list[int]:
    """Return the numbers below `count` in an order of which each beginning is spread over them all."""
    golden = (math.sqrt(5) - 1) / 2
    return sorted(range(count), key=lambda number: (number * golden) % 1.0)


def draw_channels(rows: int, channels: int, most: int) -> Tensor:
    """Draw a random subset of the channels for each row: 1 for those in it, (rows, channels).

    Its size is at most `most`, uniform in its logarithm.
    """
    most = min(most, channels)
    sizes = (2 ** (torch.rand(rows) * math.log2(most + 1))).floor().clamp(1, most)
    ranks = torch.rand(rows, channels).argsort(1).argsort(1)
    return (ranks < sizes[:, None]).float()
