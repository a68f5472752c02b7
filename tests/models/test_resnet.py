from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ripieno.errors import ModelError
from ripieno.models.build import build
from ripieno.models.resnet_config import groups, megaflops, megavalues
from ripieno.types import Configuration, Input, classification

TINY = {"stem_filters": 4, "width": 4, "blocks_1": 1, "blocks_2": 2, "blocks_3": 1, "blocks_4": 1}


def counted(network: nn.Module, input: Input) -> tuple[int, int]:
    """Count the multiply-adds and the values of the convolutions while one image runs through the real network."""
    total = values = 0

    def count(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total, values
        assert isinstance(module, nn.Conv2d)
        taps = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
        total += output[0].numel() * taps
        values += output[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros((1, *input.shape)))
    return total, values


@pytest.mark.parametrize("convolution", ["v1", "v2", "next"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (64, 33, 3), (65, 40, 3), (2, 2, 1), (1, 1, 2), (5, 64, 1)])
def test_the_closed_form_cost_equals_a_count_on_the_real_network(convolution: str, shape: tuple[int, ...]) -> None:
    configuration = {**TINY, "convolution": convolution}
    network = build("resnet", configuration, Input(shape), classification("abc"))
    total, values = counted(network, Input(shape))
    assert megaflops(configuration, Input(shape)) == total / 1e6
    assert megavalues(configuration, Input(shape)) == values / 1e6


@settings(max_examples=15, deadline=None)
@given(
    convolution=st.sampled_from(["v1", "v2", "next"]),
    width=st.integers(1, 24),
    stem_filters=st.integers(1, 24),
    blocks=st.tuples(*[st.integers(1, 3)] * 4),
    side=st.integers(1, 40),
)
def test_any_architecture_builds_and_costs_what_it_says(
    convolution: str, width: int, stem_filters: int, blocks: tuple[int, ...], side: int
) -> None:
    configuration: dict[str, int | str] = {"convolution": convolution, "width": width, "stem_filters": stem_filters}
    configuration |= {f"blocks_{i}": n for i, n in enumerate(blocks, 1)}
    network = build("resnet", configuration, Input((side, side, 1)), classification("abc"))
    total, values = counted(network, Input((side, side, 1)))
    assert megaflops(configuration, Input((side, side, 1))) == total / 1e6
    assert megavalues(configuration, Input((side, side, 1))) == values / 1e6


@pytest.mark.parametrize(
    ("convolution", "activation"), list(itertools.product(["v1", "v2", "next"], ["tanh", "relu", "elu"]))
)
def test_every_kind_gives_logits_and_gradients_to_all_its_weights(convolution: str, activation: str) -> None:
    configuration = {**TINY, "convolution": convolution, "activation": activation}
    torch.manual_seed(0)
    network = build("resnet", configuration, Input((8, 8, 1)), classification("abcde"))
    for module in network.modules():  # residual branches start at zero, which stops the gradient of their inside
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    logits = network(torch.randint(0, 256, (4, 8, 8, 1), dtype=torch.uint8))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_small_images_get_a_3x3_stem_and_large_ones_7x7_of_stride_2() -> None:
    def stem(side: int) -> nn.Conv2d:
        convolution = build("resnet", TINY, Input((side, side, 1)), classification("ab")).body.conv
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    assert (stem(64).kernel_size, stem(64).stride) == ((3, 3), (1, 1))
    assert (stem(65).kernel_size, stem(65).stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize("convolution", ["v1", "v2", "next"])
def test_no_map_of_8x8_digits_falls_below_two_pixels(convolution: str) -> None:
    network = build("resnet", {**TINY, "convolution": convolution}, Input((8, 8, 1)), classification("ab")).eval()
    sides = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, a, output: sides.append(min(output.shape[2:])))
    network(torch.zeros((1, 8, 8, 1)))
    assert min(sides) == 2


def test_groups_have_at_least_four_channels_and_keep_narrow_stages_grouped() -> None:
    assert [groups(n) for n in (1, 4, 8, 37, 128, 512)] == [(1, 1), (1, 4), (2, 8), (9, 45), (32, 128), (32, 512)]


@pytest.mark.parametrize(
    ("configuration", "word"),
    [
        ({"convolution": "v3"}, "v1, v2, next"),
        ({"activation": 1}, "tanh, relu, elu"),
        ({"width": 0}, "at least 1"),
        ({"blocks_2": 1.5}, "whole number"),
        ({"blocks_2": True}, "whole number"),
    ],
)
def test_a_bad_hyperparameter_is_named_in_one_line(configuration: Configuration, word: str) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(configuration))}.*{word}"):
        build("resnet", configuration, Input((8, 8, 1)), classification("ab"))


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(ModelError, match="height, width, channels"):
        megaflops({}, Input((8,)))


@pytest.mark.parametrize("size", [7, 8])
def test_a_projection_trains_as_the_strided_convolution_it_stands_for(size: int) -> None:
    from ripieno.models.resnet import _Projection

    torch.manual_seed(0)
    layer, images = _Projection(14, 28, 2), torch.randn(5, 14, size, size)
    found = []
    for training in (True, False):
        layer.train(training).zero_grad()
        given = images.clone().requires_grad_()
        out = layer(given)
        out.square().sum().backward()
        assert given.grad is not None
        assert layer.weight.grad is not None
        found.append((out.detach(), given.grad, layer.weight.grad.clone()))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))
