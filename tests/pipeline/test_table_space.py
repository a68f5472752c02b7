"""Searches of tables: their space, families and free members; and the space that version 1 had for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("lightgbm")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxmltools")

from ripieno import Library, pipeline
from ripieno.data import write_dataset
from ripieno.errors import SearchError
from ripieno.library import write_bundle
from ripieno.models.table_config import NETWORKS
from ripieno.pipeline import free_members
from ripieno.pipeline.costs import export_members
from ripieno.pipeline.epoch_cost import estimate_epoch_cost
from ripieno.pipeline.free_members import LEAVES, _models
from ripieno.pipeline.prediction import predict
from ripieno.pipeline.space_choice import choose_space, default_space
from ripieno.profiles import local_devices
from ripieno.search.built_in_spaces import RETIRED, SPACES, find_space, fit_space
from ripieno.search.settings import Settings, kept_settings
from ripieno.search.space import Categorical, fix_network
from ripieno.train import TrainingConfig
from ripieno.types import Allocation, Configuration, Dataset, Ensemble, Input, Placement, Task
from tests.mixed_table import TABLE, mixed_table, raw_columns


def search(run: Path, **options: object) -> Library:
    defaults: dict[str, object] = {"trials": 1, "epochs": 1, "pool": "inline", "seed": 1}
    return pipeline.tune(mixed_table(), run, **{**defaults, **options})  # type: ignore[arg-type]


def test_a_search_of_a_table_has_its_space_and_begins_with_trees_that_serve_with_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, tuple[str, Configuration]] = {"trees-lightgbm": ("trees:lightgbm", {"rounds": 20})}
    monkeypatch.setattr(free_members, "MODELS", few)
    monkeypatch.setattr(free_members, "TABLE_MODELS", {"trees-extra": ("trees:extra-trees", {"trees": 10})})
    library = search(tmp_path / "run")
    kept = kept_settings(library.path / "run.json")
    assert kept is not None
    assert (kept.space.name, kept.space.family) == ("table", "table")
    assert set(library.ids()) == {"00000-e001", "trees-lightgbm", "trees-extra"}
    member = library.member("00000-e001")
    assert member.family == member.configuration["network"] in NETWORKS
    ids, cpu = tuple(library.ids()), local_devices("cpu")[0]
    ensemble = Ensemble("all", ids, (1 / 3,) * 3, "mean", {}, {}, {})
    export_members(library, library.members())
    allocation = Allocation("all", "all", (cpu,), tuple(Placement(name, cpu.name, 64) for name in ids))
    bundle = write_bundle(library, ensemble, allocation, "onnx", tmp_path / "bundle")
    data = mixed_table()
    rows = np.asarray(data.inputs[data.rows("valid")])
    expected = np.mean([library.predictions(name) for name in ids], axis=0)
    assert np.isnan(rows).any()
    np.testing.assert_allclose(predict(bundle, rows), expected, atol=1e-4)
    session = onnxruntime.InferenceSession(str(pipeline.export(bundle, tmp_path / "raw.onnx")))
    np.testing.assert_allclose(session.run(None, raw_columns(rows))[0], expected, atol=1e-4)
    pipeline.tune(run=library.path, trials=1, pool="inline")  # resumed without a space


def test_a_family_searches_one_network(tmp_path: Path) -> None:
    (member,) = search(tmp_path / "run", family="mlp", free="off").members()
    assert member.family == "mlp"
    with pytest.raises(SearchError, match="kind table, which family resnet does not take: use table, mlp, mlp-per"):
        search(tmp_path / "other", space="resnet-tiny")


def test_the_space_of_tables_is_theirs() -> None:
    assert default_space(None, False, kind="table").name == "table"
    assert default_space(None, True, "mlp-periodic").name == "table"
    assert default_space("trees:lightgbm", False, kind="table").name == "lightgbm"
    assert SPACES["table"].ranges["network"] == Categorical(NETWORKS)
    fixed = fix_network(SPACES["table"], "mlp")
    assert (fixed.family, fixed.fixed["network"]) == ("mlp", "mlp")
    values = Task("regression", (1,), ("value",))
    assert fit_space(SPACES["table"], "table", values) == SPACES["table"]
    with pytest.raises(SearchError, match="space series is of family series, not of mlp: use table"):
        fix_network(SPACES["series"], "mlp")


def test_the_cost_of_an_epoch_follows_the_network() -> None:
    costs = {n: estimate_epoch_cost("table", TABLE, 400, {"network": n}) for n in NETWORKS}
    assert costs["mlp"] < costs["mlp-periodic"]
    wide = Input((500,), "float32")
    assert estimate_epoch_cost("mlp", TABLE, 400, {}) < estimate_epoch_cost("mlp", wide, 400, {})
    assert estimate_epoch_cost("mlp", TABLE, 400, {}) == estimate_epoch_cost("mlp", TABLE, 2000, {})


def test_the_space_of_version_1_is_not_listed_but_found_by_runs_that_have_it() -> None:
    assert "resnet-table" not in SPACES
    with pytest.raises(SearchError) as refused:
        find_space("tables")
    assert "resnet-table" not in str(refused.value)
    old = RETIRED["resnet-table"]
    assert find_space("resnet-table") is old
    fitted = dataclasses.replace(old, ranges={n: r for n, r in old.ranges.items() if n != "label_smoothing"})
    for named in ("resnet-table", "auto"):
        assert choose_space(named, None, None, None, Settings(fitted), False) == (fitted, "network")


def test_forests_of_large_tables_have_few_leaves() -> None:
    small = mixed_table()
    assert _models(small)["trees-random-forest"][1]["min_samples_leaf"] == 2
    samples = 20 * LEAVES
    large = Dataset(
        "large", np.zeros((samples, 1), np.float32), np.zeros(samples), np.zeros(samples, np.uint8), small.task, (), (),
        kind="table",
    )  # fmt: skip
    assert {c["min_samples_leaf"] for _, c in _models(large).values() if "min_samples_leaf" in c} == {20}


def test_the_leaves_of_forests_are_bounded_by_the_rows_that_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, tuple[str, Configuration]] = {"trees-extra": ("trees:extra-trees", {"min_samples_leaf": 2})}
    monkeypatch.setattr(free_members, "MODELS", few)
    monkeypatch.setattr(free_members, "TABLE_MODELS", {})
    monkeypatch.setattr(free_members, "NUMBERS", 60 * TABLE.shape[0])
    monkeypatch.setattr(free_members, "LEAVES", 10)
    dataset = mixed_table()
    assert len(dataset.rows("train")) > 60
    data = write_dataset(dataset, tmp_path / "run" / "dataset")
    library = Library(tmp_path / "run")
    free_members.add_free_members(library, TrainingConfig(run=library.path, dataset=data.path, family="table"), data)
    assert library.member("trees-extra").configuration["min_samples_leaf"] == 7  # of 60 rows, and one a class
