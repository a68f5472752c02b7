"""Searches on pretrained weights: kept in the run, resumed without them, refused with others."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from sklearn.datasets import load_digits

import ripieno
from ripieno.errors import DataError, SearchError
from ripieno.library import Library
from ripieno.pipeline import time_fit
from ripieno.search.built_in_spaces import SPACES, find_space
from ripieno.search.settings import kept_settings
from ripieno.search.space import Categorical
from tests.hub_server import hub_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

NAME, LACKING = "test_efficientnet", "test_resnet"
SEARCH = {"trials": 2, "epochs": 1, "pool": "inline", "seed": 1, "free": "off"}


def write_weights(folder: Path, seed: int = 1) -> Path:
    from ripieno.models.torchvision_import import import_timm

    folder.mkdir()
    torch.manual_seed(seed)
    save_file(import_timm().create_model(NAME).state_dict(), folder / f"{NAME}.safetensors")
    return folder


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    source = load_digits()
    return (source.images[:200, :, :, None] * 15).astype(np.uint8), source.target[:200]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.json"
    ranges = {
        "backbone": {"kind": "categorical", "choices": [NAME, LACKING]},
        "weight_decay": {"kind": "continuous", "low": 1e-4, "high": 1.0, "log": True},
    }
    fixed = {"resolution": 32, "frozen": "all"}
    path.write_text(json.dumps({"family": "timm", "ranges": ranges, "fixed": fixed}))
    return path


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, digits: tuple[np.ndarray, np.ndarray], space: Path
) -> tuple[Library, list[str], Path]:
    """A search on pretrained weights, its notes, and the folder of the weights."""
    folder, notes = write_weights(tmp_path_factory.mktemp("made") / "weights"), []
    run = tmp_path_factory.mktemp("runs") / "run"
    return ripieno.tune(digits, run, space=str(space), weights=folder, notes=notes, **SEARCH), notes, folder


def test_all_members_of_the_first_epoch_share_the_kept_backbone(searched: tuple[Library, list[str], Path]) -> None:
    library, notes, folder = searched
    assert f"{LACKING} has no weights in {folder}: left out of the space" in notes
    settings = kept_settings(library.path / "run.json")
    assert settings is not None
    (stem,) = settings.weights
    assert {m.backbone for m in library.members()} == {f"{stem}-32"}
    assert len(library.members()) == 2
    assert min(m.losses["valid_accuracy"] for m in library.members()) > 0.3


def test_the_origin_of_the_weights_is_shown(searched: tuple[Library, list[str], Path]) -> None:
    (record,) = ripieno.show(searched[0]).weights.values()
    assert (record.name, record.source) == (NAME, f"{NAME}.safetensors")


def test_a_resumed_search_needs_no_weights_and_takes_the_same(
    searched: tuple[Library, list[str], Path], space: Path
) -> None:
    library, _, folder = searched
    before = sorted(library.ids())
    for given in ({}, {"weights": folder, "space": str(space)}, {"space": str(space)}):
        assert sorted(ripieno.tune(None, library.path, **{**SEARCH, **given}).ids()) == before


def test_a_resumed_search_with_other_weights_is_refused(
    searched: tuple[Library, list[str], Path], tmp_path: Path
) -> None:
    library = searched[0]
    other = write_weights(tmp_path / "other", seed=9)
    with pytest.raises(SearchError, match=rf"a search with weights {NAME}-\w+, requested is weights {NAME}-\w+:"):
        ripieno.tune(None, library.path, weights=other, **SEARCH)
    assert len(list((library.path / "backbones").glob("*.json"))) == 1


def test_a_search_from_random_weights_is_not_resumed_with_pretrained_ones(
    searched: tuple[Library, list[str], Path], digits: tuple[np.ndarray, np.ndarray], tmp_path: Path, space: Path
) -> None:
    notes: list[str] = []
    run = tmp_path / "run"
    ripieno.tune(digits, run, space=str(space), notes=notes, **SEARCH)
    assert any("start from random weights" in note for note in notes)
    assert {m.backbone for m in Library(run).members()} == {""}
    with pytest.raises(SearchError, match=r"and weights none, requested is .* and weights test_efficientnet-"):
        ripieno.tune(None, run, weights=searched[2], **SEARCH)


def test_bad_weights_leave_no_run(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path, space: Path) -> None:
    with pytest.raises(SearchError, match="do not exist"):
        ripieno.tune(digits, tmp_path / "run", space=str(space), weights=tmp_path / "absent", **SEARCH)
    with pytest.raises(SearchError, match="weights are for networks of timm"):
        ripieno.tune(digits, tmp_path / "run", space="resnet-tiny", weights=tmp_path, **SEARCH)
    assert not (tmp_path / "run").exists()


def test_bad_data_are_found_before_weights_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: Path
) -> None:
    series = (np.zeros((40, 12, 1), np.float32), np.arange(40) % 2)
    with hub_of({}, monkeypatch, str(tmp_path / "cache")) as requests:
        for data, line in ((tmp_path / "absent", "absent does not exist"), (None, "holds no data")):
            with pytest.raises(DataError, match=line):
                ripieno.tune(data, tmp_path / "run", space=str(space), weights="hub", **SEARCH)
        assert not (tmp_path / "run").exists()
        with pytest.raises(SearchError, match="the data are of kind series, which family timm does not take"):
            ripieno.tune(series, tmp_path / "run", space=str(space), weights="hub", kind="series", **SEARCH)
        assert {request.partition(" ")[0] for request in requests} == {"HEAD"}


def test_only_the_backbones_that_fit_in_the_time_are_downloaded(
    digits: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ripieno.models.timm_network import make_backbone

    names, small = ("test_byobnet", NAME), find_space("timm-small")
    few = replace(small, ranges={**small.ranges, "backbone": Categorical(names)})
    monkeypatch.setitem(SPACES, small.name, few)
    monkeypatch.setattr(time_fit, "SHARE", 1e-6)
    contents = {f"timm/{name}.r160_in1k": save(make_backbone(name, 3).state_dict()) for name in names}
    with hub_of(contents, monkeypatch, str(tmp_path / "cache")) as requests:
        library = ripieno.tune(digits, tmp_path / "run", space="timm-small", weights="hub", hours=0.01, **SEARCH)
    (family,) = {member.family for member in library.members()}
    downloads = [request for request in requests if request.startswith("GET")]
    assert downloads == [f"GET timm/{family.removeprefix('timm:')}.r160_in1k"]


def test_a_search_killed_among_its_free_members_continues_on_the_same_weights(
    searched: tuple[Library, list[str], Path],
    digits: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    space: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ripieno.pipeline.search_execution.add_free_members", stop)
        with pytest.raises(KeyboardInterrupt):
            ripieno.tune(digits, tmp_path / "run", space=str(space), weights=searched[2], **{**SEARCH, "free": "on"})
    library = ripieno.tune(run=tmp_path / "run", **SEARCH)
    assert sorted(library.ids()) == sorted(searched[0].ids())
    assert {m.backbone for m in library.members()} == {m.backbone for m in searched[0].members()}


def test_an_estimator_takes_weights(
    searched: tuple[Library, list[str], Path], digits: tuple[np.ndarray, np.ndarray], space: Path
) -> None:
    own = {"budget": {"parameters": 1e9}, "random_state": 1, "trials": 2, "epochs": 1}
    model = ripieno.EnsembleClassifier(
        **own, space=str(space), weights=str(searched[2]), pool="inline", free="off", split=(0.7, 0.2, 0.1)
    )
    images, labels = digits
    assert model.fit(images, labels).score(images, labels) > 0.5
