"""Folds: a fair division of the training samples, on disk too, and the rules by which they are chosen or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset
from ripieno.data.folds import FOLDS, NO_FOLD, choose_folds, fold_dataset, make_folds
from ripieno.data.samples import UNASSIGNED
from ripieno.errors import DataError
from ripieno.types import Task


def series(samples, classes=3, seed=0):
    draws = np.random.default_rng(seed)
    return draws.normal(size=(samples, 12, 2)).astype(np.float32), np.arange(samples) % classes


def test_every_training_sample_is_in_one_fold_and_the_test_samples_in_none():
    dataset = load_dataset(series(60), folds=4)
    train, test = dataset.rows("train"), dataset.rows("test")
    assert dataset.fold_count == 4
    assert np.array_equal(dataset.rows("valid"), train)
    assert len(train) + len(test) == 60
    assert set(dataset.folds[train]) == {0, 1, 2, 3}
    assert set(dataset.folds[test]) == {NO_FOLD}


@pytest.mark.parametrize("sizes", [(41, 17, 6), (50, 3, 3)])
def test_folds_are_even_in_all_and_in_each_class(sizes):
    labels = np.repeat(np.arange(3), sizes)
    dataset = load_dataset((series(len(labels))[0], labels), folds=5)
    train = dataset.rows("train")
    table = np.zeros((3, 5), int)
    np.add.at(table, (labels[train], dataset.folds[train]), 1)
    assert np.ptp(table.sum(axis=0)) <= 1
    assert np.ptp(table, axis=1).max() <= 1


def test_folds_depend_on_the_seed_alone():
    one, again, other = (load_dataset(series(60), folds=3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.folds, again.folds)
    assert not np.array_equal(one.folds, other.folds)


def test_the_model_of_a_fold_sees_its_samples_as_the_validation_split():
    dataset = load_dataset(series(60), folds=3)
    parts = [fold_dataset(dataset, fold) for fold in range(3)]
    assert np.array_equal(np.sort(np.concatenate([p.rows("valid") for p in parts])), dataset.rows("train"))
    for part in parts:
        assert not np.intersect1d(part.rows("train"), part.rows("valid")).size
        assert np.array_equal(np.union1d(part.rows("train"), part.rows("valid")), dataset.rows("train"))
        assert np.array_equal(part.rows("test"), dataset.rows("test"))


def test_folds_are_kept_on_disk(tmp_path):
    written = load_dataset(series(60), folds=3, folder=tmp_path / "x")
    opened = open_dataset(tmp_path / "x")
    assert np.array_equal(opened.folds, written.folds)
    assert np.array_equal(opened.rows("valid"), opened.rows("train"))
    assert load_dataset(tmp_path / "x").fold_count == 3
    load_dataset(series(60), folds=0, folder=tmp_path / "x")
    assert open_dataset(tmp_path / "x").folds is None


def test_small_series_have_folds_without_a_word_and_say_so():
    notes = []
    dataset = load_dataset(series(60), notes=notes)
    assert dataset.fold_count == FOLDS
    assert notes[1:] == [
        "validation is out-of-fold: 5 folds of 48 training samples; --folds 0 (folds=0) splits some off instead"
    ]
    assert load_dataset(series(60), folds=0).folds is None
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), np.uint8)
    assert load_dataset((images, np.arange(60) % 3)).folds is None
    assert load_dataset((images, np.arange(60) % 3), folds=5).fold_count == 5


def test_the_number_of_folds_is_chosen_by_the_number_of_samples():
    def chosen(train, valid, given=(), enough=200):
        return choose_folds(np.repeat(np.array([0, 1, 2], np.uint8), [train, valid, 50]), [UNASSIGNED, *given], enough)

    assert chosen(20, 2) == FOLDS
    assert chosen(1000, 199) == FOLDS
    assert chosen(1000, 200) == 0
    assert chosen(1000, 200, enough=1000) == FOLDS
    assert chosen(1000, 1, given=[1]) == 0
    assert chosen(1000, 1, enough=0) == 0
    assert chosen(3, 1) == 4


def test_a_given_validation_split_is_kept_without_a_word_and_trained_on_with_one():
    inputs, targets = series(60)
    arrays = {"train": (inputs[:40], targets[:40]), "valid": (inputs[40:50], targets[40:50])}
    assert load_dataset(arrays).folds is None
    notes = []
    dataset = load_dataset(arrays, folds=5, notes=notes)
    assert notes[-1:] == [
        f"validation is out-of-fold: 5 folds of {len(dataset.rows('train'))} training samples, among them the 10 of "
        "the validation split given"
    ]
    assert not (dataset.split == 1).any()


def test_a_prepared_data_set_gets_folds_once(tmp_path):
    plain = load_dataset(series(60), folds=0)
    dataset = load_dataset(plain, folds=4, folder=tmp_path / "x")
    assert dataset.fold_count == 4
    assert len(dataset.rows("train")) == len(plain.rows("train")) + len(plain.rows("valid"))
    assert dataset.mean == pytest.approx(dataset.inputs[dataset.rows("train")].mean(axis=(0, 1)), abs=1e-6)
    assert load_dataset(dataset).folds is dataset.folds
    with pytest.raises(DataError, match="prepared with 4 folds, not 3; prepare it again from its source"):
        load_dataset(dataset, folds=3)


@pytest.mark.parametrize("folds", [1, 21, -1, True, 2.5, "few"])
def test_other_numbers_of_folds_are_one_line(folds):
    with pytest.raises(DataError) as caught:
        load_dataset(series(60), folds=folds)
    assert str(caught.value) == f"folds is {folds!r}: it must be auto, 0 for none, or 2 to 20"


def test_more_folds_than_samples_are_refused():
    with pytest.raises(DataError, match="there are 8 training samples for 9 folds; expected at least one a fold"):
        load_dataset(series(10, 2), folds=9)


def test_a_label_that_one_fold_has_alone_is_refused():
    targets = np.zeros((40, 2), np.uint8)
    targets[::2, 0] = 1
    targets[0, 1] = 1
    split = np.repeat(np.array([0, 1, 2], np.uint8), [20, 10, 10])
    dataset = dataclasses.replace(load_dataset((series(40)[0], np.stack([targets[:, 0]] * 2, 1))), targets=targets)
    dataset = dataclasses.replace(dataset, split=split, folds=None)
    with pytest.raises(DataError, match="of 4: label '1' is 0 in all"):
        load_dataset(dataset, folds=4)


def test_folds_that_nobody_asked_for_are_left_out_where_they_cannot_be():
    targets = np.zeros((60, 2), np.uint8)
    targets[::2, 0] = 1
    targets[0, 1] = 1
    notes = []
    dataset = load_dataset((series(60)[0], targets), task="multilabel", notes=notes)
    assert dataset.folds is None
    assert any(n.startswith("validation is a split of its own, since folds are not possible: ") for n in notes)


def test_broken_folds_on_disk_are_refused(tmp_path):
    dataset = load_dataset(series(60), folds=3, folder=tmp_path / "x")
    folds = np.array(dataset.folds)
    folds[folds == 1] = 0
    np.save(tmp_path / "x" / "folds.npy", folds)
    with pytest.raises(DataError, match="3 folds, 2 of them with samples"):
        open_dataset(tmp_path / "x")


def test_duplicates_in_two_folds_are_noted():
    inputs, targets = series(60)
    inputs[30:] = inputs[:30]
    notes = []
    load_dataset((inputs, np.tile(targets[:30], 2)), folds=5, notes=notes)
    assert any("training samples are also in another fold" in note for note in notes)


def test_masks_have_folds_though_one_fold_alone_has_a_class():
    masks = np.zeros((20, 4, 4), np.uint8)
    masks[:, 2:], masks[7, 0, 0] = 1, 2
    task = Task("segmentation", (4, 4, 3), ("sky", "road", "bird"))
    split = np.repeat([0, 2], [15, 5]).astype(np.uint8)
    folds = make_folds(masks, split, task, 5, seed=0)
    assert np.bincount(folds[:15]).tolist() == [3] * 5
    assert (folds[15:] == NO_FOLD).all()


def test_tables_have_folds_up_to_more_samples_than_series_and_images_none():
    generator = np.random.default_rng(0)
    numbers, targets = generator.normal(size=(4000, 3)).astype(np.float32), generator.normal(size=4000)
    assert load_dataset((numbers, targets)).fold_count == FOLDS
    longer = generator.normal(size=(4000, 8, 1)).astype(np.float32)
    assert load_dataset((longer, targets), kind="series").fold_count == 0
    many = generator.normal(size=(14_000, 3)).astype(np.float32)
    assert load_dataset((many, generator.normal(size=14_000))).fold_count == 0
