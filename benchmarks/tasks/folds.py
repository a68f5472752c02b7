"""Validation of small data sets: a split of its own, or folds of several numbers.

    python benchmarks/tasks/folds.py [--draws 6]

Of each data set, n training samples are drawn, the others are test samples. CANDIDATES, models of scikit-learn, are
ranked by their validation cross-entropy: on the split made by default (a tenth of the n samples, or 20 of a class with
80 and more; the model is trained on the others), or out of K folds (it is refitted on all n). Given are the test
cross-entropy of the model ranked first, in excess of the best candidate trained on all n, and the mean difference of
candidates' validation accuracies from their test accuracies: means over draws, 95 % intervals by Student's t.
Writes benchmarks/results/tasks-folds.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
import numpy as np
from record import record
from seeds import interval
from sklearn.base import ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ripieno.data.folds import make_folds
from ripieno.data.samples import UNASSIGNED
from ripieno.data.splits import split_samples
from ripieno.types import classification

SETS = {
    "digits": (load_digits, (60, 200, 500, 1000)),
    "wine": (load_wine, (40, 80)),
    "breast cancer": (load_breast_cancer, (60, 160)),
}
"""Data sets, and the numbers of their training samples."""
FOLDS = (3, 5, 10)
LEAST = 1e-3
"""Least probability of a class: a model that is certain and wrong has a finite loss."""
CANDIDATES: list[ClassifierMixin] = [
    *(make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=100)) for c in (1e-3, 1e-2, 0.1, 1.0)),
    *(make_pipeline(StandardScaler(), KNeighborsClassifier(k)) for k in (1, 3, 9)),
    *(make_pipeline(StandardScaler(), GaussianNB(var_smoothing=s)) for s in (1e-3, 0.1)),
    ExtraTreesClassifier(10, min_samples_leaf=2, random_state=0),
]


def predicted(model: ClassifierMixin, x: Any, y: Any, inputs: Any, classes: int) -> Any:
    """Return the probabilities (samples, classes) of `inputs` by a copy of `model` trained on `x` and `y`."""
    fitted = clone(model).fit(x, y)
    whole = np.full((len(inputs), classes), LEAST)
    whole[:, fitted.classes_] = np.maximum(fitted.predict_proba(inputs), LEAST)
    return whole / whole.sum(axis=1, keepdims=True)


def draw(x: Any, y: Any, samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return for each way to validate the excess test loss of its choice, and the mean error of its accuracies."""
    classes = int(y.max()) + 1
    names, labels = classification([str(i) for i in range(classes)]), np.arange(classes)
    own, others = train_test_split(np.arange(len(y)), train_size=samples, stratify=y, random_state=seed)
    order = np.concatenate([own, others[:500]])
    x, y = x[order], y[order].astype(np.int64)
    test = np.arange(len(y)) >= samples
    given = np.where(test, 2, UNASSIGNED).astype(np.int8)

    def loss(predictions: Any, at: Any) -> float:
        return float(log_loss(y[at], predictions, labels=labels))

    def accuracy(predictions: Any, at: Any) -> float:
        return float((predictions.argmax(axis=1) == y[at]).mean())

    refits = [predicted(model, x[~test], y[~test], x[test], classes) for model in CANDIDATES]
    best = min(loss(p, test) for p in refits)
    split = split_samples(y, given, None, seed)
    held = [predicted(model, x[split == 0], y[split == 0], x[split != 0], classes) for model in CANDIDATES]
    valid, rest = split[split != 0] == 1, split[split != 0] == 2
    found = {"split": ranked([(h[valid], h[rest]) for h in held], split == 1, test, loss, accuracy, best)}
    whole = np.where(split == 1, 0, split).astype(np.uint8)
    for count in FOLDS:
        folds = make_folds(y, whole, names, count, seed)
        outs = []
        for model in CANDIDATES:
            out = np.empty((len(y), classes))
            for fold in range(count):
                train, own = ~test & (folds != fold), folds == fold
                out[own] = predicted(model, x[train], y[train], x[own], classes)
            outs.append(out[~test])
        found[f"{count} folds"] = ranked(list(zip(outs, refits, strict=True)), ~test, test, loss, accuracy, best)
    return found


def ranked(pairs: Any, valid: Any, test: Any, loss: Any, accuracy: Any, best: float) -> tuple[float, float]:
    """Return the excess test loss of the model with the least validation loss, and the mean error of accuracies."""
    chosen = min(pairs, key=lambda pair: loss(pair[0], valid))
    errors = [abs(accuracy(v, valid) - accuracy(t, test)) for v, t in pairs]
    return loss(chosen[1], test) - best, float(np.mean(errors))


def main() -> None:
    """Print a line for each set, number of samples and way to validate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=6)
    warnings.simplefilter("ignore")  # of fits that are cut short
    draws = parser.parse_args().draws
    rows: list[dict[str, Any]] = []
    for name, (read, sizes) in SETS.items():
        data = read()
        for samples in sizes:
            found = [draw(data.data, data.target, samples, seed) for seed in range(draws)]
            for way in found[0]:
                excess, error = (interval([f[way][i] for f in found], 1) for i in (0, 1))
                rows.append({"set": name, "train": samples, "validation": way, "excess loss": excess, "error": error})
                print(*rows[-1].values(), flush=True)
    record("tasks-folds", {"draws": draws}, rows)


if __name__ == "__main__":
    main()
