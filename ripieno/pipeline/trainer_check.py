"""Check of a trainer on a few samples, before a search begins."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ripieno.data.dataset import spread_rows
from ripieno.errors import RipienoError, SearchError, error_summary
from ripieno.models.policy_config import FAMILY as POLICY
from ripieno.train import TrainingConfig
from ripieno.train.evaluate import DivergedError, predict_rows
from ripieno.train.job import trial_seed
from ripieno.train.member_writer import export_model
from ripieno.train.registry import make_trainer
from ripieno.train.trainer import close, reported_values, tensors_of
from ripieno.types import SPLITS, Configuration, Dataset, Job

SAMPLES = 64
"""Training samples of the check, besides one of each class; half as many are predicted."""
POLICY_STEPS, EPISODES = 20, 2
"""Steps of an environment and episodes of a check."""


def check_trainer(config: TrainingConfig, configuration: Configuration, dataset: Dataset) -> list[str]:
    """Train one epoch on a few samples, predict and export; return remarks on what the trainer cannot do.

    Raises SearchError, in one line that names the trainer, when any of it fails: all jobs would fail.
    """
    few = _few(dataset)
    if config.trainer == POLICY:
        configuration = {**configuration, "steps": POLICY_STEPS}
    job = Job(0, configuration, 0, 1, trial_seed(config.seed, 0))
    notes = []
    try:
        trainer = make_trainer(config)
        try:
            trainer.start(job, few)
            loss = trainer.epoch()
            if loss is not None and not np.isscalar(loss):
                raise SearchError(f"epoch() returned a {type(loss).__name__}; expected the training loss or None")
            reported_values(trainer)
            predictions = predict_rows(trainer, few, few.rows("valid"))
            if few.environment:  # these are returns
                predictions = trainer.predict(np.asarray(few.inputs[few.rows("valid")]))
            if tensors_of(trainer) is None:
                notes.append(f"trainer {config.trainer} keeps no tensors: a trial that is resumed trains from its seed")
            if hasattr(trainer, "export"):
                export_model(trainer, few, few.rows("valid"), predictions)
            elif config.trainer != "network":
                notes.append(f"trainer {config.trainer} has no export: its members can be selected, but not served")
        finally:
            close(trainer)
    except RipienoError as error:
        raise SearchError(f"trainer {config.trainer!r}: {error}") from error
    except DivergedError:
        pass  # of a few samples
    except Exception as error:  # a user's trainer may raise anything
        line = error_summary(error, named=True)
        raise SearchError(f"trainer {config.trainer!r} failed on {len(few.inputs)} samples ({line})") from error
    return notes


def _few(dataset: Dataset) -> Dataset:
    """Return a data set of a few samples: one of each class, and others evenly."""
    train, predicted = dataset.rows("train"), EPISODES if dataset.environment else SAMPLES // 2
    valid = spread_rows(dataset.rows("valid"), predicted)
    chosen: NDArray[np.int64] = spread_rows(train, SAMPLES)
    if dataset.targets.ndim == 1:
        first = train[np.unique(np.asarray(dataset.targets[train]), return_index=True)[1]]
        chosen = np.union1d(chosen, first)
    rows = np.concatenate([chosen, valid])
    split = np.repeat(np.array([SPLITS.index("train"), SPLITS.index("valid")], np.uint8), [len(chosen), len(valid)])
    return dataclasses.replace(
        dataset,
        inputs=np.asarray(dataset.inputs[rows]),
        targets=np.asarray(dataset.targets[rows]),
        split=split,
        path=None,
        folds=None,
    )
