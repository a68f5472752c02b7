"""Trainers of trees: what they learn, what resumes, what is exported."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightgbm")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxmltools")

from ripieno.backends.flops import onnx_flops
from ripieno.backends.onnx import open_file
from ripieno.data.load import load_dataset
from ripieno.errors import LibraryError, ModelError
from ripieno.library import Library
from ripieno.tasks.registry import kind_of
from ripieno.train import TrainingConfig, train_job
from ripieno.train.job import trial_seed
from ripieno.train.registry import TRAINERS
from ripieno.train.trees import ExtraTreesTrainer, LightGBMTrainer, RandomForestTrainer, TreeTrainer
from ripieno.types import Configuration, Dataset, Job, Member, Task

KINDS = ("classification", "multilabel", "regression")
SMALL: dict[type[TreeTrainer], Configuration] = {
    LightGBMTrainer: {"rounds": 5, "bagging_fraction": 0.7, "feature_fraction": 0.7, "num_leaves": 7},
    RandomForestTrainer: {"trees": 5},
    ExtraTreesTrainer: {"trees": 5},
}


def of_kind(digits: Dataset, kind: str, dtype: str = "uint8") -> Dataset:
    labels = digits.targets
    task, targets = digits.task, labels
    if kind == "multilabel":
        task, targets = Task(kind, (2,), ("even", "large")), np.stack([labels % 2 == 0, labels > 4], 1).astype(np.uint8)
    if kind == "regression":
        task = Task(kind, (2,), ("digit", "negative"))
        targets = np.stack([1000 + 20.0 * labels, -labels / 100], 1).astype(np.float32)
    return dataclasses.replace(digits, inputs=digits.inputs.astype(dtype), targets=targets, task=task, path=None)


def trained(make: type[TreeTrainer], data: Dataset, epochs: int, seed: int = 5) -> TreeTrainer:
    trainer = make()
    trainer.start(Job(3, SMALL[make], 0, epochs, seed), data)
    for _ in range(epochs):
        trainer.epoch()
    return trainer


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", list(SMALL))
def test_an_exported_model_takes_the_data_sets_inputs_and_predicts_the_same(
    make: type[TreeTrainer], kind: str, dtype: str, digits: Dataset, tmp_path: Path
) -> None:
    data = of_kind(digits, kind, dtype)
    trainer = trained(make, data, 2)
    inputs = data.inputs[data.rows("valid")]
    predictions = trainer.predict(inputs)
    assert (predictions.dtype, predictions.shape) == (np.float32, (len(inputs), *data.task.output))
    trainer.export(tmp_path / "model.onnx")
    (found,) = open_file((tmp_path / "model.onnx").read_bytes())(inputs)
    scale = np.maximum(1.0, np.abs(predictions).max(axis=0))
    assert np.abs((found - predictions) / scale).max() < 1e-5
    score = kind_of(data.task).scores(predictions, data.targets[data.rows("valid")], data.task)
    name = {"classification": "accuracy", "multilabel": "mean_average_precision", "regression": "r2"}[kind]
    assert score[name] > 0.3


@pytest.mark.parametrize("make", list(SMALL))
def test_padding_of_series_is_zero_in_training_and_in_the_exported_model(
    make: type[TreeTrainer], tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    series = [draw.normal(size=(4 + i % 5, 2)) + 2 * (i % 3) for i in range(60)]
    data = load_dataset((series, np.arange(60) % 3), folds=0)
    trainer = trained(make, data, 2)
    filled = np.nan_to_num(data.inputs, nan=0.0)
    assert np.isnan(data.inputs).any()
    assert np.isfinite(trainer.features).all()
    np.testing.assert_array_equal(trainer.predict(data.inputs), trainer.predict(filled))
    trainer.export(tmp_path / "model.onnx")
    (found,) = open_file((tmp_path / "model.onnx").read_bytes())(np.asarray(data.inputs))
    np.testing.assert_allclose(found, trainer.predict(data.inputs), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_lightgbm_resumes_to_the_same_trees(kind: str, digits: Dataset) -> None:
    data = of_kind(digits, kind)
    whole, half = trained(LightGBMTrainer, data, 3), trained(LightGBMTrainer, data, 1)
    resumed = LightGBMTrainer()
    resumed.start(Job(3, SMALL[LightGBMTrainer], 1, 3, 5), data)
    tensors = half.tensors()  # type: ignore[attr-defined]
    assert all(array.dtype.kind in "iu" for array in tensors.values())
    resumed.load(tensors)
    resumed.epoch()
    resumed.epoch()
    assert np.array_equal(resumed.predict(data.inputs), whole.predict(data.inputs))


@pytest.mark.parametrize("make", list(SMALL))
def test_the_seed_alone_decides(make: type[TreeTrainer], digits: Dataset) -> None:
    one, same, other = (trained(make, digits, 1, seed).predict(digits.inputs) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_forest_grows_by_an_epoch_at_a_time_to_what_it_would_be_at_once(digits: Dataset) -> None:
    grown = trained(RandomForestTrainer, digits, 2)
    once = RandomForestTrainer()
    once.start(Job(3, {"trees": 10}, 0, 1, 5), digits)
    once.epoch()
    assert np.array_equal(grown.predict(digits.inputs), once.predict(digits.inputs))


@pytest.mark.parametrize(
    ("make", "configuration", "word"),
    [
        (LightGBMTrainer, {"leaves": 3}, "'leaves' is not a hyperparameter of LightGBM"),
        (LightGBMTrainer, {"rounds": 0}, "at least 1"),
        (RandomForestTrainer, {"trees": 1.5}, "whole number"),
    ],
)
def test_a_wrong_configuration_is_refused(
    make: type[TreeTrainer], configuration: Configuration, word: str, digits: Dataset
) -> None:
    with pytest.raises(ModelError, match=word):
        make().start(Job(3, configuration, 0, 1), digits)


def test_thresholds_between_neighbouring_numbers_are_exported_exactly(tmp_path: Path) -> None:
    low = np.random.default_rng(0).normal(size=300).astype(np.float32)
    inputs = np.stack([low, np.nextafter(low, np.float32(9))], 1).reshape(-1, 1)  # no number stands between the two
    targets = (100 * (np.arange(len(inputs)) % 2) + inputs[:, 0]).astype(np.float32)
    data = load_dataset((inputs, targets), task="regression")
    trainer = LightGBMTrainer()
    trainer.start(Job(0, {"rounds": 20, "num_leaves": 200, "min_child_samples": 1}, 0, 1), data)
    trainer.epoch()
    trainer.export(tmp_path / "model.onnx")
    found = open_file((tmp_path / "model.onnx").read_bytes())(inputs)[0]
    assert np.abs(found - trainer.predict(inputs)).max() < 0.01


def parameters(config: TrainingConfig, name: str, member: Member, digits: Dataset) -> int:
    """Count a threshold for each split, and for each leaf a value: of its class, or of all classes of a forest."""
    trainer = TRAINERS[name](config)
    trainer.start(Job(3, member.configuration, 0, 3, trial_seed(7, 3)), digits)
    for _ in range(3):
        trainer.epoch()
    if isinstance(trainer, LightGBMTrainer):
        lines = trainer._texts[0].splitlines()
        leaves = [int(line.partition("=")[2]) for line in lines if line.startswith("num_leaves=")]
        return sum(2 * number - 1 for number in leaves)
    trees = [tree.tree_ for tree in trainer._forest.estimators_]  # type: ignore[attr-defined]
    return sum(tree.node_count - tree.n_leaves + 10 * tree.n_leaves for tree in trees)


@pytest.mark.parametrize("name", ["trees:lightgbm", "trees:random-forest"])
def test_a_job_of_trees_makes_an_onnx_member(name: str, config: TrainingConfig, digits: Dataset) -> None:
    config = dataclasses.replace(config, family=name, trainer=name)
    configuration = {"rounds": 5} if name == "trees:lightgbm" else {"trees": 5}
    assert isinstance(TRAINERS[name](config), TreeTrainer)
    outcomes = [train_job(config, Job(3, configuration, start, stop)) for start, stop in ((0, 1), (1, 3))]
    assert [outcome.failure for outcome in outcomes] == [None, None]
    library = Library(config.run)
    member = library.member("00003-e003")
    assert (member.format, member.family, member.epoch) == ("onnx", name, 3)
    assert [epoch.train_loss for epoch in member.curve] == [None] * 3
    assert member.parameters == parameters(config, name, member, digits)
    with pytest.raises(LibraryError, match="TreeEnsembleClassifier cannot be counted"):
        onnx_flops(library.onnx_path(member.id))
    rows = digits.rows("valid")
    found = open_file(library.onnx_path(member.id).read_bytes())(digits.inputs[rows])[0]
    assert np.abs(found - library.predictions(member.id)).max() < 1e-5
