"""Costs that are known before training: equal to those of the network that is built, and of its exported file."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
import torch

from ripieno.backends.export import export_onnx
from ripieno.backends.flops import onnx_flops
from ripieno.models.build import build
from ripieno.models.configuration_costs import configuration_costs
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Column, Configuration, Input, Member, Task

CLASSES = Task("classification", (3,), ("a", "b", "c"))
NUMBERS = Task("regression", (2,), ("a", "b"))
IMAGES, LARGE = Input((10, 12, 2)), Input((70, 65, 3))
SERIES = Input((30, 3), "float32")
COLUMNS = (Column("a"), Column("b", "category", ("x", "y", "z")), Column("c"), Column("d", "category", ("u", "v")))
ROWS = Input((4,), "float32", columns=COLUMNS)
NUMBERS_ONLY = Input((5,), "float32")


def masks(input: Input) -> Task:
    return Task("segmentation", (*input.shape[:2], 3), ("a", "b", "c"))


def draw(family: str, generator: random.Random) -> Configuration:
    choose, whole = generator.choice, generator.randint
    blocks: Configuration = {"convolution": choose(("v1", "v2", "next")), "width": whole(1, 20)}
    if family == "resnet":
        return {**blocks, "stem_filters": whole(1, 20), **{f"blocks_{n}": whole(1, 3) for n in (1, 2, 3, 4)}}
    if family == "unet":
        return {**blocks, "levels": whole(1, 5), "blocks": whole(1, 2), "stem_stride": choose((1, 2, 4))}
    if family in ("mlp", "mlp-periodic"):
        embedding: Configuration = {"embedding": choose(("periodic", "piecewise-linear")), "bins": whole(2, 9)}
        sizes: Configuration = {"embedding_size": whole(1, 9), "frequencies": whole(1, 9), "category_size": whole(1, 9)}
        return {**embedding, **sizes, "layers": whole(1, 3), "units": whole(1, 20)}
    return {"width_factor": generator.uniform(0.02, 0.3), "kernel_factor": generator.uniform(0.2, 1.5)}


def forms(family: str) -> list[tuple[Input, Task]]:
    """Return inputs and tasks that a family takes."""
    if family == "unet":
        return [(IMAGES, masks(IMAGES)), (LARGE, masks(LARGE))]
    if family == "resnet":
        return [(IMAGES, CLASSES), (LARGE, NUMBERS), (Input((1, 1, 7)), CLASSES)]
    if family in ("mlp", "mlp-periodic"):
        return [(ROWS, CLASSES), (NUMBERS_ONLY, NUMBERS)]
    tiny, single = (Input(shape, "float32") for shape in ((1, 1), (101, 1)))
    return [(SERIES, CLASSES), (tiny, NUMBERS), (single, CLASSES)]


def export(folder: Path, family: str, configuration: Configuration, input: Input, task: Task) -> Path:
    """Write the network of a configuration as ONNX; return the path."""
    weights, model = folder / "weights.safetensors", folder / "model.onnx"
    weights.write_bytes(weights_bytes(build(family, configuration, input, task)))
    export_onnx(Member("00000-e001", 0, 1, family, configuration, input, task, {}, 0, 0.0, 0.0), weights, model)
    return model


SERIES_NETWORKS = ("lite", "inception", "resnet-1d", "fcn", "minirocket", "hydra")
FAMILIES = ("resnet", "unet", *SERIES_NETWORKS, "mlp", "mlp-periodic")


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_of_drawn_configurations_are_those_of_the_network(family: str) -> None:
    generator = random.Random(0)
    for _ in range(6):
        configuration = draw(family, generator)
        for input, task in forms(family):
            with torch.device("meta" if family in ("resnet", "unet") else "cpu"):
                network = build(family, configuration, input, task)
            counted = sum(p.numel() for p in network.parameters())
            costs = configuration_costs(family, configuration, input, task)
            assert (costs["parameters"], costs["bytes"]) == (counted, 4 * counted), (configuration, input)


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_those_of_the_exported_file(family: str, tmp_path: Path) -> None:
    generator = random.Random(1)
    input, task = forms(family)[0]
    configuration = draw(family, generator)
    exported = export(tmp_path, family, configuration, input, task)
    assert configuration_costs(family, configuration, input, task)["flops"] == onnx_flops(exported), configuration


@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_timm_are_counted_with_their_resize_and_head(channels: int, tmp_path: Path) -> None:
    family, configuration, input = "timm:test_efficientnet", {"resolution": 32}, Input((24, 40, channels))
    costs = configuration_costs("timm", {**configuration, "backbone": "test_efficientnet"}, input, CLASSES)
    assert costs["parameters"] == sum(p.numel() for p in build(family, configuration, input, CLASSES).parameters())
    assert costs["flops"] == pytest.approx(
        onnx_flops(export(tmp_path, family, configuration, input, CLASSES)), rel=0.01
    )


@pytest.mark.skipif(importlib.util.find_spec("segmentation_models_pytorch") is None, reason="needs smp")
def test_networks_of_smp_are_counted_at_their_own_width() -> None:
    family = "smp:FPN/test_efficientnet"
    for width in (0.3, 0.37):
        network = build(family, {"decoder_width": width}, IMAGES, masks(IMAGES))
        costs = configuration_costs(family, {"decoder_width": width}, IMAGES, masks(IMAGES))
        assert costs["parameters"] == sum(p.numel() for p in network.parameters())


def test_a_network_of_the_users_own_has_no_costs_before_training() -> None:
    assert configuration_costs("module:function", {"width": 3}, IMAGES, CLASSES) == {}
