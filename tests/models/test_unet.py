"""U-Nets: forms of their logits, their cost, and configurations that are refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ripieno.errors import ModelError
from ripieno.models.build import build
from ripieno.models.unet import unet
from ripieno.models.unet_config import levels, unet_config, unet_megaflops
from ripieno.types import Configuration, Input, Task, classification


def segmentation(height: int, width: int, classes: int = 3) -> Task:
    return Task("segmentation", (height, width, classes), tuple(map(str, range(classes))))


@pytest.mark.parametrize(
    ("configuration", "shape"),
    [
        ({}, (64, 48, 3)),
        ({"convolution": "next", "blocks": 2, "levels": 5, "stem_stride": 4}, (90, 130, 3)),
        ({"convolution": "v2", "width": 7, "stem_stride": 2}, (33, 47, 1)),
        ({"levels": 1}, (20, 21, 3)),
        ({"levels": 6, "stem_stride": 4}, (5, 3, 2)),
    ],
)
def test_logits_have_the_sides_of_the_image_and_their_cost_is_counted(
    configuration: Configuration, shape: tuple[int, int, int]
) -> None:
    height, width, channels = shape
    network = unet(configuration, Input(shape), 5).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = network(torch.zeros(1, channels, height, width))
    assert logits.shape == (1, 5, height, width)
    assert unet_megaflops(configuration, Input(shape), 5) == counter.get_total_flops() / 2e6


def test_networks_predict_probabilities_of_each_pixel_with_the_channels_last() -> None:
    network = build("unet", {"width": 4, "levels": 2}, Input((20, 13, 3)), segmentation(20, 13)).eval()
    images = torch.randint(0, 255, (2, 20, 13, 3), dtype=torch.uint8)
    with torch.no_grad():
        logits, predictions = network.body(network.normalise(images)), network.predict(images)
    assert predictions.shape == (2, 20, 13, 3)
    assert torch.allclose(predictions, logits.softmax(1).movedim(1, -1), atol=1e-6)


def test_an_object_moves_its_logits() -> None:
    torch.manual_seed(0)
    network = unet({"width": 8, "levels": 3}, Input((32, 32, 1)), 2).eval()
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 8:12, 8:12] = 3.0
    with torch.no_grad():
        here, there = network(image), network(image.roll(8, 3))
    # a multiple of the last level's stride; far from the border, nothing else changes
    assert torch.allclose(here.roll(8, 3)[..., 8:24, 16:24], there[..., 8:24, 16:24], atol=1e-4)
    assert not torch.allclose(here, there, atol=1e-4)


def test_small_images_have_fewer_levels_and_a_smaller_stem() -> None:
    config = unet_config({"levels": 6, "stem_stride": 4})
    assert [level.side for level in levels(config, Input((256, 300, 3)))] == [4, 8, 16, 32, 64, 128]
    assert [level.side for level in levels(config, Input((32, 40, 3)))] == [2, 4, 8, 16]
    assert [level.side for level in levels(config, Input((8, 8, 1)))] == [1, 2, 4]


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"width": 0}, "width is 0"),
        ({"levels": 2.5}, "levels is 2.5"),
        ({"stem_stride": 3}, "one of 1, 2, 4"),
        ({"activation": "gelu"}, "tanh, relu, elu"),
        ({"dropout": 1}, "below 1"),
    ],
)
def test_bad_values_are_named(configuration: Configuration, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        unet_config(configuration)


def test_families_that_predict_samples_and_families_that_predict_pixels_are_told_apart() -> None:
    with pytest.raises(ModelError, match=r"'resnet' predicts whole images, not pixels.*use unet, smp"):
        build("resnet", {}, Input((16, 16, 3)), segmentation(16, 16))
    with pytest.raises(ModelError, match=r"'unet' predicts pixels, not whole images.*use resnet, timm"):
        build("unet", {}, Input((16, 16, 3)), classification("ab"))
