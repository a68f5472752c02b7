"""Conversion of other libraries' data sets, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

import ripieno
from ripieno.data import load_dataset
from ripieno.data.fingerprint import fingerprint
from ripieno.data.prediction_inputs import read_inputs
from ripieno.errors import DataError, SearchError
from ripieno.pipeline.tuning import prepare
from ripieno.types import SPLITS, Input

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 6, 5, 3), np.uint8)
CODES = np.arange(24) % 3


class Drawers(Dataset[Any]):
    """A user's data set in torchvision's form: pictures, integers, names in `classes`."""

    classes = ("cat", "dog", "owl")

    def __init__(self, pixels: np.ndarray = PIXELS, transform: Any = Image.fromarray) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.pixels[index]), int(CODES[index])


def in_order(dataset: ripieno.Dataset) -> None:
    assert (dataset.inputs == PIXELS).all()
    assert (dataset.targets == CODES).all()


def test_a_pytorch_data_set_of_pictures_keeps_its_names_and_pixels() -> None:
    dataset = load_dataset(Drawers())
    in_order(dataset)
    assert dataset.classes == Drawers.classes
    assert load_dataset(Subset(Drawers(), range(24))).classes == Drawers.classes


def test_tensors_are_channels_first_as_torchvision_makes_them() -> None:
    in_order(load_dataset(Drawers(transform=lambda p: torch.from_numpy(p).permute(2, 0, 1))))
    unit = load_dataset(TensorDataset(torch.from_numpy(PIXELS / 255).float().permute(0, 3, 1, 2), torch.tensor(CODES)))
    assert unit.input == ripieno.types.Input((6, 5, 3), "float32")
    assert np.allclose(unit.inputs, PIXELS / 255, atol=1e-6)


def test_a_mapping_names_its_splits() -> None:
    dataset = load_dataset({"train": Drawers(), "validation": Drawers(PIXELS[:6]), "test": Drawers(PIXELS[:9])})
    assert [len(dataset.rows(s)) for s in SPLITS] == [24, 6, 9]
    with pytest.raises(DataError, match="a split 'extra'"):
        load_dataset({"train": Drawers(), "extra": Drawers()})
    with pytest.raises(DataError, match="expected train"):
        load_dataset({"test": Drawers()})


class Measured(Dataset[Any]):
    """A user's data set of pairs (input, target), as they are given."""

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.inputs[index], self.targets[index]


VALUES = np.random.default_rng(1).normal(size=(24, 9, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("inputs", "options", "kind", "shape"),
    [
        (torch.from_numpy(VALUES[:, 0]), {}, "table", (3,)),
        (torch.from_numpy(VALUES), {}, "series", (9, 3)),
        (torch.from_numpy(VALUES[:, :3]), {}, "image", (3, 3, 1)),
        (torch.from_numpy(PIXELS[..., 0]), {}, "image", (6, 5, 1)),
        (torch.from_numpy(PIXELS[..., 0]), {"kind": "series"}, "series", (6, 5)),
        (torch.from_numpy(VALUES), {"kind": "image"}, "image", (9, 3, 1)),
        (torch.from_numpy(VALUES[:, 0]), {"kind": "series"}, "series", (3, 1)),
        (torch.from_numpy(VALUES), {"size": 4}, "image", (4, 4, 1)),
        (VALUES[:, 0].astype(np.float64), {}, "table", (3,)),
        (np.arange(72).reshape(24, 3) * 9, {}, "table", (3,)),
    ],
)
def test_items_of_fewer_axes_are_series_or_tables(inputs: Any, options: Any, kind: str, shape: tuple[int, ...]) -> None:
    dataset = load_dataset(Measured(inputs, CODES), **options)
    assert (dataset.kind, dataset.input.shape) == (kind, shape)
    if "size" not in options:
        assert np.allclose(dataset.inputs.reshape(inputs.shape), np.asarray(inputs), atol=1e-6)


def test_that_items_are_read_as_series_is_said() -> None:
    notes: list[str] = []
    load_dataset(Measured(VALUES, CODES), notes=notes)
    assert "inputs of the data have shape (24, 9, 3): they are read as series (samples, length, channels)" in notes[0]


@pytest.mark.parametrize(
    ("targets", "task", "names"),
    [
        (np.linspace(0.5, 9, 24), "regression", ("target",)),
        (torch.linspace(0.5, 9, 24), "regression", ("target",)),
        (torch.from_numpy(VALUES[:, 0]), "regression", ("target1", "target2", "target3")),
        ([tuple(row) for row in VALUES[:, 0, :2].tolist()], "regression", ("target1", "target2")),
        (torch.from_numpy(np.stack([CODES == 0, CODES < 2], axis=1)), "multilabel", ("0", "1")),
        (torch.tensor(CODES), "classification", ("0", "1", "2")),
    ],
)
def test_targets_of_items_may_be_numbers_and_vectors(targets: Any, task: str, names: tuple[str, ...]) -> None:
    dataset = load_dataset(Measured(VALUES[:, 1], targets))
    assert (dataset.kind, dataset.task.kind, dataset.task.names) == ("table", task, names)
    assert np.allclose(dataset.targets.reshape(np.shape(targets)), np.asarray(targets))


def test_other_splits_have_the_kind_of_the_training_split() -> None:
    parts = {"train": Measured(VALUES[:, 0], CODES), "test": (VALUES[:6, 1], CODES[:6])}
    dataset = load_dataset(parts)
    assert (dataset.kind, len(dataset.rows("test"))) == ("table", 6)
    with pytest.raises(DataError, match=r"inputs of the test split have shape \(24, 9, 3\); table data must be"):
        load_dataset({"train": Measured(VALUES[:, 0], CODES), "test": Measured(VALUES, CODES)})


@pytest.mark.parametrize(
    ("items", "options", "says"),
    [
        ([VALUES[0]] * 24, {}, "it has no target"),
        ([Image.fromarray(PIXELS[0])] * 24, {}, "it has no target"),
        (TensorDataset(torch.from_numpy(VALUES)), {}, "it has no target"),
        (Measured(VALUES[:, 0], CODES), {"kind": "image"}, r"an image has shape \(3,\)"),
        (Measured(VALUES[:, 0], CODES), {"kind": "table", "size": 4}, "size 4 applies to images"),
        (Measured(VALUES, CODES), {"kind": "table"}, r"table data must be \(samples, columns\)"),
        (Measured(PIXELS, CODES), {"kind": "series"}, "series data must be"),
        (
            Measured([VALUES[0, : 2 + i % 2, 0] for i in range(24)], CODES),
            {"kind": "table"},
            "expected one shape; cut or pad them",
        ),
        (Measured(["a", "b"] * 12, CODES), {}, "its input is str, no picture or array of numbers"),
    ],
    ids=range(9),
)
def test_items_that_do_not_fit_are_told(items: Any, options: Any, says: str) -> None:
    source = {"train": items} if not isinstance(items, list) else {"train": Unlabelled(items)}
    with pytest.raises(DataError, match=says):
        load_dataset(source, **options)


class Unlabelled(Measured):
    """A user's data set of inputs alone."""

    def __init__(self, inputs: Any) -> None:
        super().__init__(inputs, None)

    def __getitem__(self, index: int) -> Any:
        return self.inputs[index]


def test_inputs_alone_can_be_predicted() -> None:
    for inputs, wanted in (
        (VALUES[:, 0], Input((3,), "float32")),
        (VALUES, Input((9, 3), "float32")),
        (PIXELS[..., 0], Input((6, 5, 1), "uint8", (0.0, 255.0))),
    ):
        for source in (Unlabelled(torch.from_numpy(inputs)), Measured(inputs, CODES)):
            _, read = read_inputs(source, wanted)
            assert np.array_equal(read.reshape(inputs.shape), inputs)


def test_images_of_many_sizes_get_one() -> None:
    def cut(pixels: np.ndarray) -> Image.Image:
        image = Image.fromarray(pixels[: 3 + pixels[0, 0, 0] % 3])
        return image.convert("L") if pixels[0, 0, 1] % 2 else image

    notes: list[str] = []
    assert load_dataset(Drawers(transform=cut), notes=notes).input.shape == (5, 5, 3)
    assert "3 sizes, 5 x 3 to 5 x 5 pixels" in notes[0]
    assert load_dataset(Drawers(transform=cut), size=4).input.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (lambda _: "a cat", "item 0 of the data"),
        (lambda _: np.zeros((3, 2, 2, 2)), r"shape \(3, 2, 2, 2\), expected one to three axes"),
        (lambda _: 1 / 0, "division"),
    ],
)
def test_an_item_that_cannot_be_used_is_named(transform: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_dataset(Drawers(transform=transform))


@pytest.mark.parametrize("data", [5, None, [1, 2], object()])
def test_what_is_no_data_set_is_refused_in_a_line(data: Any) -> None:
    with pytest.raises(DataError, match="it must be a path"):
        load_dataset(data)


def test_a_run_knows_its_data_again(tmp_path: Path) -> None:
    library = ripieno.Library(tmp_path / "run")
    first = prepare(Drawers(), library)
    again = prepare(Drawers(), library)
    assert (first.inputs == again.inputs).all()
    with pytest.raises(SearchError, match=r"holds other data|not from"):
        prepare(Drawers(PIXELS[:12]), library)


def test_a_run_tells_other_images_of_the_same_labels(tmp_path: Path) -> None:
    library = ripieno.Library(tmp_path / "run")
    prepare({"train": Drawers(), "test": Drawers(PIXELS[::-1])}, library)
    prepare({"train": Drawers(), "test": Drawers(PIXELS[::-1])}, library)
    with pytest.raises(SearchError, match=r"holds other data|not from"):
        prepare({"train": Drawers(255 - PIXELS), "test": Drawers(PIXELS[::-1])}, library)


def test_a_run_tells_a_change_of_one_item_in_the_middle(tmp_path: Path) -> None:
    library, changed = ripieno.Library(tmp_path / "run"), PIXELS.copy()
    changed[13, 0, 0] ^= 1
    prepare(Drawers(), library)
    with pytest.raises(SearchError, match="24 items of Drawers, digest"):
        prepare(Drawers(changed), library)


def test_images_drawn_again_each_time_do_not_make_another_source(tmp_path: Path) -> None:
    noise = np.random.default_rng(1)

    def augmented(pixels: np.ndarray) -> Image.Image:
        return Image.fromarray(pixels ^ noise.integers(0, 2, pixels.shape, np.uint8))

    library = ripieno.Library(tmp_path / "run")
    first = prepare(Drawers(transform=augmented), library)
    again = prepare(Drawers(transform=augmented), library)
    assert (first.inputs == again.inputs).all()


def test_a_mapping_may_hold_pairs_of_arrays() -> None:
    dataset = load_dataset({"train": (PIXELS, CODES), "test": (PIXELS[:9].tolist(), CODES[:9].tolist())})
    assert [len(dataset.rows(s)) for s in SPLITS][2] == 9
    assert np.array_equal(dataset.inputs[:24], PIXELS)
    assert len(load_dataset({"train": Drawers(), "test": (PIXELS, CODES)}).rows("test")) == 24


def test_a_run_knows_pairs_of_arrays_again(tmp_path: Path) -> None:
    library = ripieno.Library(tmp_path / "run")
    prepare({"train": (PIXELS, CODES), "test": (PIXELS, CODES)}, library)
    prepare({"train": (PIXELS, CODES), "test": (PIXELS, CODES)}, library)
    with pytest.raises(SearchError, match="holds other data"):
        prepare({"train": (PIXELS, CODES), "test": (255 - PIXELS, CODES)}, library)


@pytest.mark.parametrize("channels", [2, 4, 10])
def test_tensors_with_any_number_of_channels_are_channels_first(channels: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, channels, 12, 12), np.uint8))
    dataset = load_dataset(TensorDataset(images, torch.tensor(CODES)))
    assert np.array_equal(dataset.inputs, images.numpy().transpose(0, 2, 3, 1))


def test_items_of_two_types_are_refused() -> None:
    def mixed(pixels: np.ndarray) -> np.ndarray:
        return pixels if pixels[0, 0, 0] % 2 else pixels.astype(np.float32) / 255

    with pytest.raises(DataError, match=r"item \d+ (uint8|float32) and item \d+ (uint8|float32); expected one"):
        load_dataset(Drawers(transform=mixed))


def test_whole_numbers_of_any_type_are_resized() -> None:
    wide = load_dataset(Drawers(transform=lambda p: p.astype(np.int64)), size=4)
    assert wide.inputs.dtype == np.uint8
    assert abs(wide.inputs.astype(int) - load_dataset(Drawers(), size=4).inputs).max() <= 1


def test_splits_that_number_the_same_classes_in_other_ways_meet_by_name() -> None:
    class FewerDrawers(Drawers):
        classes = ("cat", "owl")

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(self.pixels[index]), index % 2

    dataset = load_dataset({"train": Drawers(), "test": FewerDrawers(255 - PIXELS)})
    assert dataset.classes == ("cat", "dog", "owl")
    assert set(dataset.targets[dataset.rows("test")]) == {0, 2}


def test_a_tensor_whose_shape_leaves_a_doubt_has_its_channels_first() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 8), np.uint8))
    dataset = load_dataset(TensorDataset(images, torch.tensor(CODES)))
    assert np.array_equal(dataset.inputs, images.numpy().transpose(0, 2, 3, 1))


MASKS = np.random.default_rng(1).integers(0, 3, (24, 6, 5), np.uint8)


class Scenes(Dataset[Any]):
    """A user's data set of pictures and masks, in any form."""

    def __init__(self, masks: Any, pixels: Any = PIXELS) -> None:
        self.masks, self.pixels = masks, pixels

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.fromarray(self.pixels[index]), self.masks[index]


@pytest.mark.parametrize(
    "masks",
    [MASKS, torch.from_numpy(MASKS), torch.from_numpy(MASKS).long()[:, None], [Image.fromarray(m) for m in MASKS]],
    ids=["arrays", "tensors", "with channel", "pictures"],
)
def test_items_of_pictures_and_masks_are_a_segmentation(masks: Any) -> None:
    dataset = load_dataset(Scenes(masks))
    assert dataset.task.kind == "segmentation"
    assert dataset.task.output == (6, 5, 3)
    assert np.array_equal(dataset.inputs, PIXELS)
    assert np.array_equal(dataset.targets, MASKS)


def test_masks_of_items_have_the_size_of_their_pictures() -> None:
    small = load_dataset(Scenes(MASKS), size=4)
    assert small.inputs.shape[1:3] == small.targets.shape[1:] == small.task.output[:2] == (4, 4)
    with pytest.raises(DataError, match=r"item 0 of the data cannot be used \(its mask has shape \(5, 6\)"):
        load_dataset(Scenes(MASKS.transpose(0, 2, 1)))


def test_items_of_several_sizes_are_resized_with_their_masks() -> None:
    pixels, masks = [*PIXELS[:-1], np.zeros((12, 10, 3), np.uint8)], [*MASKS[:-1], np.full((12, 10), 2, np.uint8)]
    dataset = load_dataset(Scenes(masks, pixels))
    assert dataset.task.output == (6, 6, 3)
    assert np.array_equal(dataset.targets[0][:, :5], MASKS[0])
    assert (dataset.targets[0][:, 5] == 255).all()
    assert (dataset.targets[-1][:, :5] == 2).all()


def test_padding_of_masks_of_0_and_255_is_ignored() -> None:
    binary = [Image.fromarray((mask > 0) * np.uint8(255)) for mask in MASKS]
    dataset = load_dataset(Scenes(binary), size=6)
    assert dataset.classes == ("0", "255")
    assert np.array_equal(dataset.targets[:, :, :5], MASKS > 0)
    assert (dataset.targets[:, :, 5] == 255).all()


def test_a_value_of_items_may_be_ignored_and_the_checksum_sees_every_pixel() -> None:
    assert load_dataset(Scenes(MASKS), ignore=1).classes == ("0", "2")
    big = np.zeros((4, 60, 60), np.uint8)
    changed = big.copy()
    changed[2, 30, 30] = 1
    pixels = np.zeros((4, 60, 60, 3), np.uint8)
    assert fingerprint(Scenes(big, pixels)) != fingerprint(Scenes(changed, pixels))


def test_pairs_of_arrays_with_masks_may_be_splits() -> None:
    dataset = load_dataset({"train": (PIXELS, MASKS), "test": (PIXELS[:6], MASKS[:6])})
    assert dataset.task.kind == "segmentation"
    assert len(dataset.rows("test")) == 6
