"""Environments of policies: found by name, made, checked; without gymnasium until one is made."""

from ripieno.environments.dataset import EPISODES, environment_dataset
from ripieno.environments.source import is_environment, make_environment, task_of

__all__ = ["EPISODES", "environment_dataset", "is_environment", "make_environment", "task_of"]
