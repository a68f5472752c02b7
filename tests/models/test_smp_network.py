"""Networks of segmentation-models-pytorch: encoders of timm and of smp, pretrained weights, costs, bad names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ripieno.errors import LibraryError, ModelError
from ripieno.models.backbone_weights import load_encoder
from ripieno.models.build import Network, build
from ripieno.models.family_config import member_family
from ripieno.models.smp_config import smp_config
from ripieno.models.smp_network import SmpBody, smp_megaflops
from ripieno.models.timm_network import make_backbone
from ripieno.train.optim import OptimizerConfig, make_optimizer
from ripieno.types import Configuration, Input, Task

if importlib.util.find_spec("segmentation_models_pytorch") is None:
    pytest.skip("needs the extra segmentation", allow_module_level=True)

ARCHITECTURES = ("Unet", "FPN", "DeepLabV3Plus", "Segformer")
TASK = Task("segmentation", (40, 50, 3), ("a", "b", "c"))
IMAGES = Input((40, 50, 3))


def made(family: str, input: Input = IMAGES, **configuration: object) -> Network:
    torch.manual_seed(0)
    values: Configuration = {"decoder_width": 0.1, **configuration}  # type: ignore[dict-item]
    return build(family, values, input, TASK, (3.0,) * input.shape[-1], (4.0,) * input.shape[-1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_predicts_each_pixel_and_trains_on_one_image(architecture: str) -> None:
    network = made(f"smp:{architecture}/test_efficientnet")
    images = torch.randint(0, 255, (1, 40, 50, 3), dtype=torch.uint8)
    outputs = network.train()(images)
    assert outputs.shape == (1, 40, 50, 3)
    outputs.sum().backward()
    assert network.body.encoder.get_parameter("model.conv_stem.weight").grad is not None
    with torch.no_grad():
        predictions = network.eval().predict(images)
    assert torch.allclose(predictions.sum(-1), torch.ones(1, 40, 50))


def test_a_configuration_may_name_architecture_and_encoder() -> None:
    named = made("smp", architecture="FPN", backbone="test_efficientnet")
    fixed = made("smp:FPN/tu-test_efficientnet")
    assert all(torch.equal(a, b) for a, b in zip(named.state_dict().values(), fixed.state_dict().values(), strict=True))
    assert member_family("smp", {"architecture": "FPN", "backbone": "resnet18"}) == "smp:FPN/resnet18"
    assert smp_config("smp:DeepLabV3+/tu-resnet18", {}).architecture == "DeepLabV3Plus"


def test_images_are_normalised_as_the_weights_of_timm_want_them() -> None:
    network = made("smp:FPN/test_efficientnet")
    mean = make_backbone("test_efficientnet", 3).pretrained_cfg["mean"]
    assert network.mean.tolist() == pytest.approx([255 * m for m in mean])


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "resnet18"])
def test_an_encoder_gets_the_weights_of_the_whole_network(tmp_path: Path, name: str, channels: int) -> None:
    torch.manual_seed(1)
    whole = make_backbone(name, 3).eval()
    for module in whole.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    path = tmp_path / f"{name}.safetensors"
    save_file(whole.state_dict(), path)
    body = made(f"smp:Unet/{name}", Input((40, 50, channels))).body
    assert isinstance(body, SmpBody)
    load_encoder(body, path)
    grey = torch.rand(1, 1, 64, 64)
    x = grey.expand(-1, 3, -1, -1) if channels == 3 else grey
    body.train()  # with the statistics of the weights
    with torch.no_grad():
        expected = whole.forward_intermediates(grey.expand(-1, 3, -1, -1), intermediates_only=True)[-1]
        found = body.encoder(x)[-1]
    assert torch.allclose(found, expected, atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    body = made("smp:Unet/test_efficientnet").body
    path = tmp_path / "weights.safetensors"
    save_file({"conv.weight": torch.zeros(1)}, path)
    with pytest.raises(LibraryError, match=r"weights\.safetensors.*test_efficientnet have no tensor"):
        load_encoder(body, path)


def test_the_encoder_has_a_learning_rate_of_its_own() -> None:
    body = made("smp:FPN/test_efficientnet", encoder_rate=0.2).body
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.1), body, {"encoder.": 0.2})
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert {name.partition(".")[0]: scale[id(p)] for name, p in body.named_parameters()} == {
        "encoder": 0.2,
        "decoder": 1.0,
        "head": 1.0,
    }


def test_an_encoder_without_a_rate_is_frozen_with_its_statistics() -> None:
    network = made("smp:FPN/test_efficientnet", encoder_rate=0.0).train()
    before = {name: t.clone() for name, t in network.body.encoder.state_dict().items()}
    network(torch.randint(0, 255, (2, 40, 50, 3), dtype=torch.uint8)).sum().backward()
    assert all(p.grad is None for p in network.body.encoder.parameters())
    assert all(torch.equal(t, before[name]) for name, t in network.body.encoder.state_dict().items())


def test_the_cost_grows_with_image_and_decoder() -> None:
    small, wide = ({"decoder_width": width} for width in (0.25, 1.0))
    family = "smp:Unet/test_efficientnet"
    assert smp_megaflops(family, small, IMAGES) < smp_megaflops(family, wide, IMAGES)
    assert smp_megaflops(family, small, IMAGES) < smp_megaflops(family, small, Input((80, 100, 3)))


@pytest.mark.parametrize(
    ("family", "configuration", "word"),
    [
        ("smp:Unet/resnet1", {}, "neither timm nor smp has an encoder 'resnet1'; nearest: "),
        ("smp:Net/resnet18", {}, "architecture is 'Net': it must be one of Unet, FPN"),
        ("smp:Unet", {}, "names no backbone: write smp:ARCHITECTURE/ENCODER"),
        ("smp", {"architecture": "FPN"}, "names no backbone"),
        ("smp:Unet/resnet18", {"backbone": "resnet34"}, "but the family is smp:Unet/resnet18"),
        ("smp:Unet/resnet18", {"decoder_width": 0}, "decoder_width is 0"),
        ("smp:DeepLabV3Plus/test_vit", {}, "cannot be built on test_vit"),
    ],
)
def test_bad_names_and_values_are_refused_in_one_line(family: str, configuration: Configuration, word: str) -> None:
    with pytest.raises(ModelError, match=word) as found:
        build(family, configuration, IMAGES, TASK)
    assert "\n" not in str(found.value)
