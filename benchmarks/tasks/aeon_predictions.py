"""Predictions of a set's test series by methods of aeon and scikit-learn, in an environment that has aeon, not ripieno.

    PYTHON benchmarks/tasks/aeon_predictions.py DATA SET KIND SEED OUTPUT.json

DATA holds a folder SET with SET_TRAIN.ts and SET_TEST.ts. KIND is classification or regression. Shorter series are
padded with zeros at the end. OUTPUT gets the accuracy, or the root of the mean squared error, on the test part by
method, and the seconds of its training and prediction on two cores.
"""

import json
import sys
import time

import numpy as np
from aeon.datasets import load_from_ts_file
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

CORES = 2


def main() -> None:
    """Train and score each method."""
    data, name, kind, seed, output = sys.argv[1:]
    parts = [load_from_ts_file(f"{data}/{name}/{name}_{part}.ts") for part in ("TRAIN", "TEST")]
    length = max(series.shape[-1] for inputs, _ in parts for series in inputs)
    (train, y), (test, truth) = ((padded(inputs, length), np.asarray(targets)) for inputs, targets in parts)
    if kind == "regression":
        y, truth = y.astype(float), truth.astype(float)
    found = {}
    for title, model in models(kind, int(seed), train.shape[-1]).items():
        flat = title == "RandomForest"
        begun = time.perf_counter()
        model.fit(train.reshape(len(train), -1) if flat else train, y)
        predicted = model.predict(test.reshape(len(test), -1) if flat else test)
        if kind == "regression":
            score = {"rmse": float(np.sqrt(np.mean((np.asarray(predicted, float) - truth) ** 2)))}
        else:
            score = {"accuracy": float(np.mean(predicted == truth))}
        found[title] = score | {"seconds": time.perf_counter() - begun}
    with open(output, "w") as stream:
        json.dump(found, stream, indent=2)


def padded(inputs: list[np.ndarray] | np.ndarray, length: int) -> np.ndarray:
    """Return series as (samples, channels, length)."""
    return np.stack([np.pad(s, ((0, 0), (0, length - s.shape[-1]))) for s in inputs]).astype(np.float32)


def models(kind: str, seed: int, length: int) -> dict[str, object]:
    """Return the methods by name, with their default hyperparameters."""
    shared = {"random_state": seed, "n_jobs": CORES}
    if kind == "regression":
        from aeon.regression.convolution_based import MiniRocketRegressor, RocketRegressor
        from aeon.regression.interval_based import TimeSeriesForestRegressor

        found = {
            "RandomForest": RandomForestRegressor(500, **shared),
            "ROCKET": RocketRegressor(**shared),
            "TimeSeriesForest": TimeSeriesForestRegressor(n_estimators=500, **shared),
        }
        return found | ({"MiniROCKET": MiniRocketRegressor(**shared)} if length >= 9 else {})
    from aeon.classification.convolution_based import MiniRocketClassifier

    found = {"RandomForest": RandomForestClassifier(500, **shared)}
    return found | ({"MiniROCKET": MiniRocketClassifier(**shared)} if length >= 9 else {})


if __name__ == "__main__":
    main()
