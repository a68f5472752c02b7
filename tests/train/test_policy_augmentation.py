from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ripieno.data.augment import Augmentation  # noqa: E402
from ripieno.data.augmentation_policy import OPERATIONS, LearntPolicy, PolicyStep, RandomPolicy  # noqa: E402
from ripieno.data.image_operations import ImageOperations  # noqa: E402
from ripieno.train.batching import InputTransform  # noqa: E402
from ripieno.train.policy_augmentation import PolicyAugmentation  # noqa: E402

BASE = Augmentation(max_zoom=0.1, flip=True)
POLICIES = [
    RandomPolicy("image"),
    RandomPolicy("image", 3, 0.5),
    LearntPolicy("image", (PolicyStep("rotate", 0.5, 0.3), PolicyStep("solarize", 0.7, 0.6))),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by(policy: RandomPolicy | LearntPolicy, base: Augmentation | None = None) -> PolicyAugmentation:
    return PolicyAugmentation(base or Augmentation(), policy, ImageOperations())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(40, 3, 16, 16, generator=seeded(9)) * 255


def test_equal_images_of_a_batch_become_many():
    same = (torch.rand(1, 3, 32, 32, generator=seeded(9)) * 255).expand(128, -1, -1, -1)
    augment = by(RandomPolicy("image"))
    found = augment.apply(same, augment.draw(128, 3, seeded()))
    # the same image from identity, auto-contrast and equalize, which have no magnitude, and from small posterizing
    assert len({image.numpy().tobytes() for image in found}) > 80


def test_every_operation_is_drawn_about_as_often_and_signs_are_balanced():
    augment = by(RandomPolicy("image"))
    counts = dict.fromkeys(OPERATIONS["image"], 0)
    for slot in augment._slots(augment.draw(14_000, 3, seeded()), torch.device("cpu")):
        counts |= {name: rows.stop - rows.start for name, rows in slot.groups}
        assert abs(slot.signs.mean()) < 0.05
        assert slot.magnitudes.mean() == pytest.approx(0.5, abs=0.02)
    assert counts.pop("identity") == 0  # nothing to do
    assert min(counts.values()) > 850
    assert max(counts.values()) < 1150


def test_operations_without_are_never_drawn():
    augment = by(RandomPolicy("image", 2, without=("solarize", "rotate")))
    slots = list(augment._slots(augment.draw(500, 3, seeded()), torch.device("cpu")))
    assert len(slots) == 2
    assert all(name not in ("solarize", "rotate") for slot in slots for name, _ in slot.groups)


def test_a_given_magnitude_is_that_of_all():
    augment = by(RandomPolicy("image", 1, 0.25))
    (slot,) = augment._slots(augment.draw(50, 3, seeded()), torch.device("cpu"))
    assert set(slot.magnitudes.tolist()) == {0.25}


def test_a_learnt_step_changes_its_share_of_the_samples(images):
    augment = by(LearntPolicy("image", (PolicyStep("solarize", 0.25, 1.0),)))
    draws = augment.draw(2000, 3, seeded())
    found = augment.apply(images[:1].expand(2000, -1, -1, -1), draws)
    is_changed = (found != images[:1]).flatten(1).any(1)
    assert is_changed.float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(found[is_changed], 255 - images[:1])


def test_steps_are_applied_in_their_order(images):
    first, second = PolicyStep("posterize", 1.0, 1.0), PolicyStep("solarize", 1.0, 0.5)
    orders = [by(LearntPolicy("image", steps)) for steps in ((first, second), (second, first))]
    found = [augment.apply(images, augment.draw(40, 3, seeded())) for augment in orders]
    assert torch.equal(found[1] % 64, torch.zeros_like(images))
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("base", [Augmentation(), BASE])
def test_a_sample_has_the_same_bits_in_blocks_of_any_size(policy, base, images):
    augment = by(policy, base)
    draws = augment.draw(40, 3, seeded(3))
    whole = augment.apply(images, draws)
    for size in (1, 7):
        parts = [augment.apply(images[i : i + size], draws[i : i + size]) for i in range(0, 40, size)]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, images)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_batch_and_neither_inputs_nor_global_randomness_change(policy, images):
    before, state = images.clone(), torch.random.get_rng_state()
    augment = by(policy, BASE)
    found = [augment.apply(images, augment.draw(40, 3, seeded(seed))) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_empty_batch_and_other_channels_are_taken():
    for shape in ((0, 3, 8, 8), (4, 1, 8, 8), (4, 7, 8, 8)):
        augment = by(RandomPolicy("image", 2), BASE)
        assert augment.apply(torch.rand(shape), augment.draw(shape[0], shape[1], seeded())).shape == shape


@pytest.mark.parametrize("base", [Augmentation(), BASE])
def test_masks_move_with_their_images(base):
    levels = torch.arange(3).repeat_interleave(16)
    masks = (levels[:, None] * 3 + levels).to(torch.uint8).expand(30, -1, -1)
    augment = by(LearntPolicy("image", tuple(PolicyStep(n, 0.5, 0.3) for n in ("rotate", "shear-x"))), base)
    transform = InputTransform(augment, torch.zeros(1), torch.ones(1))
    draws = augment.draw(30, 1, seeded())
    images = transform(masks[..., None] * 20, draws)[..., 0] / 20
    moved = transform.masks(masks, draws)
    counted = moved != 255
    assert ((images - moved.float()).abs()[counted] < 0.5).float().mean() > 0.85
    assert (moved != masks).flatten(1).any(1).float().mean() > 0.5


def test_uint8_images_are_normalised_after_the_policy():
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))
    augment = by(LearntPolicy("image", (PolicyStep("solarize", 1.0, 1.0),)))
    transform = InputTransform(augment, torch.full((3,), 100.0), torch.full((3,), 50.0))
    found = transform(pixels, augment.draw(6, 3, seeded()))
    assert torch.equal(found, (255 - pixels.float() - 100) / 50)
