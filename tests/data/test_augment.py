from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from ripieno.data import augment  # noqa: E402
from ripieno.data.augment import crop_windows, recolour, warp  # noqa: E402
from ripieno.errors import DataError  # noqa: E402
from ripieno.types import IGNORED  # noqa: E402


class Augmentation(augment.Augmentation):
    """Augmentation that draws and applies in one call."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return self.apply(images, self.draw(len(images), images.shape[1], generator).to(images.device))


EVERY = Augmentation(0.6, 0.6, 0.3, 0.3, 90.0, flip=True)
"""Table 5 at its widest."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 9, 9, generator=seeded(9)) * 255


def still(samples: int) -> dict[str, torch.Tensor]:
    one, two = torch.zeros(samples), torch.zeros(samples, 2)
    return {"zoom": two + 1, "translation": two, "shear": one, "rotation": one}


def test_zero_is_the_identity_and_gives_back_the_images(images):
    assert Augmentation().is_identity
    assert Augmentation()(images, seeded()) is images


def test_the_same_seed_gives_the_same_batch_and_another_seed_another(images):
    assert torch.equal(EVERY(images, seeded(1)), EVERY(images, seeded(1)))
    assert not torch.equal(EVERY(images, seeded(1)), EVERY(images, seeded(2)))


def test_a_second_batch_is_another(images):
    generator = seeded()
    assert not torch.equal(EVERY(images, generator), EVERY(images, generator))


def test_global_randomness_is_neither_read_nor_moved(images):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = EVERY(images, seeded())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(EVERY(images, seeded()), first)


def test_the_images_handed_in_are_left_alone(images):
    before = images.clone()
    EVERY(images, seeded())
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 1, 28, 28), (2, 3, 5, 8), (1, 2, 1, 1), (0, 3, 8, 8)])
def test_shape_and_type_are_kept(shape, dtype):
    changed = EVERY(torch.rand(shape).to(dtype), seeded())
    assert changed.shape == shape
    assert changed.dtype == dtype
    assert changed.isfinite().all()


def test_no_change_within_the_warp_is_the_identity(images):
    assert torch.allclose(warp(images, **still(5)), images, atol=1e-2)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_is_counter_clockwise_like_rot90(images, angle, turns):
    turned = warp(images, **still(5) | {"rotation": torch.full((5,), float(angle))})
    assert torch.allclose(turned, torch.rot90(images, turns, (2, 3)), atol=1e-2)


def test_translation_is_right_and_down_by_fractions_and_repeats_the_border(images):
    moved = warp(images, **still(5) | {"translation": torch.tensor([[1 / 9, 2 / 9]]).expand(5, 2)})
    assert torch.allclose(moved[:, :, 2:, 1:], images[:, :, :-2, :-1], atol=1e-2)
    assert torch.allclose(moved[:, :, 2:, 0], images[:, :, :-2, 0], atol=1e-2)


def test_a_window_of_half_the_width_doubles_the_width():
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    seen = warp(ramp, **still(1) | {"zoom": torch.tensor([[0.5, 1.0]])})
    assert torch.allclose(seen[0, 0, 0], torch.linspace(2, 6, 9), atol=1e-4)


def test_shear_moves_rows_by_their_height_in_radians():
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    sheared = warp(ramp, **still(1) | {"shear": torch.tensor([0.3])})
    steps = sheared[0, 0, 1:, 4] - sheared[0, 0, :-1, 4]
    assert torch.allclose(steps.abs(), torch.tan(torch.tensor(0.3)).expand(8), atol=1e-4)


MIDDLE = 0.5
"""A draw that changes nothing."""


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        (0, {"zoom": [[0.6, 1.0]]}),
        (1, {"zoom": [[1.0, 0.6]]}),
        (2, {"translation": [[-0.4, 0.0]]}),
        (3, {"translation": [[0.0, -0.4]]}),
        (4, {"shear": [-0.3]}),
        (5, {"rotation": [-30.0]}),
    ],
)
def test_each_draw_moves_pixels_in_one_way_and_each_axis_has_its_own(images, column, changes):
    draws = torch.full((1, 10), MIDDLE)
    draws[0, column] = 0.0
    found = Augmentation(0.4, 0.4, 0.3, 0.0, 30.0).apply(images[:1], draws)
    wanted = warp(images[:1], **still(1) | {name: torch.tensor(value) for name, value in changes.items()})
    assert torch.allclose(found, wanted, atol=1e-3)
    assert not torch.allclose(found, images[:1], atol=1.0)


@pytest.mark.parametrize(("draw", "mirrored"), [(0.0, True), (0.49, True), (0.51, False), (0.99, False)])
def test_half_of_the_draws_mirror_an_image(images, draw, mirrored):
    draws = torch.full((1, 10), MIDDLE)
    draws[0, 6] = draw
    found = Augmentation(flip=True).apply(images[:1], draws)
    assert torch.equal(found, images[:1].flip(3) if mirrored else images[:1])


@pytest.mark.parametrize("column", [7, 8, 9])
def test_each_channel_is_shifted_by_its_own_draw(images, column):
    draws = torch.full((1, 10), MIDDLE)
    draws[0, column] = 1.0
    shift = Augmentation(max_channel_shift=0.1, value_range=200.0).apply(images[:1], draws) - images[:1]
    assert shift.mean((0, 2, 3)).tolist() == pytest.approx([20.0 * (column == 7 + n) for n in range(3)], abs=1e-4)


def test_what_one_maximum_does_depends_on_no_other():
    same = torch.rand(6, 3, 9, 9, generator=seeded(9))
    flipped = Augmentation(flip=True)(same, seeded())
    shifted = Augmentation(flip=True, max_channel_shift=0.1)(same, seeded()) - flipped
    assert torch.allclose(shifted, Augmentation(max_channel_shift=0.1)(same, seeded()) - same, atol=1e-4)


def test_zoomed_images_draw_width_and_height_apart():
    ramp = torch.arange(9.0).expand(300, 1, 9, 9)
    across = Augmentation(max_zoom=0.4)(ramp, seeded())[:, 0, 4].diff(dim=1)[:, 4]
    down = Augmentation(max_zoom=0.4)(ramp.transpose(2, 3), seeded())[:, 0, :, 4].diff(dim=1)[:, 4]
    assert across.min() < 0.65
    assert across.max() > 1.35
    assert abs(torch.corrcoef(torch.stack([across, down]))[0, 1]) < 0.2


def test_every_sample_draws_its_own():
    same = torch.rand(1, 3, 9, 9, generator=seeded(9)).expand(6, 3, 9, 9)
    changed = EVERY(same, seeded())
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 6


def test_channel_shift_adds_up_to_a_fraction_of_the_range_to_each_channel(images):
    many = images[:1].expand(400, 3, 9, 9)
    shift = Augmentation(max_channel_shift=0.2, value_range=10.0)(many, seeded()) - many
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-4)
    by_channel = shift[:, :, 0, 0]
    assert 1.9 < by_channel.abs().max() <= 2.0 + 1e-4
    assert not torch.allclose(by_channel[:, 0], by_channel[:, 1], atol=1e-2)


def test_a_flip_mirrors_about_half_of_the_images_and_changes_no_other(images):
    many = images[:1].expand(200, 3, 9, 9)
    flipped = Augmentation(flip=True)(many, seeded())
    mirrored = sum(bool(torch.equal(f, i.flip(2))) for f, i in zip(flipped, many, strict=True))
    untouched = sum(bool(torch.equal(f, i)) for f, i in zip(flipped, many, strict=True))
    assert mirrored + untouched == 200
    assert 70 < mirrored < 130


def test_values_stay_within_those_of_the_image_without_a_channel_shift(images):
    changed = dataclasses.replace(EVERY, max_channel_shift=0.0)(images, seeded())
    assert changed.min() >= images.min() - 1e-3
    assert changed.max() <= images.max() + 1e-3


@pytest.mark.parametrize("name", ["max_zoom", "max_translation", "max_shear", "max_rotation"])
def test_each_maximum_changes_the_images_by_itself(images, name):
    changed = Augmentation(**{name: 20.0 if name == "max_rotation" else 0.3})(images, seeded())
    assert not torch.allclose(changed, images, atol=1.0)


@pytest.mark.parametrize("name", ["max_zoom", "max_translation", "max_shear", "max_channel_shift", "max_rotation"])
@pytest.mark.parametrize("value", [-0.1, 181.0, float("nan")])
def test_maxima_out_of_range_are_told(name, value):
    with pytest.raises(DataError, match=f"{name} is {value}"):
        Augmentation(**{name: value})


def test_a_half_turn_is_allowed():
    assert Augmentation(max_rotation=180).max_rotation == 180


def test_draws_and_pixels_without_crops_and_colours_are_those_of_earlier_versions():
    augment = Augmentation(max_zoom=0.2, max_rotation=10, max_channel_shift=0.1, flip=True)
    generator = torch.Generator().manual_seed(8533553168153521416)
    draws = augment.draw(2, 1, generator)
    before = [0.31053275, 0.06937438, 0.41872734, 0.31733632, 0.16186374, 0.06005049, 0.74337101, 0.97346866]
    before += [0.80447972, 0.95145017, 0.54464853, 0.21098733, 0.23708749, 0.09952569, 0.83778572, 0.75772166]
    assert draws.flatten().tolist() == pytest.approx(before, abs=1e-8)
    found = augment.apply(torch.arange(18.0).reshape(2, 1, 3, 3) * 10, draws)
    first = [
        [33.4052505, 38.1929092, 43.5276833],
        [58.8121262, 64.146904, 69.4816742],
        [84.7661209, 90.1008987, 94.8885574],
    ]
    assert found[0, 0].tolist() == [pytest.approx(row, abs=1e-3) for row in first]


@pytest.mark.parametrize("choice", [{"min_crop": 0.5}, {"colour": 0.2}])
def test_crops_and_colours_draw_numbers_of_their_own_after_the_others(choice):
    draws = Augmentation(flip=True, **choice).draw(4, 3, seeded())
    assert draws.shape == (4, 17)
    assert torch.equal(draws[0, :10], Augmentation(flip=True).draw(1, 3, seeded())[0])


def crops(samples: int, least: float) -> torch.Tensor:
    return crop_windows(torch.rand(samples, 4, generator=seeded()), least)


def test_crops_keep_at_least_their_share_lie_within_the_image_and_are_no_longer_than_four_thirds():
    left, top, width, height = crops(2000, 0.3).double().unbind(1)
    area = width * height
    assert 0.3 - 1e-6 < area.min() < 0.32
    assert 0.98 < area.max() <= 1
    assert area.mean() == pytest.approx(0.65, abs=0.02)  # uniform
    assert min(left.min(), top.min()) >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    assert 3 / 4 - 1e-6 < (width / height).min() < 0.76
    assert 1.32 < (width / height).max() < 4 / 3 + 1e-6


def test_a_crop_has_the_area_that_is_drawn_whatever_its_sides():
    draws = torch.rand(500, 4, generator=seeded())
    _, _, width, height = crop_windows(draws, 0.3).unbind(1)
    assert torch.allclose(width * height, 0.3 + 0.7 * draws[:, 0], atol=1e-5)


def test_a_crop_of_everything_is_the_image(images):
    window = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(5, 4)
    assert torch.allclose(warp(images, **still(5), window=window), images, atol=1e-2)


def test_a_crop_shows_its_window_with_the_edges_of_its_pixels_at_the_edges_of_the_image():
    across = torch.arange(8.0).expand(1, 1, 8, 8)
    window = torch.tensor([[0.25, 0.5, 0.5, 0.25]])  # columns 2 to 5, rows 4 and 5
    seen = warp(across, **still(1), window=window)
    assert seen[0, 0, 0].tolist() == pytest.approx([1.75 + i / 2 for i in range(8)], abs=1e-4)
    seen = warp(across.transpose(2, 3), **still(1), window=window)
    assert seen[0, 0, :, 0].tolist() == pytest.approx([3.625 + i / 4 for i in range(8)], abs=1e-4)


def test_a_crop_comes_before_the_other_changes_in_one_map():
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4, generator=seeded(3)), 64, mode="bicubic")
    window = torch.tensor([[0.2, 0.1, 0.6, 0.7]])
    moves = {"zoom": torch.tensor([[0.8, 0.9]]), "translation": torch.tensor([[0.1, 0.0]])}
    moves |= {"shear": torch.tensor([0.1]), "rotation": torch.tensor([20.0])}
    twice = warp(warp(smooth, **still(1), window=window), **moves)
    inner = slice(16, 48)
    once = warp(smooth, **moves, window=window)
    assert torch.allclose(once[..., inner, inner], twice[..., inner, inner], atol=0.02)
    assert not torch.allclose(once, warp(warp(smooth, **moves), **still(1), window=window), atol=0.02)


@pytest.mark.parametrize(("column", "inside"), [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_each_number_of_a_crop_has_a_column(images, column, inside):
    base = torch.full((1, 17), MIDDLE)
    moved = base.clone()
    moved[0, 10 + column] = 0.0
    window = torch.full((1, 4), MIDDLE)
    window[0, inside] = 0.0
    augment = Augmentation(min_crop=0.3)
    expected = warp(images[:1], **still(1), window=crop_windows(window, 0.3))
    assert torch.allclose(augment.apply(images[:1], moved), expected, atol=1e-3)
    assert not torch.allclose(augment.apply(images[:1], base), expected, atol=1.0)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_each_factor_of_a_colour_has_a_column(images, column):
    draws = torch.full((1, 17), MIDDLE)
    draws[0, 14 + column] = 1.0
    factors = torch.ones(1, 3)
    factors[0, column] = 1.4
    found = Augmentation(colour=0.4).apply(images[:1], draws)
    assert torch.allclose(found, recolour(images[:1], factors), atol=1e-4)
    assert not torch.allclose(found, images[:1], atol=1.0)


def test_brightness_contrast_and_saturation_are_those_of_torchvision(images):
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    bright = images * 0.8
    mean = (bright * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    contrasted = 1.3 * bright + (1 - 1.3) * mean
    saturated = 0.5 * contrasted + 0.5 * (contrasted * grey).sum(1, keepdim=True)
    found = recolour(images, torch.tensor([[0.8, 1.3, 0.5]]).expand(5, 3))
    assert torch.allclose(found, saturated, atol=1e-3)


def test_grey_images_have_no_saturation(images):
    grey = images[:, :1]
    assert torch.allclose(recolour(grey, torch.tensor([[1.0, 1.0, 0.2]]).expand(5, 3)), grey, atol=1e-4)


def test_images_alone_are_changed_as_in_a_batch():
    many = torch.rand(37, 3, 11, 9, generator=seeded(9)) * 255
    augment = dataclasses.replace(EVERY, min_crop=0.2, colour=0.4)
    draws = augment.draw(37, 3, seeded())
    alone = torch.cat([augment.apply(many[i : i + 1], draws[i : i + 1]) for i in range(37)])
    assert torch.equal(augment.apply(many, draws), alone)


@pytest.mark.parametrize("value", [0, 0.0, 1.5, -0.2, float("nan"), "half"])
def test_a_crop_of_no_share_is_told(value):
    with pytest.raises(DataError, match=f"min_crop is {value!r}: it must be a number above 0 and at most 1"):
        Augmentation(min_crop=value)


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), "much"])
def test_a_colour_out_of_range_is_told(value):
    with pytest.raises(DataError, match=f"colour is {value!r}: it must be a number of at least 0 and below 1"):
        Augmentation(colour=value)


@pytest.fixture
def masks() -> torch.Tensor:
    """Masks of classes 0 and 3."""
    return (torch.rand(5, 9, 7, generator=seeded(3)) < 0.5).to(torch.uint8) * 3


def test_no_move_leaves_masks_as_they_are(masks):
    assert torch.equal(augment.warp_masks(masks, **still(5)), masks)
    none = Augmentation(max_channel_shift=0.2, colour=0.3)
    assert none.apply_to_masks(masks, none.draw(5, 3, seeded()), 3) is masks


def test_a_shifted_mask_is_ignored_where_it_comes_from_outside(masks):
    moved = augment.warp_masks(masks, **still(5) | {"translation": torch.tensor([[2 / 7, 1 / 9]]).expand(5, 2)})
    assert torch.equal(moved[:, 1:, 2:], masks[:, :-1, :-2])
    assert (moved[:, 0] == IGNORED).all()
    assert (moved[:, :, :2] == IGNORED).all()


def test_masks_hold_classes_that_they_had_whatever_the_move(masks):
    moved = EVERY.apply_to_masks(masks, EVERY.draw(5, 3, seeded()), 3)
    assert moved.dtype == torch.uint8
    assert moved.shape == masks.shape
    assert set(moved.unique().tolist()) == {0, 3, IGNORED}


def test_a_mask_turns_as_its_image(masks):
    images = masks[:, None].float()
    for angle in (90, 180):
        square = images[:, :, :7]
        moves = still(5) | {"rotation": torch.full((5,), float(angle))}
        assert torch.equal(augment.warp_masks(masks[:, :7], **moves).float(), warp(square, **moves)[:, 0].round())
