"""Free members of larger images: trees on the features of a pretrained backbone, served as one graph."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits

from ripieno import files
from ripieno.backends.onnx import open_file
from ripieno.data import load_dataset, write_dataset
from ripieno.library import Library
from ripieno.library.backbones import BackboneRecord, find_origins, weights_file
from ripieno.pipeline import free_members
from ripieno.pipeline.free_members import MODELS, add_free_members
from ripieno.pipeline.timm_space import cheapest_backbone
from ripieno.search.space import Categorical, Continuous, Space
from ripieno.train import TrainingConfig
from ripieno.types import Dataset

pytestmark = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")

NAME, DEARER = "test_efficientnet", "test_resnet"
RATE = {"learning_rate": Continuous(1e-5, 1e-3)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """200 digits of 40x40 pixels, too large for trees on pixels."""
    source = load_digits()
    images = np.kron(source.images[:200], np.ones((1, 5, 5)))[..., None] * 15
    return write_dataset(load_dataset((images.astype(np.uint8), source.target[:200])), tmp_path_factory.mktemp("d"))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    from ripieno.models.timm_network import make_backbone

    torch.manual_seed(2)
    content = save(make_backbone(NAME, 3).state_dict())
    record = BackboneRecord(NAME, "made.safetensors", "mit", hashlib.sha256(content).hexdigest())
    files.write_bytes(weights_file(tmp_path, record.stem), content)
    files.write_json(weights_file(tmp_path, record.stem).with_suffix(".json"), record)
    return Library(tmp_path)


def add(library: Library, data: Dataset, seconds: float | None = None, device: str = "cpu") -> list[str]:
    notes: list[str] = []
    assert data.path is not None
    weights = tuple(path.stem for path in (library.path / "backbones").glob("*.json"))
    config = TrainingConfig(run=library.path, dataset=data.path, family="timm", weights=weights, device=device)
    chosen = {"backbone": NAME, "resolution": 32, "frozen": "all"}
    add_free_members(library, config, data, seconds, notes=notes, backbone=chosen)
    return notes


def test_they_are_served_as_one_graph_and_predict_as_it(
    library: Library, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"trees-random-forest": ("trees:random-forest", {"trees": 20}), "trees-lightgbm": MODELS["trees-lightgbm"]}
    monkeypatch.setattr(free_members, "MODELS", few)
    assert add(library, data) == []
    assert library.ids() == ["features-lightgbm", "features-random-forest"]
    rows = data.rows("valid")
    for member in library.members():
        assert member.format == "onnx"
        assert member.losses["valid_accuracy"] > 0.5  # of ten classes
        found = open_file(library.onnx_path(member.id).read_bytes())(np.asarray(data.inputs[rows]))[0]
        assert np.abs(found - library.predictions(member.id)).max() < 1e-4
        assert member.configuration["features"] == f"{next(iter(find_origins(library.path, [member])))}-32"
    made = {path: path.stat().st_mtime_ns for path in library.path.rglob("*.*")}
    assert add(library, data) == []
    assert {path: path.stat().st_mtime_ns for path in library.path.rglob("*.*")} == made


@pytest.mark.skipif(torch.cuda.is_available(), reason="this process has a GPU")
def test_a_driver_without_a_gpu_computes_features_for_trials_on_one(
    library: Library, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_members, "MODELS", {"trees-extra-trees": ("trees:extra-trees", {"trees": 5})})
    assert add(library, data, device="cuda") == []
    assert library.ids() == ["features-extra-trees"]


def test_trees_on_cached_features_are_those_of_the_graph(library: Library, data: Dataset) -> None:
    from ripieno.models.build import build
    from ripieno.train.feature_trees import FeatureTreeTrainer
    from ripieno.train.frozen_backbone import load_pretrained
    from ripieno.train.trees import ExtraTreesTrainer
    from ripieno.types import Job

    chosen = {"backbone": NAME, "resolution": 32, "frozen": "all"}
    weights = tuple(path.stem for path in (library.path / "backbones").glob("*.json"))
    config = TrainingConfig(run=library.path, family="timm", weights=weights)
    network = build("timm", chosen, data.input, data.task, data.mean, data.std)
    backbone = load_pretrained(network, config, chosen, data)
    assert backbone is not None
    trees = ExtraTreesTrainer(config)
    trainer = FeatureTreeTrainer(trees, network, backbone, library.path)
    trainer.start(Job(0, {"trees": 10}, 0, 1), data)
    trainer.epoch()
    rows = data.rows("valid")
    found = trainer.predict(np.asarray(data.inputs[rows]))
    expected = trees.predict(np.asarray(backbone.cached(network)[rows]))
    # a feature beside a threshold may fall to its other side
    assert (np.abs(found - expected).max(1) < 1e-4).mean() > 0.9


def test_features_that_take_too_long_are_not_computed(library: Library, data: Dataset) -> None:
    notes = add(library, data, seconds=1e-6)
    assert len(notes) == 1
    assert "features would take" in notes[0]
    assert library.ids() == []
    assert not (library.path / "features").exists()


def test_the_cheapest_backbone_with_weights_at_the_middle_resolution() -> None:
    sides = Categorical((96, 32, 64))
    space = Space("s", "timm", {**RATE, "backbone": Categorical((DEARER, NAME)), "resolution": sides})
    assert cheapest_backbone(space, (f"{NAME}-00000000", f"{DEARER}-00000000")) == {
        "backbone": NAME,
        "resolution": 64,
        "frozen": "all",
    }
    found = cheapest_backbone(Space("s", f"timm:{DEARER}", RATE), (f"{DEARER}-00000000",))
    assert found == {"backbone": DEARER, "resolution": 160, "frozen": "all"}
    assert cheapest_backbone(space, ()) is None
