"""Images, series and tables: the kind of data of arrays, by their axes or given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ripieno.data import load_dataset, open_dataset
from ripieno.errors import DataError

CODES = np.arange(60) % 3


def values(*shape: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(0).integers(0, 256, (60, *shape)).astype(dtype)


@pytest.mark.parametrize(
    ("inputs", "kind", "shape"),
    [
        (values(6, 5, dtype=np.uint8), "image", (6, 5, 1)),
        (values(6, 6), "image", (6, 6, 1)),
        (values(50, 3), "series", (50, 3)),
        (values(7), "table", (7,)),
        (values(1, 1, 7), "image", (1, 1, 7)),
    ],
)
def test_the_axes_say_what_arrays_are(inputs: Any, kind: str, shape: tuple[int, ...], tmp_path: Any):
    dataset = load_dataset((inputs, CODES), folder=tmp_path / "data")
    assert (dataset.kind, dataset.input.shape) == (kind, shape)
    assert len(dataset.mean) == shape[-1]
    assert (dataset.range is None) == (kind != "image" or shape == (1, 1, 7))
    assert open_dataset(tmp_path / "data").kind == kind


def test_series_are_told():
    notes: list[str] = []
    load_dataset((values(50, 3), CODES), notes=notes)
    assert "shape (60, 50, 3): they are read as series" in notes[0]


@pytest.mark.parametrize(
    ("inputs", "kind", "shape"),
    [
        (values(50, 3), "image", (50, 3, 1)),
        (values(6, 5, dtype=np.uint8), "series", (6, 5)),
        (values(50), "series", (50, 1)),
    ],
)
def test_a_given_kind_overrules(inputs: Any, kind: Any, shape: tuple[int, ...]):
    notes: list[str] = []
    dataset = load_dataset((inputs, CODES), kind=kind, notes=notes)
    assert (dataset.kind, dataset.input.shape) == (kind, shape)
    assert not [note for note in notes if "series" in note]


def test_a_prepared_data_set_keeps_its_kind(tmp_path: Any):
    load_dataset((values(50, 3), CODES), folder=tmp_path / "data")
    assert load_dataset(tmp_path / "data").kind == "series"
    with pytest.raises(DataError, match="prepared with kind series, not image"):
        load_dataset(tmp_path / "data", kind="image")


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (values(6, 5, 3), {"kind": "table"}, r"table data must be \(samples, columns\)"),
        (values(7), {"kind": "image"}, r"have shape \(60, 7\)"),
        (values(7), {"size": 8}, "size 8 applies to images, but the data are of kind table"),
        (np.ma.masked_equal(values(7), 3), {}, "have masked values"),
        (np.where(values(5, 5) == 3, np.nan, values(5, 5)), {}, "NaN"),
        (np.where(values(7) == 3, np.inf, values(7)), {}, "holds infinity"),
    ],
)
def test_inputs_that_do_not_fit_are_told(inputs: Any, options: Any, message: str):
    with pytest.raises(DataError, match=message):
        load_dataset((inputs, CODES), **options)
