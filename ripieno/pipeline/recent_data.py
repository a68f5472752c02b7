"""Recent labelled samples: one half to select by, the other to judge what was selected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno.data.blocks import blocks
from ripieno.data.dataset import find_dataset
from ripieno.data.evaluation_data import read_evaluation_data
from ripieno.errors import DataError
from ripieno.library import Library
from ripieno.selection.losses import losses_of, sample_losses, target_scale
from ripieno.tasks.metrics import FLOOR
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Floats, Ints, Task

FEWEST = 50
"""Labelled samples at least. The error of 25 differs from the true one by 0.1 at most in two of three cases, and the
change that a drift asks for is larger."""
HEAD = 4096
"""Bytes of a sample that are compared first: of a mapped file, one page."""


@dataclass(frozen=True, eq=False)
class RecentData:
    """Labelled samples in the form of a bundle, none of which a member was trained on."""

    inputs: NDArray[Any]
    """(samples, *shape)"""
    targets: NDArray[Any]
    """as in `Dataset.targets`"""
    fingerprint: str
    """of the inputs"""
    selection: Ints
    """rows to select by"""
    judging: Ints
    """rows to judge by"""


def read_recent(
    source: Any, bundle: Bundle, libraries: Sequence[Library], seed: int, notes: list[str], options: Mapping[str, Any]
) -> RecentData:
    """Read the labelled samples of `source`, without those that the libraries' members were trained on.

    They are divided in two halves, stratified as splits are. `options` are those of `read_evaluation_data`. Raises
    DataError as that function, and for fewer samples than `FEWEST`.
    """
    found = read_evaluation_data(source, bundle.input, bundle.task, notes=notes, **options)
    inputs = np.concatenate([batch for _, batch in found.batches(bundle.input)])
    targets = np.asarray(found.targets)
    fresh = np.ones(len(inputs), np.bool_)
    for library in libraries:
        trained = fresh & is_trained_on(inputs, library)
        if trained.any():
            held = f"{trained.sum():,} recent samples are left out"
            notes.append(f"{held}: {library.path} was trained on them, so they would flatter its members")
        fresh &= ~trained
    inputs, targets = np.ascontiguousarray(inputs[fresh]), targets[fresh]
    if len(inputs) < FEWEST:
        rest = "" if fresh.all() else ", without those trained on"
        raise DataError(
            f"there are {len(inputs)} recent samples with labels{rest}; expected at least {FEWEST}: "
            "one half selects, the other judges"
        )
    digest = hashlib.blake2b(f"{inputs.shape} {inputs.dtype}".encode(), digest_size=8)
    for block in blocks(inputs):
        digest.update(inputs[block].tobytes())
    strata = kind_of(bundle.task).strata(targets)
    return RecentData(inputs, targets, digest.hexdigest(), *halves(strata, len(inputs), seed))


def halves(strata: Ints | None, samples: int, seed: int) -> tuple[Ints, Ints]:
    """Divide rows in two halves, each with about half of every stratum; the first has an odd row more."""
    random = np.random.default_rng(seed).permutation(samples)
    order = random if strata is None else np.lexsort((random, strata))
    return np.sort(order[::2]), np.sort(order[1::2])


def is_trained_on(inputs: NDArray[Any], library: Library) -> NDArray[np.bool_]:
    """Return whether each of `inputs` (samples, *shape) is one of the training samples of a library, value by value."""
    dataset = find_dataset(library.dataset_path)
    if dataset is None or dataset.inputs.shape[1:] != inputs.shape[1:] or dataset.inputs.dtype != inputs.dtype:
        return np.zeros(len(inputs), np.bool_)
    flat = inputs.reshape(len(inputs), -1)
    first = max(1, HEAD // inputs.dtype.itemsize)
    places: dict[bytes, list[int]] = {}
    for row, sample in enumerate(flat):
        places.setdefault(sample[:first].tobytes(), []).append(row)
    found = np.zeros(len(inputs), np.bool_)
    trained = dataset.inputs.reshape(len(dataset.inputs), -1)
    for other in dataset.rows("train"):
        for row in places.get(trained[other, :first].tobytes(), ()):
            found[row] |= flat[row].tobytes() == trained[other].tobytes()
    return found


def paired_losses(loss: str, predictions: NDArray[Any], targets: NDArray[Any], task: Task) -> tuple[str, Floats]:
    """Return the loss of each sample (samples,) and its name: `loss`, or that of the task where it is no mean of these.

    The squared error of several targets is divided by their variances, as when members are selected.
    """
    kind = kind_of(task)
    if kind.is_pixelwise:
        own = [_mean_loss(kind.likelihood(predictions[i : i + 1], targets[i : i + 1])) for i in range(len(targets))]
        return losses_of(kind)[0], np.array(own)
    if loss == "squared-error" and targets.ndim == 2 and targets.shape == predictions.shape:
        scale = target_scale(targets)
        predictions, targets = predictions / scale, targets / scale
    found = sample_losses(loss, predictions, targets)
    return (loss, found) if found is not None else paired_losses(losses_of(kind)[0], predictions, targets, task)


def _mean_loss(likelihood: NDArray[Any] | None) -> float:
    """Return the mean loss of the counted pixels of a mask; 0 without any."""
    assert likelihood is not None
    logs = -np.log(np.maximum(likelihood.astype(np.float64), FLOOR))
    return float(logs.mean()) if logs.size else 0.0
