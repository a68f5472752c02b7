"""Tables of predictions, by kind of task: columns of a file, records of a listing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, final

import numpy as np

from ripieno.data_kinds import noun_of
from ripieno.pipeline.mask_prediction import PredictedMask
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.tasks.metrics import predicted_labels
from ripieno.types import Bundle

OutputColumn = tuple[str, Any]
"""Name of a column, and a text, a number or None for each sample."""
JOINT = "|"
"""Separator of several labels in one cell."""


class PredictionTable(Protocol):
    """Forms in which predictions of one kind of task are written and listed."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return the columns of a file of predictions, the names of the samples first."""
        ...

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return a short record of each sample, for `--json` and the terminal."""
        ...


@final
class ClassTable:
    """Of a classification: the most probable class, its probability and its spread, the probability of each class."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, `prediction`, `probability`, `spread` and a column per class."""
        best = batch.predictions.argmax(axis=1)
        names = bundle.task.names
        return [
            ("file", batch.names),
            ("prediction", [names[i] for i in best]),
            ("probability", batch.predictions[np.arange(len(best)), best]),
            ("spread", _known(batch.spread, len(best))),
            *zip(names, batch.predictions.T, strict=True),
        ]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name, `class` and `probability`."""
        return [
            {_name_key(bundle): name, "class": bundle.task.names[int(row.argmax())], "probability": float(row.max())}
            for name, row in zip(batch.names, batch.predictions, strict=True)
        ]


@final
class LabelTable:
    """Of several labels: those whose probability reaches their threshold, and the probability of each."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, `prediction` and a column per label."""
        labels = [JOINT.join(record["labels"]) for record in self.records(batch, bundle)]
        probabilities = zip(bundle.task.names, batch.predictions.T, strict=True)
        return [("file", batch.names), ("prediction", labels), *probabilities]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name and `labels`."""
        names = np.array(bundle.task.names, object)
        chosen = predicted_labels(batch.predictions, bundle.ensemble.thresholds) > 0
        return [
            {_name_key(bundle): name, "labels": list(names[row])} for name, row in zip(batch.names, chosen, strict=True)
        ]


@final
class ValueTable:
    """Of a regression: the value and the spread of each target."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, and a column and `NAME_spread` per target."""
        spread = batch.spread if batch.spread is None else batch.spread.reshape(batch.predictions.shape)
        columns: list[OutputColumn] = [("file", batch.names)]
        for index, name in enumerate(bundle.task.names):
            columns.append((name, batch.predictions[:, index]))
            columns.append((f"{name}_spread", _known(None if spread is None else spread[:, index], len(batch.names))))
        return columns

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name and the value of each target."""
        return [
            {_name_key(bundle): name, "values": dict(zip(bundle.task.names, map(float, row), strict=True))}
            for name, row in zip(batch.names, batch.predictions, strict=True)
        ]


@final
class MaskTable:
    """Of a segmentation: the confidence and spread of each mask, and the share of its pixels by class."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, `confidence`, `spread` and a column per class."""
        assert isinstance(batch, PredictedMask)
        return [
            ("file", batch.names),
            ("confidence", np.array([batch.confidence], np.float32)),
            ("spread", _known(batch.spread, 1)),
            *zip(bundle.task.names, batch.predictions.T, strict=True),
        ]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name, the class with the most pixels, its `share` of them, and `confidence`."""
        assert isinstance(batch, PredictedMask)
        shares = batch.predictions[0]
        largest = int(shares.argmax())
        return [
            {
                _name_key(bundle): batch.names[0],
                "class": bundle.task.names[largest],
                "share": float(shares[largest]),
                "confidence": batch.confidence,
            }
        ]


def _name_key(bundle: Bundle) -> str:
    """Return the key of the names of samples in records."""
    return "image" if noun_of(bundle.input) == "images" else "sample"


def _known(values: Any, count: int) -> Any:
    """Return `values`, `count` times None where there are none."""
    return [None] * count if values is None else values


TABLES: Mapping[str, PredictionTable] = {
    "classification": ClassTable(),
    "multilabel": LabelTable(),
    "regression": ValueTable(),
    "segmentation": MaskTable(),
}
"""Form of predictions, by kind of task."""
