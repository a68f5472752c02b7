"""Padding of images whose sides are no multiples of a network's stride, and its inverse for maps of logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePadding(nn.Module):
    """Padding of images of one size, at the bottom and at the right, by their own border, to multiples of `stride`."""

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int, stride: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.fits = height % stride == 0 == width % stride
        # rows and columns to take: in an exported graph, shapes of a `Pad` are unknown, and its operations uncounted
        for name, side in (("rows", height), ("columns", width)):
            self.register_buffer(name, torch.arange(side + -side % stride).clamp(max=side - 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return padded `images` (batch, channels, height, width)."""
        return images if self.fits else images.index_select(2, self.rows).index_select(3, self.columns)

    def crop(self, maps: Tensor) -> Tensor:
        """Return `maps` (batch, channels, ...) of padded images without what was added."""
        return maps if self.fits else maps[:, :, : self.height, : self.width]
