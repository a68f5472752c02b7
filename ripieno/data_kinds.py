"""Kinds of data, one record each: the form of the inputs, and what applies to them. The task is another axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ripieno.types import DataKind, Input


@dataclass(frozen=True)
class DataKindTraits:
    """Properties of inputs of one kind."""

    axes: tuple[str, ...]
    """of one sample, channels last"""
    noun: str
    """plural name of the samples in messages"""
    is_picture: bool
    """whether a sample can be resized, augmented and shown; its values have one unit, so that their range is kept"""
    families: tuple[str, ...]
    """built-in families of networks that take such inputs"""
    card_form: str
    """first word of the pipeline tags of model cards"""
    enough_valid: int = 0
    """validation samples below which folds validate, where the user does not choose; 0: they never do"""

    @property
    def shape(self) -> str:
        """Shape of an array of samples: "(samples, length, channels)"."""
        return f"({', '.join(('samples', *self.axes))})"


SERIES_FAMILIES = ("series", "lite", "inception", "resnet-1d", "fcn", "minirocket", "hydra", "cell")
"""Families of networks for series; `series` is that of searches whose configurations name another, but for `cell`."""
IMAGE_FAMILIES = ("resnet", "timm", "unet", "smp", "cell")
"""Families of networks for images; `unet` and `smp` predict every pixel, `cell` can."""
TABLE_FAMILIES = ("table", "mlp", "mlp-periodic")
"""Families of networks for tables, and `table`, likewise."""
DATA_KINDS: Mapping[DataKind, DataKindTraits] = {
    "image": DataKindTraits(("height", "width", "channels"), "images", True, IMAGE_FAMILIES, "image"),
    "series": DataKindTraits(("length", "channels"), "series", False, SERIES_FAMILIES, "time-series", 200),
    "table": DataKindTraits(("columns",), "rows", False, TABLE_FAMILIES, "tabular", 1000),
}


def infer_data_kind(shape: tuple[int, ...], dtype: DTypeLike) -> DataKind:
    """Return the kind of samples of `shape`: by their axes, and of two by type and shape.

    Two axes are a grey image where the values are bytes or the sample is square, else a series.
    """
    if len(shape) == 1:
        return "table"
    is_series = len(shape) == 2 and np.dtype(dtype) not in (np.uint8, np.bool_) and shape[0] != shape[1]
    return "series" if is_series else "image"


def traits_of(input: Input) -> DataKindTraits | None:
    """Return the traits of samples of `input`, by the number of their axes; None where no kind has as many."""
    return next((kind for kind in DATA_KINDS.values() if len(kind.axes) == len(input.shape)), None)


def kind_by_axes(shape: tuple[int, ...]) -> DataKind:
    """Return the kind of samples of `shape` by the number of their axes; an image where no kind has as many."""
    return next((name for name, traits in DATA_KINDS.items() if len(traits.axes) == len(shape)), "image")


def noun_of(input: Input) -> str:
    """Return the plural name of samples of `input` in messages."""
    traits = traits_of(input)
    return traits.noun if traits else "samples"


def is_series(input: Input) -> bool:
    """Return whether samples of `input` are series, (length, channels) of float32, which NaN may pad at the end."""
    return len(input.shape) == len(DATA_KINDS["series"].axes) and input.dtype == "float32"


def is_table(input: Input) -> bool:
    """Return whether samples of `input` are rows of a table, (values,) of float32, in which NaN is a missing value."""
    return len(input.shape) == len(DATA_KINDS["table"].axes) and input.dtype == "float32"
