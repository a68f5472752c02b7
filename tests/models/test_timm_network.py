from __future__ import annotations

import importlib.util

import pytest
import torch

from ripieno.errors import ModelError
from ripieno.models.build import Network, build
from ripieno.models.timm_network import ImageResize, TimmBody, frozen_names, make_backbone, timm_megaflops
from ripieno.types import Configuration, Input, Task, classification

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)

NAME = "timm:test_efficientnet"
THREE = classification("abc")
DIGITS = Input((28, 28, 1))


def made(family: str = NAME, input: Input = DIGITS, task: Task = THREE, **configuration: object) -> Network:
    torch.manual_seed(0)
    values: Configuration = {"resolution": 32, **configuration}  # type: ignore[dict-item]
    return build(family, values, input, task, (3.0,) * input.shape[-1], (4.0,) * input.shape[-1])


@pytest.mark.parametrize("task", [THREE, Task("multilabel", (2,), ("a", "b")), Task("regression", (4,), ("t",) * 4)])
def test_a_network_has_a_head_for_its_task(task: Task) -> None:
    network = made(task=task).eval()
    assert network(torch.zeros(2, 28, 28, 1, dtype=torch.uint8)).shape == (2, *task.output)
    body = network.body
    assert isinstance(body, TimmBody)
    x = network.normalise(torch.rand(2, 28, 28, 1))
    assert torch.equal(body(x), body.head(body.features(x)))
    assert {name.split(".")[0] for name in body.state_dict()} == {"backbone", "head"}


def test_a_configuration_may_name_the_backbone() -> None:
    named, fixed = made("timm", backbone="test_efficientnet"), made()
    assert all(torch.equal(a, b) for a, b in zip(named.state_dict().values(), fixed.state_dict().values(), strict=True))
    with pytest.raises(ModelError, match="backbone is 'test_resnet', but the family is timm:test_efficientnet"):
        made(backbone="test_resnet")
    with pytest.raises(ModelError, match="family timm has no backbone"):
        made("timm")


@pytest.mark.parametrize(("height", "width", "side"), [(50, 40, 24), (50, 40, 64), (20, 64, 32)])
def test_images_are_resized_as_torch_does(height: int, width: int, side: int) -> None:
    images = torch.rand(2, 3, height, width)
    expected = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    torch.testing.assert_close(ImageResize(height, width, side)(images), expected)


def test_the_backbone_takes_images_of_the_resolution() -> None:
    body = made(resolution=48).body
    sizes: list[tuple[int, ...]] = []
    body.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    body.features(torch.zeros(2, 1, 28, 28))
    assert sizes == [(2, 1, 48, 48)]


def test_images_are_normalised_as_the_backbone_was_trained() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    colour = made(input=Input((28, 28, 3)))
    assert colour.mean.tolist() == pytest.approx([255 * v for v in mean])
    assert colour.std.tolist() == pytest.approx([255 * v for v in std])
    grey = made()
    assert grey.mean.tolist() == pytest.approx([255 * sum(mean) / 3])
    shares = build(NAME, {"resolution": 32}, Input((28, 28, 3), "float32"), THREE, (0.5,) * 3, (0.3,) * 3)
    assert shares.mean.tolist() == pytest.approx(mean)
    standardised = build(NAME, {"resolution": 32}, Input((28, 28, 3), "float32"), THREE, (0.0,) * 3, (1.0,) * 3)
    assert standardised.mean.tolist() == [0.0] * 3


def test_frozen_parts_have_no_gradient_and_keep_their_statistics() -> None:
    trained = {}
    for frozen in ("none", "most", "all"):
        network = made(frozen=frozen).train()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network(torch.rand(4, 28, 28, 1) * 255).sum().backward()
        trained[frozen] = {name for name, p in network.named_parameters() if p.grad is not None}
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        norms = {name.rpartition(".")[0] for name in changed}
        assert norms == {
            n.rpartition(".")[0] for n in trained[frozen] if f"{n.rpartition('.')[0]}.running_mean" in before
        }
    assert trained["none"] == set(dict(made().named_parameters()))
    assert trained["all"] == {"body.head.1.weight", "body.head.1.bias"}
    stages = {name.removeprefix("body.backbone.").split(".")[0:2][-1] for name in trained["most"] - trained["all"]}
    assert stages == {"4", "weight", "bias"}  # blocks.4, conv_head and bn2


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("mobilenetv2_100", ("blocks.5", "blocks.6", "conv_head", "bn2")),
        ("resnet10t", ("layer4",)),
        ("test_convnext", ("stages.3", "norm", "head")),
        ("test_vit", ("blocks.5", "norm")),
        ("caformer_s18", ("stages.3", "head")),  # timm knows no stages of it
    ],
)
def test_most_trains_what_follows_the_last_feature_map_but_one(name: str, last: tuple[str, ...]) -> None:
    with torch.device("meta"):
        backbone = make_backbone(name, 3)
    names = [n for n, _ in backbone.named_parameters()]
    trained = set(names) - frozen_names(backbone, "most")
    assert trained == {n for n in names if n.startswith(tuple(f"{part}." for part in last))}


def test_batch_norms_that_keep_their_statistics_are_trained_all_the_same() -> None:
    network = made()
    network.body.keeps_statistics = True
    network.train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.rand(4, 28, 28, 1) * 255).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert all(p.grad is not None for p in network.parameters())


def test_drop_path_and_dropout_act_in_training_only() -> None:
    network = made(dropout=0.5, drop_path=0.5, resolution=64)
    images = torch.rand(4, 28, 28, 1) * 255
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    made("timm:ghostnet_100", drop_path=0.5)  # takes no drop path


@pytest.mark.parametrize(
    ("family", "configuration", "line"),
    [
        ("timm:mobilenetv2_10", {}, "timm has no network 'mobilenetv2_10'; nearest: mobilenetv2_140, mobilenetv2_100"),
        ("timm:test_resnet.fast", {}, "timm has no weights 'test_resnet.fast'; it has test_resnet.r160_in1k"),
        ("timm:test_vit", {"resolution": 64}, "test_vit takes images of 160 pixels only, not of 64: set resolution"),
        (NAME, {"resolution": 16}, "test_efficientnet takes images of at least 32 pixels, not of 16: raise resolution"),
        (NAME, {"resolution": 0.5}, "resolution is 0.5: it must be a whole number of pixels"),
        (NAME, {"frozen": "head"}, "frozen is 'head': it must be one of none, most, all"),
        (NAME, {"ema": 1.0}, "ema is 1.0: it must be a number of at least 0 and below 1"),
        (NAME, {"layer_decay": 0}, "layer_decay is 0: it must be a number above 0 and at most 1"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(family: str, configuration: Configuration, line: str) -> None:
    with pytest.raises(ModelError) as error:
        timm_megaflops(family, configuration)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_multiply_adds_are_counted_without_weights() -> None:
    small, large = (timm_megaflops(NAME, {"resolution": side}) for side in (32, 64))
    assert large == pytest.approx(4 * small, rel=0.1)
    assert timm_megaflops("timm:mobilenetv2_100", {}) == pytest.approx(300, rel=0.02)
