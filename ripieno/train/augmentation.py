"""Augmentation of a trial, from its configuration: by the kind of data, and by a policy where it has one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ripieno.data import augmentation_policy
from ripieno.data.augment import GREY, Augmentation
from ripieno.data.augmentation_policy import Policy, RandomPolicy, operations_of, policy_of
from ripieno.data.image_operations import ImageOperations
from ripieno.data.series_augment import STRENGTHS, SeriesAugmentation
from ripieno.data.series_operations import SeriesOperations
from ripieno.data.table_operations import TableOperations, columns_of
from ripieno.data_kinds import DATA_KINDS
from ripieno.errors import ModelError
from ripieno.train.policy_augmentation import Operations, PolicyAugmentation
from ripieno.types import Configuration, DataKind, Dataset

InputAugmentation = Augmentation | SeriesAugmentation | PolicyAugmentation
AUGMENTATIONS: Mapping[DataKind, frozenset[str]] = {
    "image": (frozenset(f.name for f in dataclasses.fields(Augmentation)) - {"value_range"})
    | augmentation_policy.NAMES,
    "series": frozenset(STRENGTHS) | augmentation_policy.NAMES,
    "table": augmentation_policy.NAMES,
}
"""Hyperparameters of augmentation, by the kind of data."""


def augmentation(configuration: Configuration, dataset: Dataset) -> InputAugmentation:
    """Return the augmentation in `configuration`; absent names add none.

    Raises DataError for a value out of range, ModelError for any augmentation of images where inputs are not images.
    """
    base = _augmentation_of_kind(configuration, dataset)
    policy = policy_of(configuration, dataset.kind)
    if policy is None:
        return base
    if isinstance(policy, RandomPolicy) and dataset.kind == "image" and dataset.inputs.shape[-1] != len(GREY):
        policy = dataclasses.replace(policy, without=(*policy.without, "colour"))  # which only three channels have
    return PolicyAugmentation(base, policy, _operations(policy, dataset))


def _operations(policy: Policy, dataset: Dataset) -> Operations:
    """Return the operations of policies on the inputs of `dataset`.

    The range of float images is that of the training images, or else two standard deviations about their mean.
    """
    if dataset.kind == "series":
        return SeriesOperations(dataset.inputs.shape[2], dataset.inputs.shape[1], "jitter" in operations_of(policy))
    if dataset.kind == "table":
        return TableOperations(columns_of(dataset))
    if dataset.inputs.dtype == np.uint8:
        return ImageOperations()
    mean, std = float(np.mean(dataset.mean)), float(np.mean(dataset.std))
    return ImageOperations(*(dataset.input.range or (mean - 2 * std, mean + 2 * std)))


def _augmentation_of_kind(configuration: Configuration, dataset: Dataset) -> Augmentation | SeriesAugmentation:
    """Return the augmentation without a policy.

    Channel shifts are a share of the value range, which is taken as four standard deviations for float images.
    """
    fields = {f.name for f in dataclasses.fields(Augmentation)} - {"value_range"}
    chosen = {name: value for name, value in configuration.items() if name in fields}
    value_range = 255.0 if dataset.inputs.dtype == np.uint8 else 4 * float(np.mean(dataset.std))
    augment = Augmentation(**chosen, value_range=value_range)  # type: ignore[arg-type]
    if not DATA_KINDS[dataset.kind].is_picture and not augment.is_identity:
        name = next(n for n, value in chosen.items() if value != getattr(Augmentation, n))
        raise ModelError(f"{name} augments images, but the inputs are of kind {dataset.kind}: leave it out")
    if dataset.kind != "series":
        return augment
    strengths = {name: value for name, value in configuration.items() if name in STRENGTHS}
    return SeriesAugmentation(**strengths, length=dataset.inputs.shape[1])  # type: ignore[arg-type]
