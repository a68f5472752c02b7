from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

torch = pytest.importorskip("torch")

from ripieno.data.augmentation_policy import OPERATIONS  # noqa: E402
from ripieno.data.image_operations import GEOMETRIC, ImageOperations  # noqa: E402
from ripieno.types import IGNORED  # noqa: E402

SIDE = 24
NAMES = [name for name in OPERATIONS["image"] if name != "identity"]


def picture(side: int = SIDE, seed: int = 0) -> Image.Image:
    """Return a smooth picture with some noise, of all levels."""
    levels = np.random.default_rng(seed)
    wave = np.add.outer(np.sin(np.arange(side) / 4), np.cos(np.arange(side) / 7))[..., None] * 50 + 120
    return Image.fromarray((wave + levels.integers(-60, 60, (side, side, 3))).clip(10, 240).astype(np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).movedim(2, 0)[None].float()


def changed(name: str, images: torch.Tensor, magnitude: float, sign: int = 1, **scale: float) -> torch.Tensor:
    size = len(images)
    numbers = torch.full((size,), magnitude), torch.full((size,), float(sign))
    return ImageOperations(**scale).apply(images.clone(), [(name, slice(0, size))], *numbers)


@pytest.mark.parametrize("magnitude", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("colour", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("brightness", ImageEnhance.Brightness),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_those_of_pillow(name, enhancer, magnitude, sign):
    image = picture()
    wanted = enhancer(image).enhance(1 + sign * 0.99 * magnitude)
    assert (changed(name, tensor(image), magnitude, sign) - tensor(wanted)).abs().max() <= 2.01  # it rounds twice


@pytest.mark.parametrize("magnitude", [0.0, 0.34, 0.5, 1.0])
def test_posterize_and_solarize_are_those_of_pillow(magnitude):
    image = picture()
    posterized = ImageOps.posterize(image, 8 - round(6 * magnitude))
    assert torch.equal(changed("posterize", tensor(image), magnitude), tensor(posterized))
    solarized = ImageOps.solarize(image, math.ceil(256 * (1 - magnitude)))
    assert torch.equal(changed("solarize", tensor(image), magnitude), tensor(solarized))


def test_equalize_is_that_of_pillow_and_auto_contrast_within_its_rounding():
    # enough pixels for steps above one; a channel of one value stays
    pixels = np.array(picture(64))
    pixels[..., 2] = 7
    image = Image.fromarray(pixels)
    assert torch.equal(changed("equalize", tensor(image), 0.0), tensor(ImageOps.equalize(image)))
    difference = changed("auto-contrast", tensor(image), 0.0) - tensor(ImageOps.autocontrast(image))
    assert difference.abs().max() <= 1


def test_equalize_leaves_a_small_image_as_pillow_does():
    image = picture(5)
    assert torch.equal(changed("equalize", tensor(image), 0.0), tensor(ImageOps.equalize(image)))


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 30)])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_movements_are_those_of_pillow_about_the_centre(name, height, width, sign):
    image = picture(32).crop((0, 0, width, height))
    m, x, y = 0.3 * sign, width / 2, height / 2
    cosine, sine = math.cos(math.radians(135 * m)), math.sin(math.radians(135 * m))
    back = {  # from places in the result to their origins, from the centre
        "rotate": (cosine, -sine, 0, sine, cosine, 0),
        "shear-x": (1, 0.99 * m, 0, 0, 1, 0),
        "shear-y": (1, 0, 0, 0.99 * m, 1, 0),
        "translate-x": (1, 0, -m * width / 2, 0, 1, 0),
        "translate-y": (1, 0, 0, 0, 1, -m * height / 2),
    }
    a, b, c, d, e, f = back[name]
    data = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
    wanted = tensor(image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
    inside = tensor(Image.new("RGB", image.size, (255,) * 3).transform(image.size, Image.Transform.AFFINE, data)) > 0
    found = changed(name, tensor(image), 0.3, sign)
    eroded = -torch.nn.functional.max_pool2d(-inside.float(), 3, 1, 1) > 0  # away from the border
    assert eroded.float().mean() > 0.3
    assert (found - wanted)[eroded].abs().max() <= 2


def test_a_rotation_is_that_of_pillow_counter_clockwise():
    image = picture()
    wanted = tensor(image.rotate(135 * 2 / 3))
    assert torch.allclose(changed("rotate", tensor(image), 2 / 3), wanted, atol=1e-2)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("auto-contrast", "equalize")])
def test_a_magnitude_of_zero_changes_nothing(name):
    image = tensor(picture())
    assert torch.allclose(changed(name, image, 0.0), image, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 1, 9, 9), (2, 3, 5, 8), (1, 5, 4, 4), (2, 3, 1, 1), (2, 3, 2, 2)])
def test_each_operation_keeps_shape_type_and_range(name, shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 255
    found = changed(name, images, 1.0)
    assert found.shape == shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_of_the_values_does_not_matter(name):
    image = tensor(picture(64)) + 0.25  # so that rounding decides no level
    scaled = changed(name, image / 50 - 2, 0.6, low=-2.0, high=255 / 50 - 2)
    assert torch.allclose((scaled + 2) * 50, changed(name, image, 0.6), atol=0.1)


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_mask_moves_with_its_image_and_is_ignored_outside(name, sign):
    # columns and rows of three levels, large enough that most pixels are no mixture
    levels = torch.arange(3).repeat_interleave(16)
    masks = (levels[:, None] * 3 + levels).to(torch.uint8)[None].repeat(2, 1, 1)
    operations, groups = ImageOperations(), [(name, slice(1, 2))]
    numbers = torch.full((2,), 0.4), torch.full((2,), float(sign))
    moved = operations.apply_to_masks(masks.clone(), groups, *numbers)
    image = operations.apply(masks[:, None].float() * 20, groups, *numbers)[:, 0] / 20
    assert torch.equal(moved[0], masks[0])
    counted = moved[1] != IGNORED
    assert 0.3 < counted.float().mean() < 1
    assert ((image[1] - moved[1].float()).abs()[counted] < 0.5).float().mean() > 0.9
    assert not torch.equal(moved[1], masks[1])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in GEOMETRIC])
def test_other_operations_leave_masks_alone(name):
    masks = torch.randint(0, 5, (2, 6, 6), dtype=torch.uint8)
    numbers = torch.ones(2), torch.ones(2)
    assert torch.equal(ImageOperations().apply_to_masks(masks.clone(), [(name, slice(0, 2))], *numbers), masks)
