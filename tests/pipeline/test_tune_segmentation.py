"""Searches for segmentations: spaces that fit, families that do not, pretrained encoders, members that are measured."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ripieno
from ripieno.backends.flops import onnx_flops
from ripieno.errors import ModelError, SearchError
from ripieno.files import write_json
from ripieno.library import Library
from ripieno.library.backbones import find_origins
from ripieno.models.unet_config import unet_megaflops
from ripieno.pipeline.costs import export_members
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.space_choice import choose_space, default_space
from ripieno.pipeline.space_fit import fit_search_space
from ripieno.pipeline.time_fit import fit_networks
from ripieno.profiles import measure_library
from ripieno.profiles.profiler import default_batch_sizes
from ripieno.search.built_in_spaces import SPACES, fit_space
from ripieno.search.settings import kept_settings
from ripieno.search.space import Categorical, backbone_names, fix_encoder, space_to_plain
from ripieno.types import Configuration, Device, Input, Member
from tests.coloured_squares import coloured_squares

needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="needs the extra segmentation"
)
NAME = "test_efficientnet"
SEARCH = {"trials": 2, "epochs": 1, "pool": "inline", "seed": 1}


def test_a_search_of_masks_trains_u_nets_by_default(tmp_path: Path) -> None:
    notes: list[str] = []
    library = ripieno.tune(coloured_squares(), tmp_path / "run", notes=notes, **{**SEARCH, "trials": 1})
    settings = kept_settings(library.path / "run.json")
    assert settings is not None
    assert settings.space == SPACES["segmentation-small"]
    assert {member.family for member in library.members()} == {"unet"}
    assert settings.metric == "valid_cross_entropy"
    # resumed: the run's space
    ripieno.tune(run=tmp_path / "run", trials=2, pool="inline")
    assert len(library.members()) == 2
    # few images are used several times in an epoch
    assert {member.configuration["epoch_samples"] for member in library.members()} == {1000}


def test_members_are_exported_measured_and_their_operations_counted(tmp_path: Path) -> None:
    library = one_member(tmp_path)
    (member,) = library.members()
    export_members(library, [member])
    counted = onnx_flops(library.onnx_path(member.id))
    assert counted == pytest.approx(2e6 * cost_of(member), rel=0.01)
    cpu = Device("cpu:0", "cpu", 0)
    (profile,) = measure_library(library, cpu, window=0.01, max_seconds=0.5).values()
    assert [point.batch_size for point in profile.points] == list(default_batch_sizes(member)) == [1, 8, 32, 128]


def one_member(tmp_path: Path) -> Library:
    """Search one U-Net of the default space, which sees each image once."""
    default = SPACES["segmentation-small"]
    once = dataclasses.replace(default, fixed={**default.fixed, "epoch_samples": 0})
    write_json(tmp_path / "space.json", space_to_plain(once))
    return ripieno.tune(coloured_squares(), tmp_path / "run", space=tmp_path / "space.json", **{**SEARCH, "trials": 1})


def cost_of(member: Member) -> float:
    return unet_megaflops(member.configuration, member.input, len(member.task.names))


def test_large_predictions_are_measured_in_small_batches(tmp_path: Path) -> None:
    library = one_member(tmp_path)
    (member,) = library.members()
    large = dataclasses.replace(member, task=dataclasses.replace(member.task, output=(360, 480, 12)))
    assert default_batch_sizes(large) == (1, 8)


@needs_smp
def test_a_search_on_pretrained_encoders_keeps_their_weights(tmp_path: Path) -> None:
    from ripieno.models.torchvision_import import import_timm

    torch.manual_seed(1)
    whole = import_timm().create_model(NAME)
    save_file(whole.state_dict(), tmp_path / f"{NAME}.safetensors")
    space = tmp_path / "space.json"
    space.write_text(
        '{"family": "smp", "ranges": {"architecture": {"kind": "categorical", "choices": ["FPN", "Unet"]}},'
        f' "fixed": {{"backbone": "{NAME}", "decoder_width": 0.1, "encoder_rate": 0.0}}}}'
    )
    weights = tmp_path / f"{NAME}.safetensors"
    library = ripieno.tune(coloured_squares(), tmp_path / "run", space=space, weights=weights, **SEARCH)
    members = library.members()
    assert {member.family for member in members} <= {f"smp:FPN/{NAME}", f"smp:Unet/{NAME}"}
    assert [record.name for record in find_origins(library.path, members).values()] == [NAME]
    # the encoder did not train: it has the weights of the file
    stored = load_file(library.weights_path(members[0].id))
    assert torch.equal(stored["body.encoder.model.conv_stem.weight"], whole.state_dict()["conv_stem.weight"])
    export_members(library, members)
    assert all(onnx_flops(library.onnx_path(member.id)) > 0 for member in members)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"family": "resnet"}, "family resnet has no networks for task segmentation: use unet, smp, cell, or your own"),
        ({"space": "resnet-tiny"}, "family resnet has no networks for task segmentation"),
        ({"trainer": "trees:random-forest"}, "trees predict whole samples, not the pixels"),
    ],
)
def test_families_and_trainers_of_whole_samples_are_refused(tmp_path: Path, options: dict[str, str], word: str) -> None:
    with pytest.raises(SearchError, match=word):
        ripieno.tune(coloured_squares(), tmp_path / "run", **SEARCH, **options)


def test_a_search_of_classes_does_not_train_u_nets(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8, 1), np.uint8)
    with pytest.raises(SearchError, match="family unet has no networks for task classification: use resnet, timm"):
        ripieno.tune((images, np.arange(20) % 2), tmp_path / "run", family="unet", **SEARCH)


def test_the_space_follows_task_family_and_device() -> None:
    assert default_space(None, False, task="segmentation").name == "segmentation-small"
    assert default_space(None, True, task="segmentation").name == "segmentation"
    assert default_space(None, False, family="unet").name == "segmentation-small"
    assert default_space(None, False, family="smp").name == "segmentation-pretrained"
    assert default_space(None, False, task="classification").name == "resnet-small"


@needs_smp
def test_weights_without_a_family_are_of_encoders_where_pixels_are_predicted() -> None:
    found, trainer = choose_space("auto", None, None, "hub", None, False, "segmentation")
    assert (found.name, found.family, trainer) == ("segmentation-pretrained", "smp", "network")
    fixed, _ = choose_space("auto", "smp:FPN/tu-resnet18", None, None, None, False)
    assert fixed.family == "smp:FPN/resnet18"
    assert backbone_names(fixed) == ("resnet18",)
    assert not {"architecture", "backbone"} & fixed.ranges.keys()


@needs_smp
@pytest.mark.parametrize(
    ("family", "error", "word"),
    [
        ("smp:FPN/resnet1", SearchError, "neither timm nor smp has an encoder 'resnet1'"),
        ("smp:Net/resnet18", ModelError, "architecture is 'Net'"),
    ],
)
def test_unknown_networks_are_refused_before_the_data_are_read(
    tmp_path: Path, family: str, error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        ripieno.tune(tmp_path / "absent", tmp_path / "run", family=family)


def test_the_cost_of_a_trial_grows_with_its_network() -> None:
    shape = Input((96, 128, 3))

    def cost(**configuration: int) -> float:
        return estimate_epoch_cost("unet", shape, 100, {"batch_size": 4, **configuration})

    assert cost(width=8) < cost(width=16)
    assert cost(stem_stride=4) < cost(stem_stride=1)


def test_an_epoch_of_masks_costs_what_its_pixels_and_classes_do() -> None:
    camvid, small = Input((192, 256, 3)), {"batch_size": 4, "epoch_samples": 0, "width": 8, "stem_stride": 4}
    network = estimate_epoch_cost("unet", camvid, 367, small)
    whole = estimate_epoch_cost("unet", camvid, 367, small, pixel_classes=11)
    assert whole - network == pytest.approx(8500, rel=0.02)  # as measured
    assert network + 1000 < estimate_epoch_cost("unet", camvid, 367, small, pixel_classes=2) < whole
    data = coloured_squares()
    request: Any = SimpleNamespace(
        chosen=SimpleNamespace(
            is_default=False, is_network=False, space=SPACES["segmentation-small"], policy=None, trainer="network"
        ),
        settings=SimpleNamespace(epochs=3, budget=None),
    )
    fitted = fit_search_space(request, data, lambda *_: None, [])
    rows, classes = len(data.rows("train")), len(data.task.names)
    assert fitted.weight(small) == estimate_epoch_cost("unet", data.input, rows, small, pixel_classes=classes)


def test_spaces_of_segmentation_have_only_hyperparameters_that_fit() -> None:
    for name in ("segmentation", "segmentation-small", "segmentation-pretrained"):
        assert fit_space(SPACES[name], "image", coloured_squares().task) == SPACES[name]
        assert space_to_plain(SPACES[name])["ranges"]
    with pytest.raises(SearchError, match="use segmentation-pretrained"):
        fix_encoder(SPACES["segmentation"], "smp")


def test_encoders_and_strides_that_are_too_slow_for_the_time_are_left_out() -> None:
    def cost(configuration: Configuration) -> float:
        slow = configuration.get("backbone") == "resnet50" or configuration.get("stem_stride") == 2
        return 2000.0 if slow else 100.0

    space, remark = fit_networks(SPACES["segmentation-pretrained"], cost, 1, 27, 100.0)
    assert set(backbone_names(SPACES["segmentation-pretrained"])) - set(backbone_names(space)) == {"resnet50"}
    assert "resnet50; give more --hours" in remark
    space, remark = fit_networks(SPACES["segmentation-small"], cost, 1, 27, 100.0)
    assert space.ranges["stem_stride"] == Categorical((4,))
    assert "stem_stride 2; give more --hours" in remark
    assert fit_networks(SPACES["segmentation"], cost, 1, 27, 1000.0) == (SPACES["segmentation"], "")
