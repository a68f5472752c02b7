"""Synthetic run of any size, made from arrays without training, with all data that a report needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ripieno.data import write_dataset
from ripieno.library import Library
from ripieno.tasks.metrics import FLOOR, losses
from ripieno.types import (
    Allocation,
    BatchProfile,
    Dataset,
    Device,
    Ensemble,
    Epoch,
    Input,
    Member,
    Placement,
    Profile,
    Split,
    classification,
)

KIND = "made-cpu"
RUNGS = (1, 3, 9)
BEGAN = 1_700_000_000.0


def make_run(
    path: Path,
    classes: Sequence[str],
    members: int = 18,
    samples: tuple[int, int, int] = (40, 80, 120),
    seed: int = 0,
    prefix: str = "",
) -> Library:
    """Make a run at `path`: data set of small images, trials of three rungs, test predictions, costs, an allocation."""
    rng = np.random.default_rng(seed)
    library = Library(path)
    dataset = make_dataset(path / "dataset", classes, samples, rng)
    made = []
    for number in range(members):
        trial, rung = divmod(number, len(RUNGS))
        skill = rng.uniform(0.3, 0.8) + 0.25 * rung
        taste = rng.normal(0, 1.2, (len(dataset.targets), len(classes)))
        answers = softmax(taste + skill * np.eye(len(classes))[dataset.targets] * 2)
        member = make_member(f"{prefix}{trial:05d}-e{RUNGS[rung]:03d}", trial, rung, dataset, answers, rng)
        for split in ("valid", "test"):
            rows = dataset.rows(split)
            if split == "valid":
                library.add(member, answers[rows].astype(np.float32), dataset.targets[rows])
            else:
                library.write_predictions(member.id, split, answers[rows].astype(np.float32), dataset.targets[rows])
        made.append(member)
    costs = rng.uniform(0.05, 0.4, members) * 2
    points = [tuple(BatchProfile(b, c * b / 2000, 0.02, 1 << 20) for b in (1, 8)) for c in costs]
    library.write_profiles(KIND, [Profile(m.id, KIND, "onnx", p) for m, p in zip(made, points, strict=True)])
    devices = (Device("cpu:0", KIND, 1 << 30, (0,)), Device("cpu:1", KIND, 1 << 30, (1,)))
    placements = tuple(Placement(m.id, f"cpu:{i % 2}", 8) for i, m in enumerate(made[:4]))
    speeds = {"throughput": 900.0, "start_throughput": 700.0, "predicted": 950.0, "bound": 1000.0, "benches": 3}
    library.write_allocation(Allocation("made", "B1", devices, placements, **speeds))  # type: ignore[arg-type]
    return library


def make_dataset(
    path: Path, classes: Sequence[str], samples: tuple[int, int, int], rng: np.random.Generator
) -> Dataset:
    total = sum(samples)
    labels = np.arange(total) % len(classes)
    images = rng.integers(0, 255, (total, 12, 16, 3), dtype=np.uint8)
    split = np.repeat(np.arange(3, dtype=np.uint8), samples)
    moments = ((127.0,) * 3, (60.0,) * 3)
    return write_dataset(
        Dataset("made", images, labels.astype(np.int64), split, classification(classes), *moments), path
    )


def make_member(
    name: str, trial: int, rung: int, dataset: Dataset, answers: NDArray[np.float64], rng: np.random.Generator
) -> Member:
    rows = dataset.rows("valid")
    found = losses(answers[rows], dataset.targets[rows], "valid")
    loss = found["valid_cross_entropy"]
    curve = tuple(Epoch(e, loss, loss * (1 + 2 / e), found["valid_accuracy"], 2.0) for e in range(1, RUNGS[rung] + 1))
    shape = tuple(int(n) for n in dataset.inputs.shape[1:])
    configuration = {
        "learning_rate": float(10 ** np.random.default_rng(trial).uniform(-4, -1)),
        "width": 4 + trial % 5,
        "optimizer": ("adam", "sgd")[trial % 2],
    }
    seconds = 2.0 * RUNGS[rung]
    return Member(
        name, trial, RUNGS[rung], "resnet", configuration, Input(shape), dataset.task, found,
        parameters=1000 + trial, seconds=seconds, curve=curve, created=BEGAN + 10 * (trial // 2) + seconds,
    )  # fmt: skip


def served(library: Library, ensemble: Ensemble, split: Split = "valid") -> NDArray[np.float64]:
    """Return the ensemble's probabilities by their definition: powers of the temperatures, and a weighted mean."""

    def heated(values: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
        powers = np.maximum(values, FLOOR) ** (1 / temperature)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    parts = zip(ensemble.members, ensemble.weights, ensemble.temperatures, strict=True)
    mean = sum(w * heated(library.predictions(m, split).astype(np.float64), t) for m, w, t in parts)
    return heated(np.asarray(mean), ensemble.temperature)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
