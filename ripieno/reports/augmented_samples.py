"""Drawings of training samples, as they are and as the learnt policy of augmentation of a run changes them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ripieno.data.augmentation_policy import LearntPolicy, policy_from_text
from ripieno.data.dataset import spread_rows
from ripieno.reports.run_data import RunData
from ripieno.reports.series_lines import SeriesLines, series_lines
from ripieno.reports.thumbnails import thumbnails
from ripieno.types import DataKind, Dataset

SAMPLES, COPIES = 4, 3
"""Samples that are drawn, and augmented copies of each."""
SampleDrawing = str | SeriesLines
"""Address of a picture, or lines."""


@dataclass(frozen=True)
class AugmentedSamples:
    """Drawings of samples, each first as it is."""

    member: str
    policy: LearntPolicy
    samples: tuple[tuple[SampleDrawing, ...], ...]
    """empty for tables, and where there is no data set"""


def augmented_samples(reading: RunData) -> AugmentedSamples | None:
    """Return samples augmented by the learnt policy of the best member that has one; None where none has."""
    member = next((m for m in reading.members if m.configuration.get("policy")), None)
    dataset = reading.dataset
    if member is None or dataset is None:
        return None
    policy = policy_from_text(member.configuration["policy"], dataset.kind)
    draw: Mapping[DataKind, Callable[[Dataset, Sequence[int]], Mapping[int, SampleDrawing]]] = {
        "image": thumbnails,
        "series": partial(series_lines, together=COPIES + 1),
    }
    if dataset.kind not in draw or importlib.util.find_spec("torch") is None:
        return AugmentedSamples(member.id, policy, ())
    rows = spread_rows(dataset.rows("train"), SAMPLES)
    shown = augment_rows(policy, dataset, rows)
    drawings = draw[dataset.kind](shown, range(len(shown.inputs)))
    groups = [range(start, start + COPIES + 1) for start in range(0, len(shown.inputs), COPIES + 1)]
    whole = [tuple(drawings[i] for i in group) for group in groups if all(i in drawings for i in group)]
    return AugmentedSamples(member.id, policy, tuple(whole))


def augment_rows(policy: LearntPolicy, dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """Return a data set of the samples at `rows`, each followed by `COPIES` that `policy` has changed."""
    import torch

    from ripieno.models.build import channels_first
    from ripieno.train.augmentation import augmentation

    augment = augmentation({"policy": policy.text}, dataset)
    repeated = np.repeat(np.asarray(dataset.inputs[rows]), COPIES + 1, axis=0)
    inputs = torch.from_numpy(repeated)
    if not augment.is_identity:
        draws = augment.draw(len(inputs), inputs.shape[-1], torch.Generator().manual_seed(0))
        changed = augment.apply(channels_first(inputs).float(), draws).movedim(1, -1).numpy()
        if repeated.dtype == np.uint8:
            changed = changed.round().clip(0, 255)
        is_copy = np.arange(len(repeated)) % (COPIES + 1) > 0
        repeated[is_copy] = changed[is_copy].astype(repeated.dtype)
    return dataclasses.replace(dataset, inputs=repeated, path=None)
