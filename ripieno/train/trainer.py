"""Interface of trainers, and the trainers by name.

A trainer trains one trial at a time. A class that has the methods of `Trainer` is one; it need not inherit from it.
The class may have more, each of which is optional:

    unit              what one call of `epoch` trains: `epochs` (the default), `steps`, `rounds`
    tensors, load     its state as arrays, for checkpoints; without them a trial that is resumed trains from its seed
    export(path)      write the model as ONNX; without it the member can be selected, but not served
    parameters        number of its parameters
    waited()          seconds since the last call in which it waited for data
    close()           free what it holds; nothing is called after it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ripieno.errors import ModelError, error_summary
from ripieno.models.user_code import import_named, is_user_code
from ripieno.train.training_config import TrainingConfig
from ripieno.types import Dataset, Job

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


def find_trainer(name: str, trusted: Collection[str] = ()) -> Callable[[], Trainer]:
    """Return the user's trainer class `name` (`module:Class`), imported only when it is in `trusted`.

    Raises ModelError when there is none, when it is not trusted, or when it lacks a method.
    """
    if not is_user_code(name):
        known = ", ".join(TRAINERS)
        raise ModelError(f"unknown trainer {name!r}; expected one of {known}, or your own as module:Class")
    found = import_named("trainer", name, trusted, "a class")
    if not isinstance(found, type):
        raise ModelError(f"trainer {name!r} is not a class; expected a class with {', '.join(METHODS)}")
    if lacking := [method for method in METHODS if not callable(getattr(found, method, None))]:
        raise ModelError(f"trainer {name!r} has no method {lacking[0]}; expected {', '.join(METHODS)}")
    return cast(Callable[[], Trainer], found)


def make_trainer(config: TrainingConfig) -> Trainer:
    """Make a trainer for a job of `config`. Raises ModelError where there is none."""
    if config.trainer in TRAINERS:
        return TRAINERS[config.trainer](config)
    make = find_trainer(config.trainer, (config.trainer,))
    try:
        return make()
    except Exception as error:  # a user's class may raise anything
        line = error_summary(error, named=True)
        raise ModelError(f"trainer {config.trainer!r} cannot be made without arguments ({line})") from error


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


def close(trainer: Trainer) -> None:
    """Free what a trainer holds."""
    if hasattr(trainer, "close"):
        trainer.close()


def unit_of(trainer: object) -> str:
    """Return what one call of `epoch` trains."""
    return str(getattr(trainer, "unit", "epochs"))


def _network(config: TrainingConfig) -> Trainer:
    from ripieno.train.network_trainer import NetworkTrainer

    return NetworkTrainer(config)


TRAINERS: Mapping[str, Callable[[TrainingConfig], Trainer]] = {"network": _network}
"""The built-in trainers."""
