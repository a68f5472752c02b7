"""Augmentation of images, for a whole batch at once on the training device: that of table 5, crops and colours.

Each `max_` has the meaning of Keras' `ImageDataGenerator`, which the paper used. Where its versions differ, the meaning
is the one that suits table 5's ranges. Every sample draws its own values, uniformly:

    zoom         the visible window is 1 - z to 1 + z times the image, for each axis on its own
    translation  -t to t of the width, and of the height
    shear        -s to s radians, as in Keras of the time (table 5: up to 0.3, some 17 degrees)
    channel      -c to c of the value range, added to each channel on its own; not clipped
    rotation     -r to r degrees

Those of pretrained networks and their fine-tuning (Szegedy et al. 2015, as in torchvision and timm):

    crop         a window of a share of m to 1 of the area fills the image; its width is 3/4 to 4/3 of its height, in
                 units of the sides of the image; its place within the image is uniform
    colour       brightness, contrast and saturation are each multiplied by 1 - c to 1 + c, in this order; a value of 0
                 is black, contrast is that to the mean brightness of the image; not clipped; saturation is changed
                 where there are three channels

A crop and the changes of table 5, in this order, are one map with one bilinear resampling; a flip moves whole pixels.
Pixels from outside the image repeat its border.

A mask moves with its image, by the same draws: each of its pixels is the nearest one, and from outside the image it is
ignored. Colours do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from ripieno.errors import DataError, require
from ripieno.types import IGNORED

_LIMITS = {
    "max_zoom": 1.0,
    "max_translation": 1.0,
    "max_shear": 1.57,
    "max_channel_shift": 1.0,
    "max_rotation": 180.0,
    "colour": 1.0,
}
"""Exclusive upper limit of each maximum; rotation may equal it."""
ASPECT = 4 / 3
"""Largest ratio of the sides of a crop, in units of the image's sides."""
GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes to images; the defaults change nothing.

    `value_range` is the span of the images' values: 255 for uint8 data. Raises DataError for a value out of range.
    """

    max_zoom: float = 0.0
    max_translation: float = 0.0
    max_shear: float = 0.0
    max_channel_shift: float = 0.0
    max_rotation: float = 0.0
    flip: bool = False
    """mirror left and right, every second image"""
    min_crop: float = 1.0
    """least share of the area that a crop keeps; 1: no crop"""
    colour: float = 0.0
    """largest change of brightness, contrast and saturation; 0: none"""
    value_range: float = 255.0

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not (_is_number(value) and (0 <= value < limit or (name == "max_rotation" and value == limit))):
                raise DataError(f"{name} is {value!r}: it must be a number of at least 0 and below {limit:g}")
        if not (_is_number(self.min_crop) and 0 < self.min_crop <= 1):
            raise DataError(
                f"min_crop is {self.min_crop!r}: it must be a number above 0 and at most 1, which crops nothing"
            )

    @property
    def is_identity(self) -> bool:
        """True when nothing changes, so that no random number is drawn."""
        return not (self.warps or self.flip or self.max_channel_shift or self.colour)

    @property
    def warps(self) -> bool:
        """True when pixels move, which is the most expensive change."""
        return self.min_crop < 1 or any((self.max_zoom, self.max_translation, self.max_shear, self.max_rotation))

    def draw(self, samples: int, channels: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers of `apply`: (samples, 7 + channels) in 0..1, on `generator`'s device.

        The draw has the same size whatever the maxima, so that one does not affect another's values. Crops and colours
        add 7 columns only where one of them is chosen: trials without them keep the numbers of earlier versions.
        """
        added = 7 if self.min_crop < 1 or self.colour else 0
        return torch.rand(samples, 7 + channels + added, generator=generator, device=generator.device)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return `images` (samples, channels, height, width), floating point, changed by `draws` on their device.

        Each depends on its own row of draws alone. Shape, type and device stay the same.
        """
        assert images.ndim == 4, "images must be NCHW"
        assert images.is_floating_point(), "images must be floating point"
        signed = draws * 2 - 1
        end = 7 + images.shape[1]
        if self.warps:
            images = warp(images, **self._moves(draws, images.shape[1]))
        if self.flip:
            images = torch.where(draws[:, 6, None, None, None] < 0.5, images.flip(3), images)
        if self.colour:
            images = recolour(images, 1 + self.colour * signed[:, end + 4 : end + 7])
        if self.max_channel_shift:
            shift = self.max_channel_shift * self.value_range * signed[:, 7:end, None, None]
            images = images + shift.to(images.dtype)
        return images

    def apply_to_masks(self, masks: Tensor, draws: Tensor, channels: int) -> Tensor:
        """Return `masks` (samples, height, width) of the images that `apply` changes by the same `draws`, as uint8.

        `channels` is the number of the images' channels.
        """
        if self.warps:
            masks = warp_masks(masks, **self._moves(draws, channels))
        if self.flip:
            masks = torch.where(draws[:, 6, None, None] < 0.5, masks.flip(2), masks)
        return masks

    def _moves(self, draws: Tensor, channels: int) -> dict[str, Tensor]:
        """Return the arguments of `warp` that `draws` stand for."""
        signed, end = draws * 2 - 1, 7 + channels
        moves = {
            "zoom": 1 + self.max_zoom * signed[:, 0:2],
            "translation": self.max_translation * signed[:, 2:4],
            "shear": self.max_shear * signed[:, 4],
            "rotation": self.max_rotation * signed[:, 5],
        }
        if self.min_crop < 1:
            moves["window"] = crop_windows(draws[:, end : end + 4], self.min_crop)
        return moves


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def crop_windows(draws: Tensor, least: float) -> Tensor:
    """Return windows (samples, 4), float32: left, top, width and height as shares of the image's sides.

    `draws` (samples, 4) in 0..1 give the area, uniform from `least` to 1; the logarithm of the ratio of the sides,
    uniform in the range in which the window fits into the image; and the place, uniform from left and from top.
    """
    area, ratio, across, down = draws.unbind(1)
    area = least + (1 - least) * area
    widest = area.log().neg().clamp(max=math.log(ASPECT))
    ratio = (widest * (2 * ratio - 1)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return torch.stack([across * (1 - width), down * (1 - height), width, height], 1)


def recolour(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, contrast and saturation of `images` (samples, channels, height, width) by `factors`.

    `factors` are (samples, 3). Images without three channels have no saturation.
    """
    brightness, contrast, saturation = factors.to(images.dtype)[:, :, None, None, None].unbind(1)
    images = images * brightness
    mean = brightness_of(images).flatten(1).mean(1)[:, None, None, None]
    images = (images - mean) * contrast + mean
    if images.shape[1] == len(GREY):
        grey = brightness_of(images)[:, None]
        images = (images - grey) * saturation + grey
    return images


def brightness_of(images: Tensor) -> Tensor:
    """Return the brightness of each pixel (samples, height, width): without three channels, their mean."""
    channels = images.shape[1]
    weights = GREY if channels == len(GREY) else (1 / channels,) * channels
    # channel by channel: the order of a sum must not depend on the number of samples
    return reduce(torch.add, [weight * one for weight, one in zip(weights, images.unbind(1), strict=True)])


def warp(
    images: Tensor, zoom: Tensor, translation: Tensor, shear: Tensor, rotation: Tensor, window: Tensor | None = None
) -> Tensor:
    """Apply to each image (samples, channels, height, width) its own affine map about its centre, bilinear.

    `zoom` (samples, 2) is the visible window's width and height relative to the image's (below 1 enlarges),
    `translation` (samples, 2) is right and down as fractions of width and height, `shear` (samples,) is in radians,
    `rotation` (samples,) in degrees counter-clockwise. All float32 on the images' device. The map is applied to what a
    `window` shows, as returned by `crop_windows`, where there is one.
    """
    transform = require("kornia.geometry.transform")
    maps = _affine_maps(images.shape[2:], zoom, translation, shear, rotation, window)
    # coordinates need more than the 8 or 11 bits of half precision
    pixels = images if images.dtype == torch.float64 else images.float()
    warped: Tensor = transform.warp_affine(
        pixels, maps[:, :2], tuple(images.shape[2:]), mode="bilinear", padding_mode="border", align_corners=True
    )
    return warped.to(images.dtype)


def warp_masks(
    masks: Tensor, zoom: Tensor, translation: Tensor, shear: Tensor, rotation: Tensor, window: Tensor | None = None
) -> Tensor:
    """Apply to each mask (samples, height, width), uint8, the map of its image, see `warp`.

    Pixels are the nearest ones, from outside the mask `IGNORED`.
    """
    transform = require("kornia.geometry.transform")
    maps = _affine_maps(masks.shape[1:], zoom, translation, shear, rotation, window)
    above = masks[:, None].float() + 1  # so that 0 is outside
    warped: Tensor = transform.warp_affine(
        above, maps[:, :2], tuple(masks.shape[1:]), mode="nearest", padding_mode="zeros", align_corners=True
    )
    return torch.where(warped > 0, warped - 1, IGNORED)[:, 0].to(torch.uint8)


def _affine_maps(
    size: Sequence[int], zoom: Tensor, translation: Tensor, shear: Tensor, rotation: Tensor, window: Tensor | None
) -> Tensor:
    """Return the map (samples, 3, 3) of each sample's pixels in images of `size`, height and width; see `warp`."""
    transform = require("kornia.geometry.transform")
    samples, (height, width) = len(zoom), size
    extent = torch.tensor([width, height], dtype=zoom.dtype, device=zoom.device)
    matrices: Tensor = transform.get_affine_matrix2d(
        translations=translation * extent,
        center=((extent - 1) / 2).expand(samples, 2),
        scale=1 / zoom,
        angle=-rotation,  # kornia turns clockwise
        sx=shear,
    )
    if window is not None:
        matrices = matrices @ _window_matrices(window, extent)
    return matrices


def _window_matrices(window: Tensor, extent: Tensor) -> Tensor:
    """Return the maps (samples, 3, 3) of pixels' centres that stretch each window to the whole image of `extent`."""
    scale = 1 / window[:, 2:]
    matrices = torch.diag_embed(torch.cat([scale, torch.ones_like(scale[:, :1])], 1))
    # a pixel's centre is half a pixel inside its edge
    matrices[:, :2, 2] = (0.5 - window[:, :2] * extent) * scale - 0.5
    return matrices
