"""Steps search-resnet and search-recipe: a slice of a search of CIFAR-100 in the paper's split, then its ensembles.

A slice goes on where the one before ended: the run is kept in the scratch folder. Ensembles are selected on the 2,000
validation images (SMOBF) under budgets of floating point operations and tested once on the 10,000 test images, on the
device. The paper reports 72.39 % after 36 hours of V100s, 77.35 % after 144 and 79.44 % after 864 (34 networks).
`recipe.json` is the space around what the field trains wide residual networks with: SGD with momentum, a cosine,
weight decay 5e-4, mirrored and moved images.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from kit import SMALL, Options, Report, random_images, read_options

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "paper"))
import sets

import ripieno
from ripieno import selection
from ripieno.backends.torch import load_network
from ripieno.data import open_dataset, write_dataset
from ripieno.models.resnet_config import megaflops
from ripieno.tasks.metrics import losses
from ripieno.train.evaluate import predict
from ripieno.types import Dataset, Member, classification

SPACES = {"search-resnet": "resnet", "search-recipe": str(Path(__file__).with_name("recipe.json"))}
EPOCHS = {"search-resnet": 27, "search-recipe": 81}
"""Most epochs of a trial."""
PER_DEVICE = 3
"""Trials that share the GPU: a slice is too short for a profile of packs."""
TESTING = 60.0
"""Seconds of a slice for selection and tests."""


def main() -> None:
    """Search for a slice, select, test."""
    options = read_options()
    report = Report(options)
    dataset = dry_dataset(options) if options.dry else cifar_dataset(options, report)
    run = options.scratch / options.step
    settings = {"space": SPACES[options.step], "epochs": EPOCHS[options.step], "per_device": PER_DEVICE}
    if options.dry:
        settings = {"space": "resnet-tiny", "epochs": 1, "pool": "inline", "trials": options.slice}
    began = time.monotonic()
    library = ripieno.tune(
        dataset,
        run,
        hours=max(10.0, options.left() - TESTING) / 3600,
        seed=0,
        free="off",
        device=options.device.partition(":")[0],
        **settings,
    )
    report.add(slice=options.slice, what="search", minutes=(time.monotonic() - began) / 60,
               members=len(library.members()), trials=len({m.trial for m in library.members()}))  # fmt: skip
    test(options, report, library)
    # an ensemble of both searches, when both have a library
    report.note("The paper, on V100s: 72.39 % after 36 hours, 77.35 % after 144, 79.44 % after 864 hours.")


def cifar_dataset(options: Options, report: Report) -> Path:
    """Prepare CIFAR-100 in the paper's split once; skip the step without its files."""
    folder = options.scratch / "cifar100"
    if not (folder / "dataset.json").exists():
        if not (options.data / "cifar100" / "labels.npz").exists():
            report.skip(f"needs CIFAR-100 in {options.data / 'cifar100'}: unpack the data, or pass --data")
        write_dataset(sets.cifar100(options.data, 60000), folder)
    return folder


def dry_dataset(options: Options) -> Path:
    """Write a few random images of four classes."""
    folder = options.scratch / "cifar100-dry"
    if not (folder / "dataset.json").exists():
        labels = np.arange(120) % 4
        split = np.repeat(np.arange(3, dtype=np.uint8), 40)
        mean = (127.5,) * 3
        write_dataset(Dataset("dry", random_images(120), labels, split, classification("abcd"), mean, mean), folder)
    return folder


def test(options: Options, report: Report, library: ripieno.Library) -> None:
    """Add the test accuracy of the best network, and of the best ensemble for each budget."""
    dataset = open_dataset(library.dataset_path)
    members = {m.id: m for m in library.members()}
    ids = list(members)
    costs = np.array([megaflops(m.configuration, SMALL) for m in members.values()])
    truth = library.true_class_probabilities(ids)
    best = min(ids, key=lambda name: members[name].loss)
    own = costs[ids.index(best)]
    known: dict[str, np.ndarray] = {}
    rows = dataset.rows("test")

    def answers(member: Member) -> np.ndarray:
        if member.id not in known:
            network = load_network(member, library.weights_path(member.id)).to(options.device)
            known[member.id] = predict(network, dataset.inputs, device=options.device, rows=rows)
        return known[member.id]

    def add(name: str, chosen: list[str], weights: np.ndarray) -> None:
        mean = np.sum([w * answers(members[m]) for m, w in zip(chosen, weights, strict=True)], axis=0)
        found = losses(mean.astype(np.float32), dataset.targets[rows], "test")
        cost = float(sum(costs[ids.index(m)] for m in chosen))
        report.add(slice=options.slice, what=name, members=len(chosen), million_multiply_adds=cost,
                   test_accuracy=found["test_accuracy"], test_cross_entropy=found["test_cross_entropy"])  # fmt: skip

    add("best network", [best], np.ones(1))
    for factor in (2, 4, 8, 16, 32):
        with report.case(slice=options.slice, what=f"SMOBF, {factor} x its cost"):
            found = selection.select_members(truth, None, costs, factor * own, prune=1.0)
            add(f"SMOBF, {factor} x its cost", [ids[i] for i in found.members], np.array(found.weights))


if __name__ == "__main__":
    main()
