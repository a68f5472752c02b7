"""Sample networks whose measured costs tell those of a space, and the models that the run keeps."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ripieno import files
from ripieno.library import Library
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline import cost_samples
from ripieno.pipeline.cost_samples import (
    CostRecord,
    cost_features,
    find_cost_models,
    profiled_members,
    spread_configurations,
    spread_places,
)
from ripieno.pipeline.preparation import DataOptions, prepare
from ripieno.profiles import local_devices
from ripieno.search.built_in_spaces import find_space
from ripieno.types import BatchProfile, Dataset, Input, Member, Profile, classification

SPACE = find_space("resnet-tiny")
TASK = classification(("a", "b"))
IMAGES = np.random.default_rng(0).integers(0, 120, (40, 6, 5, 1), np.uint8)
CHOSEN = {"convolution": "v1", "activation": "relu", "stem_filters": 8, "width": 4, "learning_rate": 0.01}


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "run")


@pytest.fixture
def dataset(library: Library) -> Dataset:
    return prepare((IMAGES, np.arange(40) % 2), library, DataOptions(), lambda *_: None, [])


def test_features_are_closed_forms_and_hyperparameters_of_the_network() -> None:
    features = cost_features("resnet", CHOSEN, Input((6, 5, 1), "uint8"), TASK)
    assert features["convolution=v1"] == features["activation=relu"] == 1.0
    assert features["log configuration width"] == pytest.approx(np.log(4))
    known = configuration_costs("resnet", CHOSEN, Input((6, 5, 1), "uint8"), TASK)
    assert features["log flops"] == pytest.approx(np.log(known["flops"]))
    assert not any("learning_rate" in name for name in features)
    assert "log values" in features


def test_features_of_a_users_family_are_its_hyperparameters() -> None:
    features = cost_features("mine:net", {"units": 8, "kind": "a", "deep": True}, Input((3,), "float32"), TASK)
    assert features == {"log configuration units": np.log(8), "kind=a": 1.0, "deep=True": 1.0}


def test_places_are_spread_also_the_first_few() -> None:
    assert spread_places(97, 5) == [0, 96, 48, 24, 72]
    assert sorted(spread_places(12, 12)) == list(range(12))
    assert spread_places(3, 12) == [0, 2, 1]
    assert spread_places(10, 1) == [0]


def test_sample_networks_are_from_the_cheapest_to_the_dearest(dataset: Dataset) -> None:
    chosen = spread_configurations(SPACE, dataset, 0, 5)
    flops = [configuration_costs("resnet", c, dataset.input, dataset.task)["flops"] for c in chosen]
    assert min(flops) == flops[0]
    assert max(flops) == flops[1]
    assert flops[0] < flops[3] < flops[2] < flops[4] < flops[1]


def test_networks_are_measured_and_the_run_keeps_their_models(
    library: Library, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_samples, "BATCH_SIZES", (1, 8))
    monkeypatch.setattr(cost_samples, "SECONDS", 0.02)
    monkeypatch.setattr(cost_samples, "WINDOW", 0.001)
    told: list[tuple[str, int, int]] = []
    record = find_cost_models(library, SPACE, dataset, 0, None, 4, lambda *p: told.append(p))
    assert record.device == local_devices("cpu")[0].kind
    assert record.models.keys() == {"seconds", "memory", "latency"}
    assert all(model.samples == 4 and model.error >= 1 for model in record.models.values())
    assert told[0] == (f"measuring sample networks on {record.device}", 0, 4)
    assert files.read_json(library.path / "cost-models.json", CostRecord) == record
    monkeypatch.setattr(cost_samples, "measure_networks", None)  # not called again
    assert find_cost_models(library, SPACE, dataset, 1, None, None) == record


def test_no_network_is_measured_after_its_share_of_the_time(library: Library, dataset: Dataset) -> None:
    device = local_devices("cpu")[0]
    configurations = spread_configurations(SPACE, dataset, 0, 4)
    found = cost_samples.measure_networks("resnet", configurations, dataset, device, until=time.monotonic() - 1)
    assert found == []
    assert find_cost_models(library, SPACE, dataset, 0, 1e-9, None).models == {}


def test_members_of_the_run_that_were_measured_are_fitted_first(
    library: Library, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = local_devices("cpu")[0].kind
    configurations = spread_configurations(SPACE, dataset, 0, 12)
    losses = {"valid_cross_entropy": 0.7}
    member = Member("", 0, 1, "resnet", {}, dataset.input, dataset.task, losses, 1, seconds=0.0, created=0.0)
    answers = np.full((len(dataset.rows("valid")), 2), 0.5, np.float32)
    targets = np.asarray(dataset.targets[dataset.rows("valid")])
    profiles = []
    for number, configuration in enumerate(configurations):
        name = f"{number:05d}-e001"
        library.add(replace(member, id=name, trial=number, configuration=configuration), answers, targets, b"")
        flops = configuration_costs("resnet", configuration, dataset.input, dataset.task)["flops"]
        profiles.append(Profile(name, device, "onnx", (BatchProfile(1, flops * 1e-9, 0.0, 1000),)))
    library.add(replace(member, id="trees", family="trees:lightgbm"), answers, targets, b"")
    library.write_profiles(device, [*profiles, Profile("trees", device, "onnx", profiles[0].points)])
    assert [m.id for m, _ in profiled_members(library, "resnet", device)] == [p.member for p in profiles]
    monkeypatch.setattr(cost_samples, "measure_networks", None)  # none is needed
    model = find_cost_models(library, SPACE, dataset, 0, None, None).models["seconds"]
    assert model.samples == 12
    assert model.error < 1.1
    features = cost_features("resnet", configurations[3], dataset.input, dataset.task)
    assert model.predict(features) == pytest.approx(profiles[3].cost, rel=0.1)
