"""Data sets of the package `datasets`, built in memory and on disk, without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ripieno
from ripieno.data import load_dataset
from ripieno.data.prediction_inputs import read_inputs
from ripieno.errors import DataError
from ripieno.pipeline.tuning import prepare
from ripieno.types import SPLITS, Input

datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), np.uint8)
CODES = np.arange(60) % 3
AGES = np.linspace(0.5, 30, 60)
PETS = ("cat", "dog", "owl")
TAGS = [[int(code), 2] if code < 2 else [] for code in CODES]


def rows(**columns: tuple[Any, Any]) -> Any:
    """Build a data set from the type and the values of each column."""
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features)


def pictures(**columns: tuple[Any, Any]) -> Any:
    return rows(image=(datasets.Image(), [Image.fromarray(p) for p in PIXELS]), **columns)


def label() -> tuple[Any, Any]:
    return datasets.ClassLabel(names=PETS), CODES.tolist()


def number(values: Any = AGES, kind: str = "float32") -> tuple[Any, Any]:
    return datasets.Value(kind), np.asarray(values).tolist()


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_labels_are_a_classification_with_their_names() -> None:
    dataset = load_dataset(pictures(label=label()))
    assert (dataset.task.kind, dataset.task.names, dataset.kind) == ("classification", PETS, "image")
    assert np.array_equal(dataset.inputs, PIXELS)
    assert np.array_equal(dataset.targets, CODES)


def test_columns_are_found_by_their_types() -> None:
    dataset = load_dataset(pictures(id=number(range(60), "int64"), species=label()).rename_column("image", "photo"))
    assert dataset.task.names == PETS
    whole = pictures(id=number(range(60), "int64"), species=label())
    assert "has the columns id, species; expected one of images or arrays" in error_of(whole.remove_columns("image"))


def test_lists_of_class_labels_are_several_labels() -> None:
    dataset = load_dataset(pictures(tags=(datasets.List(datasets.ClassLabel(names=PETS)), TAGS)))
    assert (dataset.task.kind, dataset.task.names) == ("multilabel", PETS)
    assert dataset.targets[:3].tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]


def test_lists_of_text_are_several_labels() -> None:
    named = [[PETS[i] for i in tags] for tags in TAGS]
    dataset = load_dataset(pictures(tags=(datasets.List(datasets.Value("string")), named)))
    assert (dataset.task.kind, dataset.task.names) == ("multilabel", PETS)
    assert dataset.targets[:3].tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("kind", ["int64", "bool", "float32"])
def test_several_columns_of_0_and_1_are_labels_where_they_are_named(kind: str) -> None:
    flags = {name: number(np.arange(60) % divisor == 0, kind) for name, divisor in (("tail", 2), ("wings", 3))}
    whole = pictures(id=number(range(60), "int64"), **flags)
    assert "columns image, id, tail, wings; " in error_of(whole)
    dataset = load_dataset(whole, target=["wings", "tail"])
    assert (dataset.task.kind, dataset.task.names) == ("multilabel", ("wings", "tail"))
    assert dataset.targets[:4].tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]


def test_the_only_other_column_is_the_target_and_names_it() -> None:
    dataset = load_dataset(pictures(age=number()))
    assert (dataset.task.kind, dataset.task.names) == ("regression", ("age",))
    assert np.allclose(dataset.targets[:, 0], AGES)


def test_targets_are_named() -> None:
    whole = pictures(id=number(range(60), "int64"), age=number(), height=number(AGES / 2))
    assert load_dataset(whole, target="age").task.names == ("age",)
    both = load_dataset(whole, target=["height", "age"])
    assert both.task.names == ("height", "age")
    assert np.allclose(both.targets[:, 1], AGES)
    assert "no target 'weight'; expected one of image, id" in error_of(whole, target="weight")


def test_lists_of_fractions_are_several_targets() -> None:
    pairs = (datasets.List(datasets.Value("float32"), length=2), np.stack([AGES, -AGES], axis=1).tolist())
    dataset = load_dataset(pictures(target=pairs))
    assert (dataset.task.kind, dataset.task.names) == ("regression", ("target1", "target2"))


def test_a_named_column_of_whole_numbers_is_a_classification() -> None:
    dataset = load_dataset(pictures(id=number(range(60), "int64"), kind=number(CODES, "int64")), target="kind")
    assert (dataset.task.kind, dataset.task.names) == ("classification", ("0", "1", "2"))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (number([*AGES[:-1], None], "float32"), "item 59 of the data cannot be used (it has no label)"),
        (number([*AGES[:-1], float("nan")]), "hold nan for 'label', sample 59"),
        (number(np.full(60, 2.5)), "target 'label' is 2.5 in all 60 samples"),
        (number(np.arange(60), "float32"), "60 distinct whole numbers in targets of the data may be"),
    ],
)
def test_targets_that_cannot_be_used_are_told(column: tuple[Any, Any], message: str) -> None:
    assert message in error_of(pictures(label=column))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_format_of_a_data_set_does_not_matter(library: str) -> None:
    whole = pictures(tags=(datasets.List(datasets.ClassLabel(names=PETS)), TAGS)).with_format(library)
    dataset = load_dataset(whole)
    assert np.array_equal(dataset.inputs, PIXELS)
    assert dataset.targets[:3].tolist() == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]


def test_a_transform_of_the_user_is_applied() -> None:
    whole = pictures(label=label())
    whole.set_transform(lambda batch: {**batch, "image": [255 - np.asarray(image) for image in batch["image"]]})
    assert np.array_equal(load_dataset(whole).inputs, 255 - PIXELS)


@pytest.mark.parametrize(
    ("feature", "values", "kind"),
    [
        (lambda: datasets.Array3D((6, 5, 3), "uint8"), PIXELS, "image"),
        (lambda: datasets.Array2D((6, 5), "uint8"), PIXELS[..., 0], "image"),
        (lambda: datasets.Array2D((6, 5), "float32"), PIXELS[..., 0], "series"),
        (lambda: datasets.List(datasets.Value("float32"), length=5), PIXELS[:, 0, :, 0], "table"),
        (lambda: datasets.List(datasets.Value("uint8")), PIXELS[:, 0, :, 0], "table"),
    ],
)
def test_columns_of_arrays_are_images_series_or_tables(feature: Any, values: Any, kind: str) -> None:
    dataset = load_dataset(rows(measured=(feature(), values.tolist()), label=label()))
    assert dataset.kind == kind
    assert np.array_equal(dataset.inputs.reshape(values.shape), values)
    assert dataset.inputs.dtype == ("float32" if "float" in str(feature()) or kind == "table" else "uint8")


def test_splits_and_streams_are_read(tmp_path: Path) -> None:
    whole = pictures(label=label())
    both = datasets.DatasetDict({"train": whole, "validation": whole.select(range(9)), "test": whole.select(range(6))})
    assert [len(load_dataset(both).rows(split)) for split in SPLITS] == [60, 9, 6]
    both.save_to_disk(tmp_path / "saved")
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    assert np.array_equal(load_dataset(saved).inputs[:60], PIXELS)
    assert np.array_equal(load_dataset(whole.to_iterable_dataset()).inputs, PIXELS)


def test_a_run_knows_its_data_again(tmp_path: Path) -> None:
    library, whole = ripieno.Library(tmp_path / "run"), pictures(label=label())
    prepare(whole, library)
    prepare(whole, library)
    with pytest.raises(ripieno.RipienoError, match="holds other data"):
        prepare(whole.select(range(30)), library)


def test_rows_are_predicted_with_and_without_targets() -> None:
    wanted = Input((6, 5, 3), "uint8", (0.0, 255.0))
    for source in (pictures(label=label()), pictures(), pictures(id=number(range(60), "int64"))):
        assert np.array_equal(read_inputs(source, wanted)[1], PIXELS)
    table = rows(features=(datasets.List(datasets.Value("float32"), length=5), PIXELS[:, 0, :, 0].tolist()))
    assert np.array_equal(read_inputs(table, Input((5,), "float32"))[1], PIXELS[:, 0, :, 0])


@pytest.mark.parametrize("name", ["mask", "annotation", "label"])
def test_a_column_of_masks_is_found_among_pictures(name: str) -> None:
    masks = np.random.default_rng(1).integers(0, 3, (60, 6, 5), np.uint8)
    source = pictures(**{name: (datasets.Image(), [Image.fromarray(mask) for mask in masks])})
    dataset = load_dataset(source)
    assert dataset.task.kind == "segmentation"
    assert np.array_equal(dataset.targets, masks)
    _, images = read_inputs(source, Input((6, 5, 3), range=(0, 255)))
    assert np.array_equal(images, PIXELS)
