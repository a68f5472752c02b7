"""Operations of a policy of augmentation on images: those of RandAugment and TrivialAugment, on groups of samples.

Values are taken as 0 to 255, as in Pillow, after which operations of colour are made; of other images, their range is
mapped to it and back. Each sample has a magnitude m, 0 to 1, and a sign, -1 or 1. At their most (those of
TrivialAugment, "wide"):

    rotate                    sign * 135 * m degrees, counter-clockwise
    shear-x, shear-y          sign * 0.99 * m, the tangent of the angle
    translate-x, translate-y  sign * m / 2 of the side: 32 pixels of images of 64
    brightness, contrast      a factor of 1 + sign * 0.99 * m, also of colour (saturation) and sharpness
    posterize                 the values keep 8 to 2 bits
    solarize                  values of 256 * (1 - m) and more are inverted
    auto-contrast, equalize   the values of each channel are stretched, or spread evenly, over the range; no magnitude
    identity                  no change

Rotations, shears and translations are about the centre, and one bilinear resampling for all samples that have one of
them. Pixels from outside an image repeat its border; those of its mask are ignored. Other operations do not change
masks, and `colour` changes images of three channels only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ripieno.data.augment import GREY, brightness_of
from ripieno.types import IGNORED

ROTATION, SHEAR, TRANSLATION, FACTOR, FEWEST_BITS = 135.0, 0.99, 0.5, 0.99, 2
"""The most of each operation, at a magnitude of 1: degrees, tangent, share of a side, change of a factor; bits left."""
GEOMETRIC = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
"""Operations that move pixels, and those of a mask with them."""
_TOP = 255.0
Groups = Sequence[tuple[str, slice]]
"""Consecutive samples of a batch, by the operation that changes them."""


@dataclass(frozen=True)
class ImageOperations:
    """The operations on images whose values are `low` to `high`."""

    low: float = 0.0
    high: float = _TOP
    numbers: ClassVar[int] = 0
    """random numbers of a sample for an operation, besides its magnitude and sign"""

    def apply(
        self, images: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor, _numbers: Tensor | None = None
    ) -> Tensor:
        """Change the `groups` of `images` (samples, channels, height, width), floating point, in place; return them.

        `magnitudes` and `signs` are (samples,), on the images' device. Each image depends on its own alone.
        """
        for name, rows in groups:
            if name in _VALUES:
                changed = _VALUES[name](self._to_bytes(images[rows]), magnitudes[rows], signs[rows])
                images[rows] = self._from_bytes(changed.clamp(0, _TOP))
        if (moved := _moves(groups, magnitudes, signs)) is not None:
            rows, maps = moved
            grid = _sampling_grid(maps, images.shape[2], images.shape[3])
            images[rows] = grid_sample(images[rows], grid, "bilinear", "border", align_corners=False)
        return images

    def apply_to_masks(self, masks: Tensor, groups: Groups, magnitudes: Tensor, signs: Tensor) -> Tensor:
        """Move the `groups` of `masks` (samples, height, width), uint8, in place, as `apply` moves their images."""
        if (moved := _moves(groups, magnitudes, signs)) is not None:
            rows, maps = moved
            grid = _sampling_grid(maps, masks.shape[1], masks.shape[2])
            above = masks[rows, None].float() + 1  # so that 0 is outside
            found = grid_sample(above, grid, "nearest", "zeros", align_corners=False)[:, 0]
            masks[rows] = torch.where(found > 0, found - 1, IGNORED).to(torch.uint8)
        return masks

    def _to_bytes(self, images: Tensor) -> Tensor:
        return images if self._is_bytes else (images - self.low) * (_TOP / self._span)

    def _from_bytes(self, images: Tensor) -> Tensor:
        return images if self._is_bytes else images * (self._span / _TOP) + self.low

    @property
    def _is_bytes(self) -> bool:
        return (self.low, self.high) == (0, _TOP)

    @property
    def _span(self) -> float:
        return self.high - self.low or 1.0


def _moves(groups: Groups, magnitudes: Tensor, signs: Tensor) -> tuple[slice, Tensor] | None:
    """Return the samples of `groups` that move, and the map (samples, 6) of each; None where none does.

    Geometric groups must be neighbours. A map takes a place (x, y) of the result, from the centre in units of half a
    side, to its origin: (a, b, c, d, e, f) to (a x + b y + c, d x + e y + f), of pixels that are square.
    """
    moved = [(name, rows) for name, rows in groups if name in GEOMETRIC]
    if not moved:
        return None
    strengths = magnitudes * signs
    maps = torch.zeros(len(strengths), 6, dtype=strengths.dtype, device=strengths.device)
    maps[:, 0] = maps[:, 4] = 1
    for name, rows in moved:
        strength, own = strengths[rows], maps[rows]
        if name == "rotate":
            angle = strength * math.radians(ROTATION)
            own[:, 0] = own[:, 4] = angle.cos()
            own[:, 1], own[:, 3] = -angle.sin(), angle.sin()
        elif name in ("shear-x", "shear-y"):
            own[:, 1 if name == "shear-x" else 3] = SHEAR * strength
        else:
            own[:, 2 if name == "translate-x" else 5] = -2 * TRANSLATION * strength
    found = slice(moved[0][1].start, moved[-1][1].stop)
    return found, maps[found]


def _sampling_grid(maps: Tensor, height: int, width: int) -> Tensor:
    """Return the grid (samples, height, width, 2) of `grid_sample` for the `maps` of `_moves`.

    Products and sums of one number each, so that a sample's grid has the same bits in a batch of any size.
    """
    across, down = (
        (torch.arange(side, dtype=maps.dtype, device=maps.device) * 2 + 1) / side - 1 for side in (width, height)
    )
    down = down[:, None]
    a, b, c, d, e, f = (column[:, None, None] for column in maps.unbind(1))
    x = a * across + (b * (height / width) * down + c)
    y = d * (width / height) * across + (e * down + f)
    return torch.stack([x, y], 3)


def auto_contrast(images: Tensor, _magnitudes: Tensor, _signs: Tensor) -> Tensor:
    """Stretch the values of each channel over the range; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (_TOP / (high - low).clamp(min=1e-6)), images)


def equalize(images: Tensor, _magnitudes: Tensor, _signs: Tensor) -> Tensor:
    """Spread the values of each channel evenly over the range, as Pillow does; a channel of few values stays."""
    levels = images.round().clamp(0, _TOP).long().flatten(2).flatten(0, 1)
    counts = torch.zeros(len(levels), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    # pixels of a level of the result: all but those of the highest value there is, by 255
    highest = counts.gather(1, levels.amax(1, keepdim=True))
    step = (levels.shape[1] - highest) // 255
    table = ((counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = table.gather(1, levels).to(images.dtype).reshape(images.shape)
    return torch.where((step > 0).reshape(*images.shape[:2], 1, 1), spread, images)


def solarize(images: Tensor, magnitudes: Tensor, _signs: Tensor) -> Tensor:
    """Invert values of 256 * (1 - magnitude) and more."""
    return torch.where(images >= _column(256 * (1 - magnitudes)), _TOP - images, images)


def posterize(images: Tensor, magnitudes: Tensor, _signs: Tensor) -> Tensor:
    """Keep 8 to `FEWEST_BITS` of the bits of each value."""
    dropped = (magnitudes * (8 - FEWEST_BITS)).round()
    step = _column(torch.exp2(dropped))
    return torch.where(step > 1, (images / step).floor() * step, images)


def colour(images: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """Change the saturation; images without three channels have none."""
    if images.shape[1] != len(GREY):
        return images
    return _blend(brightness_of(images)[:, None], images, magnitudes, signs)


def contrast(images: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """Change the contrast to the mean brightness of each image."""
    mean = brightness_of(images).flatten(1).mean(1)[:, None, None, None]
    return _blend(mean, images, magnitudes, signs)


def brightness(images: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """Change the brightness."""
    return images * _factors(magnitudes, signs)


def sharpness(images: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """Change the difference to a smoothed image; pixels at the border stay."""
    if min(images.shape[2:]) < 3:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    inner = images[:, :, 1:-1, 1:-1]
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] = _blend((box + 4 * inner) / 13, inner, magnitudes, signs)
    return changed


_VALUES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "auto-contrast": auto_contrast,
    "equalize": equalize,
    "solarize": solarize,
    "posterize": posterize,
    "colour": colour,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
}
"""Operations that change values, 0 to 255: functions of images, magnitudes and signs."""


def _blend(base: Tensor, images: Tensor, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """Multiply the difference of `images` to `base` by each sample's factor."""
    return base + (images - base) * _factors(magnitudes, signs)


def _factors(magnitudes: Tensor, signs: Tensor) -> Tensor:
    return _column(1 + FACTOR * (magnitudes * signs))


def _column(values: Tensor) -> Tensor:
    """Return (samples, 1, 1, 1), to broadcast over images."""
    return values[:, None, None, None]
