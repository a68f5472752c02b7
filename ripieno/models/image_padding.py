"""Padding of images whose sides are no multiples of a network's stride, and its inverse for maps of logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


class ImagePadding:
    """Padding of images of one size, at the bottom and at the right, by their own border, to multiples of `stride`."""

    def __init__(self, height: int, width: int, stride: int) -> None:
        self.height, self.width = height, width
        self._added = (0, -width % stride, 0, -height % stride)

    def pad(self, images: Tensor) -> Tensor:
        """Return padded `images` (batch, channels, height, width)."""
        return functional.pad(images, self._added, mode="replicate") if any(self._added) else images

    def crop(self, maps: Tensor) -> Tensor:
        """Return `maps` (batch, channels, ...) of padded images without what was added."""
        return maps[:, :, : self.height, : self.width] if any(self._added) else maps
