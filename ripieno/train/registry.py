"""The trainers, by name: the built-in ones, or a user's own `module:Class`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import cast

from ripieno.errors import ModelError, error_summary
from ripieno.models.user_code import import_named, is_user_code
from ripieno.train.network_trainer import NetworkTrainer
from ripieno.train.policy_trainer import PolicyTrainer
from ripieno.train.trainer import METHODS, Trainer, close, reported_names, unit_of
from ripieno.train.training_config import TrainingConfig
from ripieno.train.trees import ExtraTreesTrainer, LightGBMTrainer, RandomForestTrainer
from ripieno.types import TrainingUnit

TRAINERS: Mapping[str, Callable[[TrainingConfig], Trainer]] = {
    "network": NetworkTrainer,
    "trees:lightgbm": LightGBMTrainer,
    "trees:random-forest": RandomForestTrainer,
    "trees:extra-trees": ExtraTreesTrainer,
    "policy": PolicyTrainer,
}
"""The built-in trainers."""


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


def find_unit(config: TrainingConfig) -> TrainingUnit:
    """Return what the trainer of `config` counts. Raises ModelError where there is no trainer, or for another word."""
    trainer = make_trainer(config)
    try:
        return unit_of(trainer)
    except ModelError as error:
        raise ModelError(f"trainer {config.trainer!r}: {error}") from error
    finally:
        close(trainer)


def find_reports(config: TrainingConfig) -> tuple[str, ...]:
    """Return the names of the numbers that the trainer of `config` reports. Raises ModelError where there is none."""
    trainer = make_trainer(config)
    try:
        return reported_names(trainer)
    finally:
        close(trainer)


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
