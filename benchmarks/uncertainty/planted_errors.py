"""Planted label errors: how well `suspects` finds them, by the ensemble and by the best single network.

    python benchmarks/uncertainty/planted_errors.py [SET ...] --runs FOLDER [--seeds 0 1 2] [--trials 16] [--epochs 9]
        [--data ../shared/data] [--series FOLDER]

SET is a set with errors in 5 % of its labels, of all splits: see `searched.py`, which searches what is missing. So the
members are trained on errors, selected by them, and doubted on samples that they were not trained on. The ensemble
costs at most as many operations as four median members, and so does the best single network, which is calibrated, too.

AUROC: the probability that a planted label is less likely than another one, of all samples that are judged.
precision: of the first of the list of `suspects`, as many as errors were planted, the share that were.
listed: the share of the planted errors that are in the list; list: its length in samples, by the number of errors.
suggested: the share of the listed errors whose suggestion is the label before.
By margin: AUROC when samples are ranked by the largest probability less that of the label.

Labels that were wrong before are counted as right ones, so that the precision is a little too low.
Writes benchmarks/results/uncertainty-planted-errors.{json,txt}.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray
from searched import BUDGET, COST, arguments, chosen, dataset_of, networks, one_thread, search
from seeds import by_seed, interval, record_seeds

import ripieno
from ripieno.data import open_dataset
from ripieno.library.evaluate import evaluate
from ripieno.pipeline.combined_blocks import combined_blocks
from ripieno.tasks.contradiction import contradictions
from ripieno.tasks.detection import detection_area
from ripieno.tasks.metrics import true_class
from ripieno.types import Dataset, Ensemble, Split, Task

SETS = (
    "fashion14-random",
    "fashion14-confusable",
    "plankton20-random",
    "plankton20-confusable",
    "vowels-random",
)
SHARES = ("AUROC", "by margin", "precision", "listed", "suggested")
SPLITS: tuple[Split, ...] = ("valid", "test")


def figures(library: ripieno.Library, ensemble: Ensemble, clean: Dataset) -> dict[str, float]:
    """Return the figures of an ensemble; `clean` is the data set before the errors."""
    given = open_dataset(library.dataset_path)
    evaluate(library, ensemble.members)
    combined, rows = [], []
    for split in SPLITS:
        combined += [block.combined for block in combined_blocks(library, ensemble, split)]
        rows.append(given.rows(split))
    places = np.concatenate(rows)
    found = judged(np.concatenate(combined), given.targets[places], clean.targets[places], clean.task)
    listed = [one.row for one in ripieno.suspects(library, ensemble.name).found]
    assert len(listed) == round(found["list"] * found["errors"]), "the list is what was judged"
    return found


def judged(
    predictions: NDArray[Any], given: NDArray[np.int64], true: NDArray[np.int64], task: Task
) -> dict[str, float]:
    """Return the figures of predictions (samples, classes) of `given` labels, of which some are not the `true` ones."""
    wrong, own = np.asarray(given != true), true_class(predictions, given)
    suspect = contradictions(predictions, given, task)
    number, listed = int(wrong.sum()), wrong[suspect.samples]
    margin = predictions.max(axis=1) - own
    return {
        "judged": len(wrong),
        "errors": number,
        "AUROC": detection_area(own[~wrong] * -1.0, own[wrong] * -1.0).value,
        "by margin": detection_area(margin[~wrong], margin[wrong]).value,
        "precision": float(listed[:number].sum() / number),
        "listed": float(listed.sum() / number),
        "list": len(listed) / number,
        "suggested": float((suspect.suggested == true[suspect.samples])[listed].mean()),
    }


def rows(name: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for the ensemble, and one for the best single network."""
    library = search(name, seed, options)
    clean = open_dataset(dataset_of(name.partition("-")[0], seed, options))
    return [
        {"set": name, "seed": seed, "of": of, "members": len(ensemble.members)}
        | networks(library)
        | figures(library, ensemble, clean)
        for of, ensemble in chosen(library).items()
    ]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the means over seeds, with intervals of two or more."""
    lines = []
    for (name, of), group in by_seed(found, "set", "of").items():
        line: dict[str, Any] = {"set": name, "of": of, "seeds": len(group)}
        for word in ("trials", "library", "members", "judged", "errors", "list"):
            if word in next(iter(group.values())):
                line[word] = float(np.mean([row[word] for row in group.values()]))
        lines.append(line | {word: interval([row[word] for row in group.values()], 1) for word in SHARES})
    return lines


def main() -> None:
    """Measure all sets and seeds and record the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, SETS)
    options = parser.parse_args()
    found = [row for seed in options.seeds for name in options.sets for row in rows(name, seed, options)]
    settings = {"epochs": options.epochs, "budget": f"{BUDGET} median {COST}"}
    record_seeds("uncertainty-planted-errors", settings, summary(found), found, "list: suspects by planted errors")


if __name__ == "__main__":
    main()
