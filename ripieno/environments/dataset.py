"""Data set of an environment, whose samples are the episodes that validate and test policies."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ripieno.data.dataset import moments
from ripieno.data_kinds import kind_by_axes
from ripieno.environments.source import check_steps, make_environment, task_of
from ripieno.errors import DataError
from ripieno.tasks.policy import LARGEST_SEED
from ripieno.types import SPLITS, Dataset

EPISODES = 12
"""Episodes that validate a policy, and as many that test it, where the user does not choose."""
MOST_EPISODES = 10_000


def environment_dataset(name: str, seed: int = 0, episodes: int = EPISODES, trusted: Collection[str] = ()) -> Dataset:
    """Return the data set of environment `name`: the episodes that validate and test policies, and none to train on.

    Of an episode it has the seed, which is drawn by `seed`, and the first observation. Raises DataError for an
    environment that cannot be made, reset or stepped: see `make_environment`.
    """
    if not 1 <= episodes <= MOST_EPISODES:
        raise DataError(f"episodes are {episodes}: there must be 1 to {MOST_EPISODES:,} (--episodes)")
    environment = make_environment(name, trusted)
    try:
        task = task_of(environment)
        check_steps(environment)
        seeds = np.random.default_rng(seed).choice(LARGEST_SEED, 2 * episodes, replace=False)
        inputs = np.stack([environment.reset(seed=int(one))[0] for one in seeds])
    finally:
        environment.close()
    split = np.repeat(np.array([SPLITS.index("valid"), SPLITS.index("test")], np.uint8), episodes)
    kind = kind_by_axes(inputs.shape[1:])
    mean, std = moments(inputs, np.arange(len(inputs)))
    span = (float(inputs.min()), float(inputs.max())) if kind == "image" else None
    targets = seeds[:, None].astype(np.float32)
    return Dataset(name, inputs, targets, split, task, mean, std, kind, None, span, environment=name)
