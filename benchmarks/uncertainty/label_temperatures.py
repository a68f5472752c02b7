"""Whether several labels need a temperature each, or one a member is enough, by the number of validation samples.

    python benchmarks/uncertainty/label_temperatures.py [--draws 5] [--samples 100 300 1000] [--data ../shared/data]

Ten multilayer perceptrons of scikit-learn, of random width, weight decay and epochs, are trained on each data set: two
synthetic ones, of which the second has labels of very different noise, and the clothes of two overlaid pictures of
Fashion-MNIST. Temperatures of the members and of their mean are fitted to validation samples; the binary cross-entropy
is that of other samples. `one`: a temperature for all labels of a member, `each`: one for each label. Both are kept
where the evidence is strong enough. Writes
benchmarks/results/uncertainty-label-temperatures.{json,txt}.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.tasks.calibration import apply_temperature, calibrate_member, fit_temperature
from ripieno.tasks.metrics import binary_cross_entropy
from ripieno.tasks.registry import TASKS

ROOT = Path(__file__).parents[2]
LABELS = TASKS["multilabel"]
MEMBERS, TRAINED, UNSEEN = 10, 1500, 3000


def data_sets(data: Path, samples: int, generator: np.random.Generator) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield names, inputs (samples, features) and labels (samples, labels) of a draw."""
    count = TRAINED + samples + UNSEEN
    seed = int(generator.integers(1 << 30))
    yield "bags of words", *make_multilabel_classification(count, 40, n_classes=10, n_labels=3, random_state=seed)
    inputs = generator.normal(size=(count, 20))
    logits = inputs @ generator.normal(size=(20, 10)) * np.geomspace(0.1, 3, 10)
    yield "uneven noise", inputs, (generator.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    with lzma.open(data / "fashion_mnist" / "train_images.npy.xz") as file:
        pictures = np.load(file)
    classes = np.load(data / "fashion_mnist" / "train_labels.npy")
    pairs = generator.integers(0, len(classes), (count, 2))
    small = pictures.reshape(len(pictures), 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(pictures), -1)
    labels = np.zeros((count, 10), np.uint8)
    np.put_along_axis(labels, classes[pairs], 1, axis=1)
    yield "overlaid clothes", np.maximum(*small[pairs.T]), labels


def trained(inputs: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> list[Any]:
    """Return networks of random width, weight decay and number of epochs."""
    members = []
    for seed in range(MEMBERS):
        network = MLPClassifier(
            (int(generator.choice([32, 64, 128])),), alpha=10 ** generator.uniform(-5, 0),
            max_iter=int(generator.choice([10, 30, 100])), random_state=seed,
        )  # fmt: skip
        members.append(make_pipeline(StandardScaler(), network).fit(inputs, labels))
    return members


def scored(valid: list[np.ndarray], truth: np.ndarray, test: list[np.ndarray], columns: list[slice]) -> np.ndarray:
    """Return the mean of the members on `test`, calibrated on `valid` with one temperature for each of `columns`."""
    seen, unseen = np.stack(valid), np.stack(test)
    for part in columns:
        for own, other in zip(seen, unseen, strict=True):
            temperature = calibrate_member(own[:, part], truth[:, part], LABELS).temperature
            for array in (own, other):
                array[:, part] = apply_temperature(array[:, part], temperature, LABELS)
    before, after = seen.mean(axis=0), unseen.mean(axis=0)
    for part in columns:
        temperature = fit_temperature(before[:, part], truth[:, part], kind=LABELS)
        after[:, part] = apply_temperature(after[:, part], temperature, LABELS)
    return after


def main() -> None:
    """Measure all data sets and record the mean losses, with standard errors over the draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--samples", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    most = max(options.samples)
    found: dict[tuple[str, int], list[list[float]]] = {}
    for draw in range(options.draws):
        generator = np.random.default_rng(draw)
        for name, inputs, labels in data_sets(options.data, most, generator):
            members = trained(inputs[:TRAINED], labels[:TRAINED], generator)
            answers = [m.predict_proba(inputs[TRAINED:]).astype(np.float32) for m in members]
            truth = labels[TRAINED:]
            whole, every = [slice(None)], [slice(i, i + 1) for i in range(truth.shape[1])]
            for samples in options.samples:
                parts = [a[:samples] for a in answers], truth[:samples], [a[most:] for a in answers]
                means = [np.mean(parts[2], axis=0), scored(*parts, whole), scored(*parts, every)]
                losses = [binary_cross_entropy(mean, truth[most:]) for mean in means]
                found.setdefault((name, samples), []).append(losses)
                print(draw, name, samples, losses, flush=True)
    rows = []
    for (name, samples), draws in sorted(found.items()):
        none, one, each = np.array(draws).T
        row: dict[str, Any] = {"data": name, "validation samples": samples, "none": none.mean(), "one": one.mean()}
        row["each"] = each.mean()
        for title, difference in (("none - one", none - one), ("one - each", one - each)):
            row[title] = difference.mean()
            row[f"{title} error"] = difference.std(ddof=1) / len(draws) ** 0.5
        rows.append({key: float(v) if isinstance(v, np.floating) else v for key, v in row.items()})
    record("uncertainty-label-temperatures", {"draws": options.draws}, rows, "binary cross-entropy of unseen samples")


if __name__ == "__main__":
    main()
