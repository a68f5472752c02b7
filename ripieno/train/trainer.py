"""Interface of trainers.

A trainer trains one trial. A class with `start`, `epoch` and `predict` of `Trainer` is one; it need not inherit from
it. For each job an instance is made without arguments. The calls are, in this order:

    start(job, data)                       once
    load(tensors)                          where the trial has a checkpoint
    epoch(), predict(validation inputs), tensors()      until the trial has been trained to `job.stop`
    export(path)                           once
    close()                                once, even after an error

What the methods read:

    job.configuration      a value by name of the hyperparameters of the space, such as {"C": 3.2}
    job.seed               seed of the trial, the only source of randomness
    data.rows("train")     indices of the training samples, (samples,) int64
    data.inputs[rows]      (samples, *shape) uint8 or float32, channels last, not normalised
    data.targets[rows]     classes: (samples,) int64; labels: (samples, labels) 0 and 1; values: (samples, targets)
    data.task              its `kind`, `output` (the shape of one prediction) and `names`

Of a data set of an environment, `predict_rows` gives the returns (samples, 1) of episodes, and the attribute
`policy_output` says what `predict` answers to observations: see `ripieno.train.policy_trainer`.

Of a data set with folds an instance is made for each fold and one for all samples, all with the same job: see
`ripieno.train.folds`. `data.rows("valid")` of the last are its training samples; stop no training by them.

These are optional:

    unit              what one call of `epoch` trains: `epochs` (the default), `steps` or `rounds`; shown instead of it
    tensors, load     its state as arrays, for checkpoints; without them a trial that is resumed trains from its seed
    apart             names of tensors too large for a checkpoint: each has a `.npy` file of its own
    export(path)      write the model as ONNX; without it the member can be selected, but not served. The file has one
                      input, (batch, *shape) of the data's dtype, and its first output is that of `predict`
    predict_rows      predictions of samples by their rows in the data set, or None: then `predict` gets the inputs
    parameters        number of its parameters
    on_batch          a function of the batches done and all batches of an epoch; it is set before the first epoch, and
                      the trainer calls it after batches, so that a search shows them
    waited()          seconds since the last call in which it waited for data
    close()           free what it holds; nothing is called after it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import ModelError
from ripieno.types import Dataset, Job, TrainingUnit

Tensors = Mapping[str, NDArray[Any]]
"""State of a trainer: an array by name."""
BatchReport = Callable[[int, int], None]
"""Function of the batches done and of all batches of an epoch."""
METHODS = ("start", "epoch", "predict")
"""Methods that a trainer must have."""


class Trainer(Protocol):
    """Trainer of one trial, made without arguments.

    Any exception of it ends the trial as failed. Randomness must come from `job.seed`, so that searches can be
    repeated.
    """

    def start(self, job: Job, data: Dataset) -> None:
        """Prepare to train `job.configuration` on the training split of `data`, from the beginning."""
        ...

    def epoch(self) -> float | None:
        """Train one unit on the training split; return the training loss, or None where there is none."""
        ...

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output).

        Probabilities of a class sum to 1; those of labels are each from 0 to 1; values have the target's unit. A single
        target is a column, too: (samples, 1).
        """
        ...

    def tensors(self) -> Tensors | None:
        """Return the whole state after an epoch, arrays by name, or None where it cannot be kept.

        With None, a trial that is promoted or resumed trains again from `job.seed`.
        """
        ...

    def load(self, tensors: Tensors) -> None:
        """Continue from `tensors`; called after `start`."""
        ...


def tensors_of(trainer: Trainer) -> Tensors | None:
    """Return the state of a trainer; None for one that keeps none. Raises ModelError when it is no dict of arrays."""
    tensors = trainer.tensors() if hasattr(trainer, "tensors") and hasattr(trainer, "load") else None
    if tensors is None:
        return None
    found = tensors.items() if isinstance(tensors, Mapping) else [("", tensors)]
    for name, array in found:
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            where = f" at {name!r}" if name else ""
            raise ModelError(
                f"tensors() of the trainer returned a {type(array).__name__}{where}; expected NumPy arrays"
            )
    return tensors


def reported_names(trainer: Trainer) -> tuple[str, ...]:
    """Return the names of the numbers that a trainer reports, its attribute `reports`; none where it has none."""
    return tuple(getattr(trainer, "reports", ()))


def reported_values(trainer: Trainer) -> dict[str, float]:
    """Return the numbers that a trainer reports after an epoch, by name: its `values()`, where it has `reports`.

    Raises ModelError where one of these is missing or no finite number.
    """
    names = reported_names(trainer)
    found = trainer.values() if names else {}  # type: ignore[attr-defined]
    for name in names:
        value = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise ModelError(f"values() of the trainer returned {value!r} for {name}; expected a finite number")
    return {name: float(found[name]) for name in names}


def unit_of(trainer: Trainer) -> TrainingUnit:
    """Return what a trainer counts; `epochs` where it does not say. Raises ModelError for another word."""
    unit: TrainingUnit = getattr(trainer, "unit", "epochs")
    if unit not in get_args(TrainingUnit):
        raise ModelError(f"unit of the trainer is {unit!r}; expected one of {', '.join(get_args(TrainingUnit))}")
    return unit


def report_batches(trainer: Trainer, report: BatchReport) -> None:
    """Have a trainer call `report` after its batches, where it can."""
    if hasattr(trainer, "on_batch"):
        trainer.on_batch = report


def ignore_batch(done: int, total: int) -> None:
    """Do nothing: the report of a trainer whose batches are not followed."""


def close(trainer: Trainer) -> None:
    """Free what a trainer holds."""
    if hasattr(trainer, "close"):
        trainer.close()
