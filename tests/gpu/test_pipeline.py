"""The whole pipeline on a GPU: search, costs, selection, allocation, predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ripieno
from ripieno.data import open_dataset
from ripieno.engine import Engine
from ripieno.pipeline.execution import ExecutionConfig
from ripieno.pipeline.trial_packing import gpu_packs
from ripieno.pipeline.trial_packing_benchmark import profile
from ripieno.tasks.calibration import combine_calibrated
from ripieno.train import TrainingConfig
from ripieno.types import Dataset


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ripieno.Library:
    """A library that two concurrent trials trained on the GPU."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = {"trials": 4, "epochs": 3, "space": "resnet-tiny", "free": "off", "device": "cuda", "per_device": 2}
    return ripieno.tune(digits.path, folder, **options)


def test_auto_trains_on_the_gpu() -> None:
    execution = ExecutionConfig()
    assert execution.on_gpu()
    assert execution.gpus()[0] == "0"
    assert not ExecutionConfig(device="cpu").on_gpu()


def test_trials_of_a_search_share_the_gpu(run: ripieno.Library) -> None:
    members = run.members()
    assert {m.trial for m in members} == {0, 1, 2, 3}
    assert all(np.isfinite(m.losses["valid_cross_entropy"]) for m in members)


def test_an_ensemble_selected_and_placed_on_the_gpu_predicts_what_its_members_do_combined(
    run: ripieno.Library, tmp_path: Path
) -> None:
    profiles = ripieno.measure(run, device="cuda:0", backend="torch")
    dearest = max(p.cost for p in profiles.values())
    ensemble = ripieno.select(run, [3 * dearest], device="cuda:0", prune=1.0)[0]
    options = {"devices": "cuda:0,cpu", "backend": "torch", "max_benches": 2}
    bundle = ripieno.allocate(run, ensemble, bundle=tmp_path / "bundle", **options)
    assert any(p.device == "cuda:0" for p in bundle.allocation.placements)
    assert bundle.allocation.throughput is not None
    dataset = open_dataset(run.dataset_path)
    images = np.ascontiguousarray(dataset.inputs[dataset.rows("test")])
    combined = combine_calibrated([run.predictions(m, "test") for m in ensemble.members], ensemble)
    for isolation in ("thread", "process"):
        with Engine(bundle, isolation=isolation) as engine:
            np.testing.assert_allclose(engine.predict(images), combined, atol=1e-4)


def test_auto_chooses_a_backend_and_a_precision_for_the_gpu(run: ripieno.Library, tmp_path: Path) -> None:
    best = min(run.members(), key=lambda m: m.losses["valid_cross_entropy"]).id
    ensemble = ripieno.Ensemble("one", (best,), (1.0,), "hand", {}, {}, {})
    options = {"devices": "cuda:0", "backend": "auto", "precision": "auto", "max_benches": 0}
    bundle = ripieno.allocate(run, ensemble, bundle=tmp_path / "bundle", **options)
    dataset = open_dataset(run.dataset_path)
    images = np.ascontiguousarray(dataset.inputs[dataset.rows("valid")])
    np.testing.assert_allclose(ripieno.predict(bundle, images), run.predictions(best, "valid"), atol=0.05)


def test_packs_of_trials_are_measured_on_the_gpu(digits: Dataset, tmp_path: Path) -> None:
    assert digits.path is not None
    config = TrainingConfig(tmp_path / "run", digits.path, "resnet", 1, 0, device="cuda")
    configuration = {"stem_filters": 8, "width": 8, "batch_size": 24}
    packs = gpu_packs(2, 1)
    rates = profile(config, packs, {"small": configuration}, ["0"], 0.3)
    assert [rate.pack for rate in rates] == list(packs)
    assert all(rate.images > 0 for rate in rates)
