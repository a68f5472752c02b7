"""Unknown inputs: how well the answers of searched libraries tell them from known ones.

    python benchmarks/uncertainty/unknown.py [SET ...] --runs FOLDER [--seeds 0 1 2] [--trials 16] [--epochs 9]
        [--data ../shared/data]

SET is plankton88 or fashion14: see `searched.py`, which searches what is missing. Known inputs are the test split.
Unknown ones of plankton88: the plankton of its rare classes, none of which is trained on, and Fashion-MNIST, inverted
to dark on white. Unknown ones of fashion14: the digits of scikit-learn, and the plankton, inverted to white on dark.
The AUROC is the probability that an unknown input has a larger number than a known one: 0.5 is chance. The ensemble
costs at most as many operations as four median members, and so does the best single network, which is calibrated, too.
Its mutual information is zero.
Writes benchmarks/results/uncertainty-unknown.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import numpy as np
import sets
from numpy.typing import NDArray
from searched import BUDGET, COST, SIDE, arguments, chosen, networks, one_thread, rare, resized, search
from seeds import by_seed, interval, record_seeds
from sklearn.datasets import load_digits

import ripieno
from ripieno.data.dataset import BATCH
from ripieno.library.evaluate import evaluate, open_member
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.tasks.calibration import calibrated_members, combine_members
from ripieno.tasks.combiners import member_shares
from ripieno.tasks.detection import detection_area
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble

SIDES = {"plankton88": SIDE, "fashion14": 14, "digits": 8}
"""Pixels of a side of the images of each set."""
SAMPLES = 4000
"""Images of another data set that are taken as unknown, at most."""
NUMBERS = ("mutual information", "entropy", "largest probability")


def unknown_inputs(name: str, seed: int, data: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the names of unknown inputs of a set, and the inputs."""
    rng = np.random.default_rng([seed, 2])
    if name == "plankton88":
        yield "rare plankton", rare(data)
        images = sets.read_packed(data / "fashion_mnist" / "test_images.npy.xz")[..., None]
        yield "clothes", 255 - resized(images[rng.permutation(len(images))[:SAMPLES]], SIDES[name])
    elif name == "digits":
        yield "noise", rng.integers(0, 256, (500, SIDES[name], SIDES[name], 1), np.uint8)
    else:
        digits = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
        yield "digits", resized(digits, SIDES[name])
        packed = sets.read_packed(data / "plankton" / "plankton.npz.xz")
        rows = rng.permutation(len(packed["label"]))[:SAMPLES]
        yield "plankton", 255 - sets.padded_plankton(rows, packed, SIDES[name])


def doubts(members: NDArray[Any], combined: NDArray[Any], ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    """Return the numbers (samples,) that are larger on unknown inputs, as `ripieno evaluate --unknown` has them."""
    kind = kind_of_classes()
    return {
        "mutual information": kind.member_disagreement(members, member_shares(ensemble)),
        "entropy": np.asarray(kind.entropy(combined)),
        "largest probability": 1 - np.asarray(kind.confidence(combined)),
    }


def of_test(library: ripieno.Library, ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    """Return the numbers of the test samples."""
    evaluate(library, ensemble.members)
    blocks = [doubts(b.members, b.combined, ensemble) for b in combined_blocks(library, ensemble, "test")]
    return {name: np.concatenate([block[name] for block in blocks]) for name in NUMBERS}


def of_inputs(library: ripieno.Library, ensemble: Ensemble, inputs: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the numbers of other inputs."""
    predictions = []
    for member in ensemble.members:
        runner = open_member(library, member)
        parts = [np.asarray(runner.infer(inputs[at : at + BATCH])) for at in range(0, len(inputs), BATCH)]
        predictions.append(np.concatenate(parts))
        runner.close()
    members = calibrated_members(predictions, ensemble, kind_of_classes())
    return doubts(members, combine_members(members, ensemble, kind_of_classes()), ensemble)


def kind_of_classes() -> Any:
    """Return the kind of task of all sets."""
    return kind_of(ripieno.types.classification(("a", "b")))


def rows(name: str, seed: int, library: ripieno.Library, data: Path) -> list[dict[str, Any]]:
    """Return a row for each kind of unknown inputs and each number, of the ensemble and of the best single network."""
    found = []
    inputs = dict(unknown_inputs(name, seed, data))
    for of, ensemble in chosen(library).items():
        known = of_test(library, ensemble)
        for unknown, images in inputs.items():
            numbers = of_inputs(library, ensemble, images)
            for number in NUMBERS:
                if number == NUMBERS[0] and len(ensemble.members) == 1:
                    continue
                area = detection_area(known[number], numbers[number])
                row: dict[str, Any] = {"known": name, "unknown": unknown, "seed": seed, "of": of, "by": number}
                row |= networks(library) | {"members": len(ensemble.members), "known samples": len(known[number])}
                row |= {"unknown samples": len(images), "accuracy": ensemble.losses["test_accuracy"]}
                found.append(row | {"AUROC": area.value, "low": area.low, "high": area.high})
    return found


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds; of one seed, the interval is that of its samples."""
    lines = []
    for key, group in by_seed(found, "known", "unknown", "of", "by").items():
        line: dict[str, Any] = dict(zip(("known", "unknown", "of", "by"), key, strict=True))
        first, values = next(iter(group.values())), [row["AUROC"] for row in group.values()]
        line["seeds"] = len(group)
        for word in ("trials", "library", "members"):
            line[word] = float(np.mean([row[word] for row in group.values()]))
        line |= {word: first[word] for word in ("known samples", "unknown samples")}
        line["accuracy %"] = interval([row["accuracy"] for row in group.values()], 100)
        line["AUROC"] = interval(values, 1) if len(values) > 1 else f"{values[0]:.4f}"
        line["from"], line["to"] = (min(r["low"] for r in group.values()), max(r["high"] for r in group.values()))
        lines.append(line)
    return sorted(lines, key=lambda line: (line["known"], line["unknown"]))


def main() -> None:
    """Measure all sets and seeds and record the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("plankton88", "fashion14"))
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for seed in options.seeds:
        for name in options.sets:
            found += rows(name, seed, search(name, seed, options), options.data)
    settings = {"epochs": options.epochs, "budget": f"{BUDGET} median {COST}"}
    note = "from, to: the least and largest end of the 95 % intervals over samples, of all seeds"
    record_seeds("uncertainty-unknown", settings, summary(found), found, note)


if __name__ == "__main__":
    main()
