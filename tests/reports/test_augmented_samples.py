"""Drawings of samples that a learnt policy changes: the originals as they are, and copies that differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ripieno.data.augmentation_policy import LearntPolicy, PolicyStep
from ripieno.reports.augmented_samples import COPIES, SAMPLES, augment_rows, augmented_samples
from ripieno.types import DataKind, Dataset, classification

OPERATIONS: dict[DataKind, str] = {"image": "translate-x", "series": "scaling"}


def made(kind: DataKind) -> Dataset:
    rng = np.random.default_rng(0)
    inputs: Any = rng.integers(0, 255, (12, 8, 8, 3), np.uint8)
    if kind == "series":
        inputs = rng.normal(size=(12, 20, 2)).astype(np.float32)
        inputs[:, 15:] = np.nan
    if kind == "table":
        inputs = rng.normal(size=(12, 2)).astype(np.float32)
    channels = inputs.shape[-1]
    split, targets = np.arange(12, dtype=np.uint8) % 3, np.arange(12) % 2
    moments = (0.0,) * channels, (1.0,) * channels
    return Dataset("made", inputs, targets, split, classification(("a", "b")), *moments, kind)


@pytest.mark.parametrize("kind", ["image", "series"])
def test_each_sample_is_drawn_as_it_is_and_changed(kind: DataKind) -> None:
    data, policy = made(kind), LearntPolicy(kind, (PolicyStep(OPERATIONS[kind], 1.0, 0.8),))
    rows = data.rows("train")
    shown = augment_rows(policy, data, rows)
    assert shown.inputs.dtype == data.inputs.dtype
    assert np.array_equal(shown.inputs[:: COPIES + 1], data.inputs[rows], equal_nan=kind == "series")
    assert all(not np.array_equal(shown.inputs[i], shown.inputs[0], equal_nan=kind == "series") for i in (1, 2, 3))
    members = [SimpleNamespace(id=str(i), configuration=c) for i, c in enumerate([{}, {"policy": policy.text}])]
    reading: Any = SimpleNamespace(members=members, dataset=data)
    found = augmented_samples(reading)
    assert found is not None
    assert (found.member, found.policy) == ("1", policy)
    assert len(found.samples) == SAMPLES
    for drawings in found.samples:
        assert len(drawings) == COPIES + 1
        assert drawings[0] not in drawings[1:]


def test_a_table_shows_its_policy_alone_and_a_run_without_one_nothing() -> None:
    policy = LearntPolicy("table", (PolicyStep("swap", 1.0, 0.8),))
    table: Any = SimpleNamespace(
        members=[SimpleNamespace(id="0", configuration={"policy": policy.text})], dataset=made("table")
    )
    found = augmented_samples(table)
    assert found is not None
    assert (found.policy, found.samples) == (policy, ())
    table.members[0].configuration = {}
    assert augmented_samples(table) is None
