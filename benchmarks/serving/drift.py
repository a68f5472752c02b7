"""What re-selection by recent labels gains when data change: drifted images, other shares of classes, and a stream.

    python benchmarks/serving/drift.py [--parts images labels stream] [--draws 10] [--data ../shared/data]

images: twenty multilayer perceptrons of scikit-learn on 14 x 14 pixels of Fashion-MNIST, half of them trained on images
that are changed at random; ten draws of 50 or 100 labelled samples for each of nine drifts and for none.
labels: the mean of 23 recorded CIFAR-100 networks on 1,000 test images whose classes are drawn from a Dirichlet
distribution.
stream: decision trees on a stream of network flows, in blocks of 500 rows; re-selected after each block by the last 100
of its rows; `growing` adds two trees trained on each four blocks.

At most five members are deployed. Selection, halves and gate are those of `ripieno reselect`, on arrays, without a
server. Errors are in percent, of samples that chose nothing. Writes benchmarks/results/serving-drift-PART.{json,txt}.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import lzma
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
from libraries import cifar100
from record import record

from ripieno.pipeline.recent_data import halves
from ripieno.pipeline.reselection import STANDARD_ERRORS
from ripieno.selection import Choice, select_members
from ripieno.tasks.label_shift import correct_prior, estimate_prior, reweigh

DATA = Path(__file__).parents[3] / "shared" / "data"
MEMBERS, MOST, CLASSES = 20, 5, 10
Images = np.ndarray
"""(samples, 28, 28), 0..255, single precision"""


def _half_inverted(x: Images, _: np.random.Generator) -> Images:
    return np.concatenate([x[:, :, :14], 255 - x[:, :, 14:]], axis=2)


def _occluded(x: Images, dice: np.random.Generator) -> Images:
    x = x.copy()
    for image, (top, left) in zip(x, dice.integers(0, 17, (len(x), 2)), strict=True):
        image[top : top + 12, left : left + 12] = 0
    return x


DRIFTS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "clean": lambda x, _: x,
    "rotation by 40 degrees": lambda x, _: ndimage.rotate(x, 40, (1, 2), reshape=False, order=1),
    "noise": lambda x, dice: np.clip(x + dice.normal(0, 80, x.shape), 0, 255),
    "half inverted": _half_inverted,
    "brightness": lambda x, _: np.clip(x + 80, 0, 255),
    "contrast": lambda x, _: 0.3 * x,
    "blur": lambda x, _: ndimage.gaussian_filter(x, (0, 2, 2)),
    "shift by 5 pixels": lambda x, _: ndimage.shift(x, (0, 5, 5), order=0),
    "occlusion": _occluded,
    "a quarter of the resolution": lambda x, _: x[:, 2::4, 2::4].repeat(4, 1).repeat(4, 2),
}


def _augmented(x: Images, dice: np.random.Generator) -> Images:
    """Change each image by a random rotation, shift, blur, noise and contrast."""
    changed = np.empty_like(x)
    for i, image in enumerate(x):
        one = ndimage.rotate(image, dice.uniform(-45, 45), reshape=False, order=1)
        one = ndimage.shift(one, dice.uniform(-4, 4, 2), order=0)
        one = ndimage.gaussian_filter(one, dice.uniform(0, 1.5))
        changed[i] = one * dice.uniform(0.3, 1) + dice.uniform(0, 60) + dice.normal(0, dice.uniform(0, 50), one.shape)
    return np.clip(changed, 0, 255)


def _flat(x: Images) -> np.ndarray:
    return x.reshape(len(x), 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(x), -1) / 255


def _select(predictions: np.ndarray, labels: np.ndarray) -> Choice:
    return select_members(predictions, labels, np.ones(len(predictions)), float(MOST), prune=1.0, cv=0)


def _gated(predictions: np.ndarray, labels: np.ndarray, deployed: np.ndarray, seed: int) -> Choice | None:
    """Return the new choice if it beats the `deployed` probabilities (samples, classes) beyond chance, else None."""
    chosen, judged = halves(labels, len(labels), seed)
    choice = _select(predictions[:, chosen], labels[chosen])
    rows = np.arange(len(judged)), labels[judged]
    new, old = choice.combine(predictions[:, judged])[rows], deployed[judged][rows]
    gain = np.log(np.maximum(new, 1e-12)) - np.log(np.maximum(old, 1e-12))
    if _error(choice.combine(predictions[:, judged]), labels[judged]) > _error(deployed[judged], labels[judged]):
        return None
    return choice if gain.mean() > STANDARD_ERRORS * gain.std(ddof=1) / len(gain) ** 0.5 else None


def _error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((probabilities.argmax(axis=1) != labels).mean())


def images(data: Path, draws: int) -> list[dict[str, object]]:
    """Return a row for each drift of Fashion-MNIST."""
    folder, dice = data / "fashion_mnist", np.random.default_rng(0)
    with lzma.open(folder / "train_images.npy.xz") as file:
        pictures = np.load(file)[:8000].astype(np.float32)
    labels = np.load(folder / "train_labels.npy")[:8000].astype(np.int64)
    trained, valid = slice(0, 6000), slice(6000, 8000)
    members = []
    for number in range(MEMBERS):
        rows = dice.permutation(6000)[:3000]
        own = pictures[trained][rows]
        own = _augmented(own, dice) if number % 2 else own
        width, decay = int(dice.integers(32, 129)), float(10 ** dice.uniform(-5, -1))
        network = MLPClassifier((width,), alpha=decay, max_iter=int(dice.integers(8, 16)), random_state=number)
        members.append(network.fit(_flat(own), labels[trained][rows]))

    def predict(x: Images) -> np.ndarray:
        return np.stack([member.predict_proba(_flat(x)) for member in members])

    deployed = _select(predict(pictures[valid]), labels[valid])
    with lzma.open(folder / "test_images.npy.xz") as file:
        unseen = np.load(file)[:3000].astype(np.float32)
    truth = np.load(folder / "test_labels.npy")[:3000].astype(np.int64)
    found = []
    for name, drift in DRIFTS.items():
        answers = predict(drift(unseen, np.random.default_rng(1)))
        old = deployed.combine(answers)
        own = answers[list(deployed.members)]
        errors: dict[str, list[float]] = {"deployed": []}
        exchanged = 0
        for seed in range(draws):
            order = np.random.default_rng(seed).permutation(len(truth))
            rest = order[100:]
            errors["deployed"].append(_error(old[rest], truth[rest]))
            for title, pool, count in (("reselected 50", answers, 50), ("reselected 100", answers, 100),
                                       ("reweighted 100", own, 100)):  # fmt: skip
                rows = order[:count]
                choice = _gated(pool[:, rows], truth[rows], old[rows], seed)
                after = old if choice is None else choice.combine(pool)
                errors.setdefault(title, []).append(_error(after[rest], truth[rest]))
                exchanged += title == "reselected 100" and choice is not None
        found.append({"drift": name, **{t: float(np.mean(e)) for t, e in errors.items()}, "exchanged": exchanged})
    drifted = found[1:]
    means = {key: float(np.mean([row[key] for row in drifted])) for key in errors}
    return [*found, {"drift": "mean of the drifts", **means, "exchanged": sum(row["exchanged"] for row in drifted)}]


def labels(_: Path, draws: int) -> list[dict[str, object]]:
    """Return a row for each concentration of the shares of classes."""
    recorded, found = cifar100(), []
    mean, equal = recorded.cube.mean(axis=0), np.ones(100) / 100
    for concentration in (0.1, 0.3, 1.0, None):
        errors = []
        for seed in range(draws):
            dice = np.random.default_rng(seed)
            shares = equal if concentration is None else dice.dirichlet([concentration] * 100)
            weights = shares[recorded.labels]
            rows = dice.choice(len(weights), 1000, p=weights / weights.sum())
            own, truth = mean[rows], recorded.labels[rows]
            plain = reweigh(own, equal, estimate_prior(own, equal))
            errors.append([_error(one, truth) for one in (own, correct_prior(own, equal)[0], plain)])
        as_served, corrected, without = map(float, np.mean(errors, axis=0))
        shift = "none" if concentration is None else f"Dirichlet {concentration:g}"
        found.append({"shares": shift, "served": as_served, "prior auto": corrected, "no pseudo-counts": without})
    return found


def stream(data: Path, _: int) -> list[dict[str, object]]:
    """Return a row for each way to serve a stream of network flows."""
    with gzip.open(data / "streams" / "cic_0.01km.csv.gz", "rt") as file:
        _, *rows = csv.reader(file)
    table = np.array(rows, np.float32)
    inputs, truth = np.nan_to_num(table[:, :-1]), table[:, -1].astype(np.int64)
    block, first, dice = 500, 3000, np.random.default_rng(0)
    classes = int(truth.max()) + 1

    def tree(start: int, stop: int, seed: int) -> np.ndarray:
        """Return the probabilities of all rows by a tree that was trained on rows of a window."""
        depth, leaf = int(dice.integers(2, 12)), int(dice.integers(1, 30))
        model = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, max_features=0.5, random_state=seed)
        model.fit(inputs[start:stop], truth[start:stop])
        found = np.zeros((len(truth), classes))
        found[:, model.classes_] = model.predict_proba(inputs)
        return found

    starts = dice.integers(0, first - 1000, MEMBERS)
    base = [tree(start, start + 500, number) for number, start in enumerate(starts)]
    held = slice(first - 500, first)
    own = _select(np.stack([p[held] for p in base]), truth[held])
    kept = np.stack([base[m] for m in own.members])
    ways: dict[str, list[np.ndarray]] = {"static": base, "re-weighted": list(kept), "re-selected": base}
    ways["growing"] = list(base)
    served = {way: own.combine(np.stack(base)) for way in ways}
    right, exchanged = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for number, start in enumerate(range(first, len(truth), block)):
        rows = np.arange(start, min(start + block, len(truth)))
        for way in ways:
            right[way] += int((served[way][rows].argmax(axis=1) == truth[rows]).sum())
        recent = rows[-100:]
        if len(recent) < 50:
            continue
        if number % 4 == 3:  # the last 100 rows, by which it is selected, train nothing
            ways["growing"] += [tree(start - 3 * block, start + block - 100, 1000 + number + i) for i in (0, 1)]
        for way in ("re-weighted", "re-selected", "growing"):
            pool = np.stack([p[recent] for p in ways[way]])
            choice = _gated(pool, truth[recent], served[way][recent], number)
            if choice is not None:
                served[way] = choice.combine(np.stack(ways[way]))
                exchanged[way] += 1
    count = len(truth) - first
    return [
        {"way": way, "accuracy": 100 * right[way] / count, "exchanged": exchanged[way], "members": len(ways[way])}
        for way in ways
    ]


PARTS: dict[str, Callable[[Path, int], list[dict[str, object]]]] = {
    "images": images, "labels": labels, "stream": stream
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", ConvergenceWarning)
    for part in options.parts:
        started = time.process_time()
        rows = PARTS[part](options.data, options.draws)
        seconds = f"{time.process_time() - started:.0f} s of one core"
        settings = {"draws": options.draws} if part != "stream" else {}
        record(f"serving-drift-{part}", settings, rows, f"{seconds}; from arrays, without a server")


if __name__ == "__main__":
    main()
