from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ripieno
from ripieno.errors import ModelError
from ripieno.models.build import build
from ripieno.types import Input, classification

DIGITS = Input((8, 8, 1))
OWN = """
from torch import nn
number = 3
def good(configuration, input, classes):
    height, width, channels = input.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(height * width * channels, classes))
def wide(configuration, input, classes):
    return good(configuration, input, classes + 1)
def flat(configuration, input, classes):
    return nn.Linear(1000, classes)
def nothing(configuration, input, classes):
    return None
def needy(configuration, input, classes):
    return good(configuration["depth"], input, classes)
def softened(configuration, input, classes):
    return nn.Sequential(good(configuration, input, classes), nn.Softmax(1))
def picture(configuration, input, classes):
    return nn.Identity()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("1 / 0")
    (tmp_path / "own_trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef good(*a): pass")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_images_are_normalised_inside_by_mean_and_std(own: None) -> None:
    network = build(
        "own_networks:good",
        {},
        Input((2, 2, 2)),
        classification("abc"),
        (10.0, 20.0),
        (2.0, 4.0),
        ["own_networks:good"],
    )
    images = torch.tensor([12, 16], dtype=torch.uint8).expand(1, 2, 2, 2)
    assert network.normalise(images).flatten(2)[0].tolist() == [[1.0] * 4, [-1.0] * 4]
    assert torch.equal(network(images), network(images.float()))


def test_a_channel_that_never_varies_does_not_divide_by_zero() -> None:
    assert build("resnet", {"width": 2}, DIGITS, classification("ab"), (5.0,), (0.0,)).std.tolist() == [1.0]


def test_mean_and_std_travel_with_the_weights() -> None:
    network = build("resnet", {"width": 2}, DIGITS, classification("ab"), (5.0,), (3.0,))
    other = build("resnet", {"width": 2}, DIGITS, classification("ab"))
    other.load_state_dict(network.state_dict())
    assert (other.mean.item(), other.std.item()) == (5.0, 3.0)


def test_a_familys_own_name_in_a_file_is_not_imported(own: None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pass --family own_trap:good"):
        build("own_trap:good", {}, DIGITS, classification("ab"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("family", "word"),
    [
        ("vgg", "unknown family 'vgg'"),
        (":good", "unknown family"),
        ("own_absent:good", "cannot import own_absent"),
        ("own_broken:good", "cannot import own_broken .*ZeroDivisionError"),
        ("own_networks:absent", "has no absent"),
        ("own_networks:number", "is not a function"),
        ("own_networks:nothing", "returned a NoneType"),
        ("own_networks:wide", r"expected outputs of shape \(2, 3\)"),
        ("own_networks:picture", r"expected outputs of shape \(2, 3\)"),
        ("own_networks:flat", "cannot take inputs"),
        ("own_networks:needy", r"cannot be built with no values \(KeyError: 'depth'\)"),
        ("own_networks:softened", "returned probabilities; expected logits"),
    ],
)
def test_a_family_that_gives_no_network_is_told_in_one_line(own: None, family: str, word: str) -> None:
    with pytest.raises(ModelError, match=word) as caught:
        build(family, {}, DIGITS, classification("abc"), trusted=[family])
    assert "\n" not in str(caught.value)


def test_a_family_in_the_working_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text(OWN)
    code = "import ripieno.models.build as b, ripieno.types as t\n"
    code += "import sys; sys.path = [p for p in sys.path if p]\n"
    code += "b.build('here:good', {}, t.Input((8, 8, 1)), t.classification('abc'), trusted=['here:good'])"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=True,
        env={"PYTHONPATH": str(Path(ripieno.__file__).parents[1])},
    )


def test_what_a_configuration_costs_is_asked_without_torch() -> None:
    code = "import sys, ripieno.models.resnet_config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
