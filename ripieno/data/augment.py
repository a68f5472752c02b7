"""Augmentation of table 5, for a whole batch at once on the training device.

Each `max_` has the meaning of Keras' `ImageDataGenerator`, which the paper used. Where its versions differ, the meaning
is the one that suits table 5's ranges. Every sample draws its own values, uniformly:

    zoom         the visible window is 1 - z to 1 + z times the image, for each axis on its own
    translation  -t to t of the width, and of the height
    shear        -s to s radians, as in Keras of the time (table 5: up to 0.3, some 17 degrees)
    channel      -c to c of the value range, added to each channel on its own; not clipped
    rotation     -r to r degrees

Pixels from outside the image repeat its border.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ripieno.errors import DataError, require

_LIMITS = {"max_zoom": 1.0, "max_translation": 1.0, "max_shear": 1.57, "max_channel_shift": 1.0, "max_rotation": 180.0}
"""Exclusive upper limit of each maximum; rotation may equal it."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes to images; all zero, the default, changes nothing.

    `value_range` is the span of the images' values: 255 for uint8 data. Raises DataError for a maximum out of range.
    """

    max_zoom: float = 0.0
    max_translation: float = 0.0
    max_shear: float = 0.0
    max_channel_shift: float = 0.0
    max_rotation: float = 0.0
    flip: bool = False
    """mirror left and right, every second image"""
    value_range: float = 255.0

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not (0 <= value < limit or (name == "max_rotation" and value == limit)):
                raise DataError(f"{name} is {value}: it must be at least 0 and below {limit:g}")

    @property
    def is_identity(self) -> bool:
        """True when nothing changes, so that no random number is drawn."""
        return not (self.warps or self.flip or self.max_channel_shift)

    @property
    def warps(self) -> bool:
        """True when pixels move, which is the most expensive change."""
        return any((self.max_zoom, self.max_translation, self.max_shear, self.max_rotation))

    def draw(self, samples: int, channels: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers of `apply`: (samples, 7 + channels) in 0..1, on `generator`'s device.

        The draw has the same size for all settings, so that one maximum does not affect another's values.
        """
        return torch.rand(samples, 7 + channels, generator=generator, device=generator.device)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return `images` (samples, channels, height, width), floating point, changed by `draws` on their device.

        Each depends on its own row of draws alone. Shape, type and device stay the same.
        """
        assert images.ndim == 4, "images must be NCHW"
        assert images.is_floating_point(), "images must be floating point"
        signed = draws * 2 - 1
        if self.warps:
            images = warp(
                images,
                zoom=1 + self.max_zoom * signed[:, 0:2],
                translation=self.max_translation * signed[:, 2:4],
                shear=self.max_shear * signed[:, 4],
                rotation=self.max_rotation * signed[:, 5],
            )
        if self.flip:
            images = torch.where(draws[:, 6, None, None, None] < 0.5, images.flip(3), images)
        if self.max_channel_shift:
            shift = self.max_channel_shift * self.value_range * signed[:, 7:, None, None]
            images = images + shift.to(images.dtype)
        return images


def warp(images: Tensor, zoom: Tensor, translation: Tensor, shear: Tensor, rotation: Tensor) -> Tensor:
    """Apply to each image (samples, channels, height, width) its own affine map about its centre, bilinear.

    `zoom` (samples, 2) is the visible window's width and height relative to the image's (below 1 enlarges),
    `translation` (samples, 2) is right and down as fractions of width and height, `shear` (samples,) is in radians,
    `rotation` (samples,) in degrees counter-clockwise. All float32 on the images' device.
    """
    transform = require("kornia.geometry.transform")
    samples, _, height, width = images.shape
    extent = torch.tensor([width, height], dtype=zoom.dtype, device=zoom.device)
    matrices = transform.get_affine_matrix2d(
        translations=translation * extent,
        center=((extent - 1) / 2).expand(samples, 2),
        scale=1 / zoom,
        angle=-rotation,  # kornia turns clockwise
        sx=shear,
    )
    # coordinates need more than the 8 or 11 bits of half precision
    pixels = images if images.dtype == torch.float64 else images.float()
    warped: Tensor = transform.warp_affine(
        pixels, matrices[:, :2], (height, width), mode="bilinear", padding_mode="border", align_corners=True
    )
    return warped.to(images.dtype)
