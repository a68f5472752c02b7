"""Augmentation of a trial, from its configuration: of images or of series, by the kind of data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ripieno.data.augment import Augmentation
from ripieno.data.series_augment import STRENGTHS, SeriesAugmentation
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import ModelError
from ripieno.types import Configuration, DataKind, Dataset

InputAugmentation = Augmentation | SeriesAugmentation
AUGMENTATIONS: Mapping[DataKind, frozenset[str]] = {
    "image": frozenset(f.name for f in dataclasses.fields(Augmentation)) - {"value_range"},
    "series": frozenset(STRENGTHS),
    "table": frozenset(),
}
"""Hyperparameters of augmentation, by the kind of data."""


def augmentation(configuration: Configuration, dataset: Dataset) -> InputAugmentation:
    """Return the augmentation in `configuration`; absent names add none.

    Raises DataError for a value out of range, ModelError for any augmentation of images where inputs are not images.
    Channel shifts are a share of the value range, which is taken as four standard deviations for float images.
    """
    chosen = {name: value for name, value in configuration.items() if name in AUGMENTATIONS["image"]}
    value_range = 255.0 if dataset.inputs.dtype == np.uint8 else 4 * float(np.mean(dataset.std))
    augment = Augmentation(**chosen, value_range=value_range)  # type: ignore[arg-type]
    if not DATA_KINDS[dataset.kind].is_picture and not augment.is_identity:
        name = next(n for n, value in chosen.items() if value != getattr(Augmentation, n))
        raise ModelError(f"{name} augments images, but the inputs are of kind {dataset.kind}: leave it out")
    if dataset.kind != "series":
        return augment
    strengths = {name: value for name, value in configuration.items() if name in AUGMENTATIONS["series"]}
    return SeriesAugmentation(**strengths, length=dataset.inputs.shape[1])  # type: ignore[arg-type]
