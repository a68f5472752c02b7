"""Interface of trainers.

A trainer trains one trial at a time. A class that has the methods of `Trainer` is one; it need not inherit from it.
The class may have more, each of which is optional:

    unit              what one call of `epoch` trains: `epochs` (the default), `steps` or `rounds`; shown instead of it
    tensors, load     its state as arrays, for checkpoints; without them a trial that is resumed trains from its seed
    export(path)      write the model as ONNX; without it the member can be selected, but not served
    parameters        number of its parameters
    waited()          seconds since the last call in which it waited for data
    close()           free what it holds; nothing is called after it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import ModelError
from ripieno.types import Dataset, Job, TrainingUnit

Tensors = Mapping[str, NDArray[Any]]
"""State of a trainer: an array by name."""
METHODS = ("start", "epoch", "predict")
"""Methods that a trainer must have."""


class Trainer(Protocol):
    """Trainer of one trial, made without arguments.

    Any exception of it ends the trial as failed. Randomness must come from `job.seed`, so that searches can be
    repeated.
    """

    def start(self, job: Job, data: Dataset) -> None:
        """Prepare to train `job.configuration` on `data`, from the beginning."""
        ...

    def epoch(self) -> float | None:
        """Train one unit on the training split; return the training loss, or None where there is none."""
        ...

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Predict `inputs` (samples, *shape): float32 (samples, *task.output), activated."""
        ...

    def tensors(self) -> Tensors | None:
        """Return the whole state after an epoch, or None where it cannot be kept."""
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


def unit_of(trainer: Trainer) -> TrainingUnit:
    """Return what a trainer counts; `epochs` where it does not say. Raises ModelError for another word."""
    unit: TrainingUnit = getattr(trainer, "unit", "epochs")
    if unit not in get_args(TrainingUnit):
        raise ModelError(f"unit of the trainer is {unit!r}; expected one of {', '.join(get_args(TrainingUnit))}")
    return unit


def close(trainer: Trainer) -> None:
    """Free what a trainer holds."""
    if hasattr(trainer, "close"):
        trainer.close()
