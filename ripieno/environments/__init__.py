"""Environments of policies: found by name, made, checked; without gymnasium until one is made."""

from ripieno.environments.source import is_environment, make_environment, task_of

__all__ = ["is_environment", "make_environment", "task_of"]
