"""Test figures with and without the samples of the test split that a list of samples to leave out names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ripieno.data.dataset import find_dataset
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.runs import ProgressFunction
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble


def doubted_notes(library: Library, ensembles: Sequence[Ensemble]) -> list[str]:
    """Return a line for each ensemble: its test score on all samples, and without the doubted ones.

    There are none where no test sample is doubted, and of ensembles without test predictions.
    """
    dataset = find_dataset(library.dataset_path)
    if dataset is None or not dataset.doubted:
        return []
    kind, rows, notes = kind_of(dataset.task), dataset.rows("test"), []
    targets, kept = np.asarray(dataset.targets[rows]), ~np.isin(rows, dataset.doubted)
    key = kind.metric_of(dataset.task)
    for ensemble in ensembles:
        if not all(library.has_predictions(member, "test") for member in ensemble.members) or not kept.any():
            continue
        tables = [library.predictions(member, "test") for member in ensemble.members]
        predictions = combine_calibrated(tables, ensemble, kind)
        with_all, without = (
            METRICS[key].format(kind.scores(predictions[own], targets[own], dataset.task, ensemble.thresholds)[key])
            for own in (np.ones(len(rows), np.bool_), kept)
        )
        notes.append(
            f"{ensemble.name}: test {METRICS[key].title} {with_all} on all {len(rows):,} samples, "
            f"{without} without the {len(dataset.doubted):,} doubted"
        )
    return notes


def best_member_notes(library: Library, progress: ProgressFunction, notes: list[str]) -> list[str]:
    """Return the line of `doubted_notes` of the best member of a search, which predicts the test split for it."""
    dataset = find_dataset(library.dataset_path)
    if dataset is None or not dataset.doubted:
        return []
    best = min(library.members(), key=lambda member: (member.loss, member.id))
    evaluate(library, [best.id], progress, notes=notes)
    thresholds = kind_of(best.task).fit_thresholds(library.predictions(best.id), library.targets())
    return doubted_notes(library, [Ensemble(best.id, (best.id,), (1.0,), "best", {}, {}, {}, thresholds=thresholds)])
