"""Quality of predictions by class, label or target. Pure functions of arrays.

`predictions` are (samples, *task.output), `targets` as in `Dataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.types import Ints, Task

Row = dict[str, str | int | float]
"""One class, label or target: its name, and its figures by name."""


def class_rows(predictions: NDArray[Any], labels: Ints, task: Task) -> list[Row]:
    """Return samples, precision, recall and F1 of each class; precision is 0 for a class that is never predicted."""
    classes, predicted = len(task.names), predictions.argmax(axis=1)
    counts = np.bincount(labels, minlength=classes)
    answers = np.bincount(predicted, minlength=classes)
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    return [
        {
            "class": name,
            "samples": int(counts[i]),
            "precision": float(hits[i] / max(1, answers[i])),
            "recall": float(hits[i] / max(1, counts[i])),
            "F1": float(2 * hits[i] / max(1, answers[i] + counts[i])),
        }
        for i, name in enumerate(task.names)
    ]


RowsFunction = Callable[[NDArray[Any], NDArray[Any], Task, Sequence[float]], list[Row]]

ROWS: Mapping[str, RowsFunction] = {
    "classification": lambda predictions, targets, task, _: class_rows(predictions, targets, task)
}
"""Function of the rows, by kind of task; its last argument are the thresholds of labels, see `Ensemble`."""
