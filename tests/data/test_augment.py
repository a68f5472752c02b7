from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch")

from ripieno.data import augment  # noqa: E402
from ripieno.data.augment import warp  # noqa: E402
from ripieno.errors import DataError  # noqa: E402


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
