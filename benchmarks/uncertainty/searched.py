"""Searches of the benchmarks on uncertainty, some of them on data with planted label errors.

    python benchmarks/uncertainty/searched.py [SET ...] --runs FOLDER [--seeds 0 1 2] [--trials 16] [--epochs 9]
        [--data ../shared/data] [--series FOLDER]

SET is one of these; `-random` and `-confusable` after its name plant errors in 5 % of its labels, in all splits:

fashion14, plankton20, sizes: see benchmarks/tasks/sets.py.
plankton88: the 88 classes of the plankton with at least 50 images, padded to 20 x 20 pixels; of at most 300 images of
a class, a fifth trains, a fifth validates, and the rest tests.
vowels: JapaneseVowels, series of 12 channels and 9 speakers with its own split: 270 series, validated by folds, and
370 of the test. `--series` is the folder of its folder.
digits: those of scikit-learn, 8 x 8 pixels; they need no other data, for a short trial of the benchmarks.

A wrong label is any other class (`-random`), or drawn as a random forest confuses the classes out of its bags
(`-confusable`). Searches are bounded by trials, so that they may run beside other work. Those that were interrupted
resume, finished ones are read.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import sets
from libraries import ROOT, one_thread

import ripieno
from ripieno.cli import demo
from ripieno.data import load_dataset, open_dataset, write_dataset
from ripieno.pipeline.costs import cost_table, export_members
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Ensemble

ERRORS = 0.05
"""Share of the labels that are replaced."""
PLANTED = ("random", "confusable")
BUDGET, COST = 4, "flops"
"""Budget of an ensemble, in costs of the median member, and the kind of cost."""
LEAST, MOST, SIDE = 50, 300, 20
"""Images of a class of plankton88; pixels of a side."""
SHARES = (0.2, 0.2)
"""Of its training and validation images."""
SEARCHES = (
    "fashion14",
    "fashion14-random",
    "plankton88",
    "plankton20-random",
    "vowels-random",
    "fashion14-confusable",
    "sizes",
    "plankton20-confusable",
    "vowels",
)


def plankton88(data: Path, seed: int) -> Dataset:
    """Return the classes of at least 50 images, each split by `SHARES`."""
    packed = sets.read_packed(data / "plankton" / "plankton.npz.xz")
    labels, rng = packed["label"].astype(np.int64), np.random.default_rng(seed)
    classes = np.flatnonzero(np.bincount(labels) >= LEAST)
    rows: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("train", "valid", "test")}
    for label in classes:
        own = rng.permutation(np.flatnonzero(labels == label))[:MOST]
        ends = np.round(np.cumsum(SHARES) * len(own)).astype(int)
        for name, part in zip(rows, np.split(own, ends), strict=True):
            rows[name].append(part)
    pairs = {}
    for name, parts in rows.items():
        kept = rng.permutation(np.concatenate(parts))
        pairs[name] = plankton(kept, packed), np.searchsorted(classes, labels[kept])
    return load_dataset(pairs)


def digits(data: Path, seed: int) -> Dataset:  # noqa: ARG001  they are part of scikit-learn
    """Return the digits of scikit-learn."""
    return load_dataset(demo.digits(), split=(0.3, 0.3, 0.4), seed=seed)


def rare(data: Path) -> NDArray[np.uint8]:
    """Return the images of the classes that plankton88 leaves out."""
    packed = sets.read_packed(data / "plankton" / "plankton.npz.xz")
    counts = np.bincount(packed["label"])
    return plankton(np.flatnonzero(counts[packed["label"]] < LEAST), packed)


def plankton(rows: NDArray[np.int64], packed: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return the plankton at `rows`, (rows, SIDE, SIDE, 1)."""
    return sets.padded_plankton(rows, packed, SIDE)


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return grey images (samples, height, width, 1) at `side` x `side` pixels."""
    pictures = [Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(picture) for picture in pictures])[..., None]


def plant(dataset: Dataset, kind: str, seed: int) -> Dataset:
    """Return a data set of classes with errors in a share of its labels."""
    classes = len(dataset.task.names)
    shares = np.ones((classes, classes)) if kind == "random" else confusion(dataset, seed)
    return dataclasses.replace(dataset, targets=replaced(np.asarray(dataset.targets), shares, seed))


def replaced(labels: NDArray[np.int64], shares: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return labels (samples,), some of them replaced by another class in proportion to `shares` (classes, classes)."""
    rng, found, other = np.random.default_rng([seed, 1]), labels.copy(), shares.copy()
    np.fill_diagonal(other, 0)
    for row in rng.permutation(len(labels))[: round(ERRORS * len(labels))]:
        own = other[labels[row]]
        found[row] = rng.choice(len(own), p=own / own.sum())
    return found


def confusion(dataset: Dataset, seed: int) -> NDArray[np.float64]:
    """Return how often a forest takes each class for each other one on samples out of its bags; never 0."""
    rows = np.flatnonzero(np.asarray(dataset.split) == 0)
    inputs, labels = np.asarray(dataset.inputs[rows], np.float32).reshape(len(rows), -1), dataset.targets[rows]
    forest = RandomForestClassifier(100, oob_score=True, random_state=seed).fit(np.nan_to_num(inputs), labels)
    found = np.full((len(dataset.task.names),) * 2, 0.01)
    np.add.at(found, (labels, forest.classes_[forest.oob_decision_function_.argmax(axis=1)]), 1)
    return found


def dataset_of(name: str, seed: int, options: argparse.Namespace) -> Path:
    """Prepare a data set unless its folder exists; return the folder."""
    folder = Path(options.runs) / "data" / f"{name}-{seed}"
    if (folder / "dataset.json").exists():
        return folder
    base, _, kind = name.partition("-")
    if kind:
        found = plant(open_dataset(dataset_of(base, seed, options)), kind, seed)
    elif base == "vowels":
        found = load_dataset(options.series / "JapaneseVowels", kind="series", seed=seed)
    else:
        found = {**sets.SETS, "plankton88": plankton88, "digits": digits}[base](options.data, seed)
    write_dataset(found, folder)
    return folder


def search(name: str, seed: int, options: argparse.Namespace) -> ripieno.Library:
    """Return the finished library of a data set and a seed."""
    source = dataset_of(name, seed, options)
    space = Path(options.runs) / "space-series.json" if name.startswith("vowels") else "resnet-tiny"
    if isinstance(space, Path):
        from series import write_space

        write_space(space, "classification")
    run = Path(options.runs) / "search" / f"{name}-{seed}"
    bounds = {"trials": options.trials, "epochs": options.epochs, "seed": seed}
    pool = "inline" if options.slots == 1 else "local"
    return ripieno.tune(source, run, space=str(space), free="off", slots=options.slots, pool=pool, **bounds)


def chosen(library: ripieno.Library, **options: Any) -> dict[str, Ensemble]:
    """Select an ensemble of `BUDGET` median costs, and the best network within it; `options` are those of `select`.

    Costs are numbers of operations, which other work on the machine does not change; trees, which have none, are left
    out.
    """
    export_members(library, library.members())
    costs = cost_table(library, [COST], "cpu").alone(COST)
    budget = {COST: BUDGET * float(np.median(list(costs.values())))}
    found = {"ensemble": ripieno.select(library, budget, prune=1.0, **options)[0]}
    calibrate = "members" if kind_of(library.members()[0].task).calibrates else None
    found["best single"] = ripieno.select(library, budget, method="best", prune=1.0, calibrate=calibrate, **options)[0]
    return found


def networks(library: ripieno.Library) -> dict[str, int]:
    """Return the numbers of trials that trained a network, and of the networks that they left, for a row."""
    trials = [member.trial for member in library.members() if member.trial >= 0]
    return {"trials": len(set(trials)), "library": len(trials)}


def arguments(parser: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    """Add the options common to the benchmarks of searched libraries."""
    parser.add_argument("sets", nargs="*", default=list(names), metavar="SET")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "uncertainty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--series", type=Path, default=ROOT / "runs" / "series")


def main() -> None:
    """Run all searches, seed by seed."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, SEARCHES)
    options = parser.parse_args()
    for seed in options.seeds:
        for name in options.sets:
            library = search(name, seed, options)
            print(f"{name}, seed {seed}: {len(library)} members", flush=True)


if __name__ == "__main__":
    main()
