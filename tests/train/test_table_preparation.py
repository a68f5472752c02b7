"""Preparation of rows of a table for trees: what trees get, and that one graph does it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightgbm")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxmltools")

from ripieno.backends.onnx import open_file
from ripieno.data.folds import fold_dataset
from ripieno.tasks.registry import kind_of
from ripieno.train.folds import FoldTrainer
from ripieno.train.table_preparation import TreePreparation, needs_preparation
from ripieno.train.trees import ExtraTreesTrainer, LightGBMTrainer, RandomForestTrainer, TreeTrainer
from ripieno.types import Column, Configuration, Dataset, Job, classification
from tests.mixed_table import AGE, COLOUR, INCOME, MEMBER, MONTH, TASKS, TOWN, YEAR, mixed_rows, mixed_table

SMALL: dict[type[TreeTrainer], Configuration] = {
    LightGBMTrainer: {"rounds": 20, "num_leaves": 7},
    RandomForestTrainer: {"trees": 10},
    ExtraTreesTrainer: {"trees": 10},
}


def trained(make: type[TreeTrainer], data: Dataset) -> TreeTrainer:
    trainer = make()
    trainer.start(Job(3, SMALL[make], 0, 1, 5), data)
    trainer.epoch()
    return trainer


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("make", list(SMALL))
def test_one_graph_takes_raw_rows_and_predicts_as_the_trainer(
    make: type[TreeTrainer], kind: str, tmp_path: Path
) -> None:
    data = mixed_table(kind)
    trainer = trained(make, data)
    rows = mixed_rows(200, seed=1)[0]
    rows[0], rows[1, [COLOUR, TOWN, MEMBER]] = np.nan, -1
    expected = trainer.predict(rows)
    trainer.export(tmp_path / "model.onnx")
    (found,) = open_file((tmp_path / "model.onnx").read_bytes())(rows)
    scale = np.maximum(1.0, np.abs(expected).max(axis=0))
    assert np.abs((found - expected) / scale).max() < 1e-5
    valid = data.rows("valid")
    scores = kind_of(data.task).scores(trainer.predict(data.inputs[valid]), data.targets[valid], data.task)
    name = {"classification": "accuracy", "multilabel": "mean_average_precision", "regression": "r2"}[kind]
    assert scores[name] > {"classification": 0.7, "multilabel": 0.7, "regression": 0.3}[kind]


def test_trees_get_numbers_flags_codes_and_mean_targets() -> None:
    data = mixed_table("regression")
    prepared = TreePreparation(data, 0)
    train = data.rows("train")
    rows, targets = np.asarray(data.inputs[train]), data.targets[train][:, 0]
    # numbers, a flag of missing incomes, codes of town and member, flags of three colours and of a missing one, a town
    assert prepared.features.shape == (len(train), 4 + 1 + 2 + 4 + 1)
    np.testing.assert_array_equal(prepared.features[:, :3], rows[:, [AGE, YEAR, MONTH]])
    gaps = np.isnan(rows[:, INCOME])
    assert set(prepared.features[gaps, 3]) == {np.nanmedian(rows[:, INCOME])}
    np.testing.assert_array_equal(prepared.features[:, 4], ~gaps)
    np.testing.assert_array_equal(prepared.features[:, 5:7], rows[:, [TOWN, MEMBER]])
    np.testing.assert_array_equal(prepared.features[:, 7], np.isnan(rows[:, COLOUR]))
    np.testing.assert_array_equal(prepared.features[:, 9], rows[:, COLOUR] == 1)
    # a town is encoded by the targets of its rows, and in training by those of other rows
    town = rows[:, TOWN] == 3
    served = prepared.transform(rows)[:, -1]
    assert len(np.unique(served[town])) == 1
    assert abs(served[town][0] - targets[town].mean()) < abs(served[town][0] - targets.mean())
    assert 1 < len(np.unique(prepared.features[town, -1])) <= 5
    np.testing.assert_array_equal(prepared.features[:, :-1], prepared.transform(rows)[:, :-1])


def test_categories_are_codes_where_there_is_no_single_target() -> None:
    data = mixed_table("multilabel")
    rows = np.asarray(data.inputs[data.rows("train")])
    found = TreePreparation(data, 0).features
    assert found.shape[1] == 4 + 1 + 2 + 4
    np.testing.assert_array_equal(found[:, 5], rows[:, TOWN])
    three = dataclasses.replace(
        mixed_table(), targets=np.arange(len(data.targets)) % 3, task=classification(("a", "b", "c"))
    )
    assert TreePreparation(three, 0).features.shape == found.shape


def test_the_seed_alone_decides_and_held_out_rows_have_no_part() -> None:
    data = mixed_table()
    one, same, other = (TreePreparation(data, seed).features for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    inputs, targets = np.array(data.inputs), np.array(data.targets)
    held = data.split > 0
    inputs[held, INCOME], targets[held] = 1e6, 1
    changed = dataclasses.replace(data, inputs=inputs, targets=targets)
    rows = mixed_rows(50, seed=2)[0]
    np.testing.assert_array_equal(TreePreparation(data, 0).transform(rows), TreePreparation(changed, 0).transform(rows))


def test_each_fold_is_prepared_by_its_own_training_rows() -> None:
    data = mixed_table()
    split = np.where(data.split == 1, np.uint8(0), data.split)
    folded = dataclasses.replace(data, split=split, folds=(np.arange(len(split)) % 2).astype(np.uint8))
    trainer = FoldTrainer(RandomForestTrainer, 2)
    trainer.start(Job(3, {"trees": 1}, 0, 1, 5), folded)
    medians = []
    for fold, held in enumerate(trainer.held):
        rows = fold_dataset(folded, fold).rows("train")
        income = np.asarray(folded.inputs[rows, INCOME])
        assert isinstance(held, RandomForestTrainer)
        medians.append(float(held.features[np.isnan(income), 3][0]))
        assert medians[-1] == pytest.approx(np.nanmedian(income))
    assert medians[0] != medians[1]


def test_plain_rows_of_numbers_are_taken_as_they_are() -> None:
    data = mixed_table()
    plain = dataclasses.replace(data, columns=(), inputs=np.nan_to_num(data.inputs))
    assert not needs_preparation(plain)
    assert needs_preparation(dataclasses.replace(data, columns=()))
    assert not needs_preparation(dataclasses.replace(plain, kind="image"))
    trainer = trained(ExtraTreesTrainer, plain)
    np.testing.assert_array_equal(trainer.features, plain.inputs[plain.rows("train")])


def test_a_column_without_any_value_and_few_rows_are_prepared() -> None:
    data = mixed_table(samples=40)
    inputs = np.array(data.inputs)
    inputs[:, INCOME] = np.nan
    columns = (*data.columns[:1], Column("colour", "category", ()), *data.columns[2:])
    inputs[:, COLOUR] = -1
    empty = dataclasses.replace(data, inputs=inputs, columns=columns)
    assert np.isfinite(TreePreparation(empty, 0).features).all()
    few = np.where(np.arange(40) < 4, 0, 1).astype(np.uint8)  # too few of a class for mean targets
    found = TreePreparation(dataclasses.replace(data, split=few), 0).features
    assert np.isfinite(found).all()
