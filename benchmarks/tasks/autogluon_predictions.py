"""Predictions of a table's test rows by AutoGluon, in an environment that has it and not ripieno.

    PYTHON benchmarks/tasks/autogluon_predictions.py FILE.csv TARGET KIND MINUTES OUTPUT.npz

FILE has a column `split`. KIND is classification or regression. OUTPUT gets `predictions` (rows, classes) with their
`classes`, or (rows, 1), of the test rows, `seconds` of one pass over them, and `single` and `batches`, the seconds of
calls with 1 and with `BATCH` of them, the models loaded. Models are kept in a temporary folder.
"""

import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor

BATCH, CALLS, WARM = 64, 60, 3
"""Rows of a batch, calls that are timed, and calls before them that are not."""


def main() -> None:
    """Train on the training rows, and predict the test rows."""
    path, target, kind, minutes, output = sys.argv[1:]
    table = pd.read_csv(path)
    train, test = (table[table["split"] == name].drop(columns="split") for name in ("train", "test"))
    metric = "root_mean_squared_error" if kind == "regression" else "log_loss"
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor(target, eval_metric=metric, path=folder, verbosity=0)
        predictor.fit(train, time_limit=60 * float(minutes), presets="best_quality", num_cpus=2)
        rows = test.drop(columns=target)
        begun = time.perf_counter()
        if kind == "regression":
            predictions, classes = predictor.predict(rows).to_numpy()[:, np.newaxis], np.array([target])
        else:
            found = predictor.predict_proba(rows)
            predictions, classes = found.to_numpy(), np.array([str(name) for name in found.columns])
        seconds = time.perf_counter() - begun
        predict = predictor.predict if kind == "regression" else predictor.predict_proba
        predictor.persist()
        single, batches = (call_seconds(predict, rows, size) for size in (1, BATCH))
        np.savez(output, predictions=predictions, classes=classes, seconds=seconds, single=single, batches=batches)


def call_seconds(predict: Callable[[pd.DataFrame], object], rows: pd.DataFrame, size: int) -> list[float]:
    """Return the seconds of calls of `predict` with `size` rows each."""
    found = []
    for call in range(WARM + CALLS):
        start = call * size % (len(rows) - size + 1)
        part = rows.iloc[start : start + size]
        begun = time.perf_counter()
        predict(part)
        found.append(time.perf_counter() - begun)
    return found[WARM:]


if __name__ == "__main__":
    main()
