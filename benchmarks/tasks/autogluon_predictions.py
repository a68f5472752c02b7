"""Predictions of a table's test rows by AutoGluon, in an environment that has it and not ripieno.

    PYTHON benchmarks/tasks/autogluon_predictions.py FILE.csv TARGET KIND MINUTES OUTPUT.npz

FILE has a column `split`. KIND is classification or regression. OUTPUT gets `predictions` (rows, classes) with their
`classes`, or (rows, 1), of the test rows, and `seconds` of one pass over them. Models are kept in a temporary folder.
"""

import sys
import tempfile
import time

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor


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
        np.savez(output, predictions=predictions, classes=classes, seconds=time.perf_counter() - begun)


if __name__ == "__main__":
    main()
