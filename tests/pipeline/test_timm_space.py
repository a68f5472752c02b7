"""Searches of networks of timm: their backbones are checked before anything long begins."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import ripieno
from ripieno.errors import ModelError, RipienoError, SearchError
from ripieno.models.timm_network import check_name, make_backbone
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.space_choice import default_space
from ripieno.pipeline.timm_space import check_backbones, family_of_weights, fit_resolution
from ripieno.search.built_in_spaces import SPACES, find_space
from ripieno.search.settings import kept_settings
from ripieno.search.space import Categorical, backbone_names, fix_backbone
from ripieno.types import Input

if importlib.util.find_spec("timm") is None:
    pytest.skip("needs the extra timm", allow_module_level=True)

IMAGES = np.random.default_rng(0).integers(0, 120, (60, 6, 5, 1), np.uint8)
LABELS = np.arange(60) % 2
QUICK: dict[str, Any] = {"trials": 2, "epochs": 1, "algorithm": "random", "pool": "inline", "free": "off"}


def written(folder: Path, **changes: Any) -> str:
    """Write the file of a space of two small backbones; `changes` replace its ranges and fixed values."""
    ranges = {
        "backbone": {"kind": "categorical", "choices": ["test_efficientnet", "test_byobnet"]},
        "learning_rate": {"kind": "continuous", "low": 0.01, "high": 0.02},
    }
    fixed = {"batch_size": 16, "resolution": 32, "ema": 0.9}
    for name, value in changes.items():
        if isinstance(value, dict):
            ranges[name], _ = value, fixed.pop(name, None)
        else:
            fixed[name], _ = value, ranges.pop(name, None)
    path = folder / "small.json"
    path.write_text(json.dumps({"family": "timm", "ranges": ranges, "fixed": fixed}))
    return str(path)


def test_a_search_makes_members_of_the_family_of_their_backbones_and_resumes(tmp_path: Path) -> None:
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", space=written(tmp_path), **QUICK)
    members = library.members()
    assert len(members) == 2
    assert {m.family for m in members} <= {"timm:test_efficientnet", "timm:test_byobnet"}
    assert all(m.family == f"timm:{m.configuration['backbone']}" for m in members)
    resumed = ripieno.tune(run=tmp_path / "run", **{**QUICK, "trials": 3})
    assert len(resumed.members()) == 3


def test_a_named_backbone_is_fixed_in_the_space(tmp_path: Path) -> None:
    space = written(tmp_path)
    options = {**QUICK, "trials": 1}
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", space=space, family="timm:test_byobnet", **options)
    assert [m.family for m in library.members()] == ["timm:test_byobnet"]
    with pytest.raises(SearchError, match="space"):
        ripieno.tune(run=tmp_path / "run", family="timm:test_efficientnet", **options)


@pytest.mark.parametrize(
    ("changes", "family", "line"),
    [
        ({"backbone": "mobilenetv2_10"}, None, "timm has no network 'mobilenetv2_10'; nearest: mobilenetv2_140"),
        ({}, "timm:mobilenetv2_10", "timm has no network 'mobilenetv2_10'; nearest: mobilenetv2_140"),
        ({"resolution": 16}, None, "test_efficientnet takes images of at least 32 pixels, not of 16"),
        ({"backbone": "test_vit", "resolution": 64}, None, "test_vit takes images of 160 pixels only, not of 64"),
        ({"resolution": {"kind": "integer", "low": 8, "high": 64}}, None, "at least 32 pixels, not of 8"),
        ({"resolution": {"kind": "categorical", "choices": [64, 2.5]}}, None, "resolution is 2.5: it must be"),
        ({"backbone": ""}, None, "space small names no backbone: add it as a categorical range or a fixed value"),
        ({"ema": 2}, None, "ema is 2: it must be a number of at least 0 and below 1"),
        ({"width": 8}, None, "'width' is not a hyperparameter of timm: it must be one of"),
    ],
)
def test_what_cannot_train_is_said_in_one_line_before_the_search(
    changes: dict[str, Any], family: str | None, line: str, tmp_path: Path
) -> None:
    with pytest.raises(RipienoError) as error:
        ripieno.tune((IMAGES, LABELS), tmp_path / "run", space=written(tmp_path, **changes), family=family, **QUICK)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_networks_of_timm_take_images_only(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((60, 5)).astype(np.float32)
    with pytest.raises(SearchError, match="the data are of kind table, which family timm does not take"):
        ripieno.tune((table, LABELS), tmp_path / "run", space=written(tmp_path), **QUICK)


def test_built_in_spaces_hold_networks_with_pretrained_weights() -> None:
    for name in ("timm", "timm-small"):
        names = backbone_names(SPACES[name])
        assert len(names) == len(set(names)) >= 12
        check_backbones(SPACES[name])
        for backbone in names:
            check_name(backbone)
            from ripieno.models.torchvision_import import import_timm

            config = import_timm().get_pretrained_cfg(backbone)
            assert config.has_weights
            assert not config.fixed_input_size


def test_a_backbone_of_one_resolution_gets_it_in_a_built_in_space_only(tmp_path: Path) -> None:
    fitted = fit_resolution(fix_backbone(SPACES["timm-small"], "timm:test_vit"))
    assert fitted.fixed["resolution"] == 160
    assert "resolution" not in fitted.ranges
    check_backbones(fitted)
    free = fix_backbone(SPACES["timm-small"], "timm:test_resnet")
    assert fit_resolution(free) == free
    own = fix_backbone(find_space(written(tmp_path, resolution=64)), "timm:test_vit")
    assert fit_resolution(own) == own
    with pytest.raises(ModelError, match="timm has no network 'test_vi'"):
        fit_resolution(fix_backbone(SPACES["timm-small"], "timm:test_vi"))


def test_a_family_of_timm_has_a_space_of_its_own() -> None:
    assert [default_space(None, on_gpu, "timm:test_vit").name for on_gpu in (False, True)] == ["timm-small", "timm"]
    assert default_space(None, False).name == "resnet-small"
    with pytest.raises(SearchError, match="space resnet is of family resnet, not of timm:test_vit: use timm-small or"):
        fix_backbone(SPACES["resnet"], "timm:test_vit")
    assert isinstance(fix_backbone(SPACES["timm"], "timm").ranges["backbone"], Categorical)


def test_weights_alone_name_the_family(tmp_path: Path) -> None:
    file = tmp_path / "test_vit.safetensors"
    file.touch()
    assert family_of_weights("hub") == "timm"
    assert family_of_weights(file) == family_of_weights(str(tmp_path)) == "timm:test_vit"
    (tmp_path / "test_resnet.r160_in1k.safetensors").touch()
    assert family_of_weights(tmp_path) == "timm"
    assert family_of_weights(tmp_path / "test_resnet.r160_in1k.safetensors") == "timm:test_resnet.r160_in1k"
    assert family_of_weights(tmp_path / "mine.safetensors") == "timm"


def test_a_search_of_weights_alone_trains_their_network(tmp_path: Path) -> None:
    file = tmp_path / "test_byobnet.safetensors"
    save_file(make_backbone("test_byobnet", 3).state_dict(), file)
    library = ripieno.tune((IMAGES, LABELS), tmp_path / "run", weights=file, **{**QUICK, "trials": 1})
    (member,) = library.members()
    assert member.family == "timm:test_byobnet"
    assert member.backbone.startswith("test_byobnet-")
    assert kept_settings(tmp_path / "run" / "run.json").space.name == "timm-small"


def test_an_epoch_costs_what_is_trained_at_its_resolution() -> None:
    def cost(**configuration: Any) -> float:
        return estimate_epoch_cost(
            "timm", Input((6, 5, 1)), 1000, {"backbone": "test_byobnet", "batch_size": 1000, **configuration}
        )

    assert cost(resolution=64, frozen="all") < cost(resolution=64, frozen="most") < cost(resolution=64)
    assert cost(resolution=128) > 3 * cost(resolution=64)
