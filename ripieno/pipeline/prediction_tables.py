"""Tables of predictions, by kind of task: columns of a file, records of a listing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from ripieno.data_kinds import noun_of
from ripieno.pipeline.mask_prediction import PredictedMask
from ripieno.pipeline.prediction import PredictionBatch
from ripieno.tasks.metrics import predicted_labels
from ripieno.tasks.registry import kind_of
from ripieno.tasks.uncertainty_outputs import COVERAGE_OUTPUTS, OUTPUTS_BY_TARGET, UncertaintyOutputs
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
        """Return `file`, `prediction`, `probability`, `spread`, a column per class, and how sure these are."""
        best = batch.predictions.argmax(axis=1)
        names = bundle.task.names
        return [
            ("file", batch.names),
            ("prediction", [names[i] for i in best]),
            ("probability", batch.predictions[np.arange(len(best)), best]),
            ("spread", _known(batch.spread, len(best))),
            *zip(names, batch.predictions.T, strict=True),
            *_uncertainty_columns(batch, bundle),
        ]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name, `class` and `probability`."""
        more = _uncertainty_records(batch, bundle)
        return [
            {
                _name_key(bundle): name,
                "class": bundle.task.names[int(row.argmax())],
                "probability": float(row.max()),
                **own,
            }
            for name, row, own in zip(batch.names, batch.predictions, more, strict=True)
        ]


@final
class LabelTable:
    """Of several labels: those whose probability reaches their threshold, and the probability of each."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, `prediction`, a column per label, and how sure these are."""
        labels = [JOINT.join(record["labels"]) for record in self.records(batch, bundle)]
        probabilities = zip(bundle.task.names, batch.predictions.T, strict=True)
        uncertainty = _uncertainty_columns(batch, bundle)
        return [("file", batch.names), ("prediction", labels), *probabilities, *uncertainty]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name and `labels`."""
        names = np.array(bundle.task.names, object)
        chosen = predicted_labels(batch.predictions, bundle.ensemble.thresholds) > 0
        return [
            {_name_key(bundle): name, "labels": list(names[row]), **more}
            for name, row, more in zip(batch.names, chosen, _uncertainty_records(batch, bundle), strict=True)
        ]


@final
class ValueTable:
    """Of a regression: the value and the spread of each target."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, a column, `NAME_spread` and those of `by_target` per target, and how sure these are."""
        spread = batch.spread if batch.spread is None else batch.spread.reshape(batch.predictions.shape)
        columns: list[OutputColumn] = [("file", batch.names)]
        for index, name in enumerate(bundle.task.names):
            columns.append((name, batch.predictions[:, index]))
            columns.append((f"{name}_spread", _known(None if spread is None else spread[:, index], len(batch.names))))
            for output in UncertaintyOutputs(bundle.ensemble, bundle.task).by_target:
                values = batch.uncertainty.get(output)
                own = None if values is None else values[:, index]
                columns.append((f"{name}_{output}", _known(own, len(batch.names))))
        return columns + _uncertainty_columns(batch, bundle)

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name and the value of each target."""
        return [
            {_name_key(bundle): name, "values": dict(zip(bundle.task.names, map(float, row), strict=True)), **more}
            for name, row, more in zip(batch.names, batch.predictions, _uncertainty_records(batch, bundle), strict=True)
        ]


@final
class MaskTable:
    """Of a segmentation: the confidence and spread of each mask, and the share of its pixels by class."""

    def columns(self, batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
        """Return `file`, `confidence`, `spread`, a column per class, and how sure the mask is."""
        assert isinstance(batch, PredictedMask)
        return [
            ("file", batch.names),
            ("confidence", np.array([batch.confidence], np.float32)),
            ("spread", _known(batch.spread, 1)),
            *zip(bundle.task.names, batch.predictions.T, strict=True),
            *_uncertainty_columns(batch, bundle),
        ]

    def records(self, batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
        """Return the name, the class with most pixels, its `share` of them, `confidence`, and `abstain` if known."""
        assert isinstance(batch, PredictedMask)
        shares = batch.predictions[0]
        largest = int(shares.argmax())
        return [
            {
                _name_key(bundle): batch.names[0],
                "class": bundle.task.names[largest],
                "share": float(shares[largest]),
                "confidence": batch.confidence,
                **_uncertainty_records(batch, bundle)[0],
            }
        ]


def _uncertainty_columns(batch: PredictionBatch, bundle: Bundle) -> list[OutputColumn]:
    """Return a column for each number of a sample, and one for its set of classes or labels, unless it has pixels."""
    columns: list[OutputColumn] = []
    for name in UncertaintyOutputs(bundle.ensemble, bundle.task).in_tables:
        values = batch.uncertainty.get(name)
        if name not in (*COVERAGE_OUTPUTS, *OUTPUTS_BY_TARGET):
            columns.append((name, _known(values, len(batch.names))))
        elif name == "prediction_set" and not kind_of(bundle.task).is_pixelwise:
            sets = None if values is None else [JOINT.join(names) for names in _names_in(values, bundle)]
            columns.append((name, _known(sets, len(batch.names))))
    return columns


def _uncertainty_records(batch: PredictionBatch, bundle: Bundle) -> list[dict[str, Any]]:
    """Return for each sample its set or the bounds of its values, and whether it is better not answered, if known."""
    records: list[dict[str, Any]] = [{} for _ in batch.names]
    for name, values in batch.uncertainty.items():
        if name == "prediction_set":
            cells: list[Any] = _names_in(values, bundle)
        elif name in OUTPUTS_BY_TARGET:
            cells = [dict(zip(bundle.task.names, row, strict=True)) for row in values.tolist()]
        elif name == "abstain":
            cells = values.tolist()
        else:
            continue
        for record, cell in zip(records, cells, strict=True):
            record[name] = cell
    return records


def _names_in(sets: NDArray[np.bool_], bundle: Bundle) -> list[list[str]]:
    """Return the names of the classes or labels in each set."""
    names = np.array(bundle.task.names, object)
    return [list(names[row]) for row in sets]


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
