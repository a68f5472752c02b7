"""Environments as the source of a run's data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ripieno.environments import is_environment
from ripieno.errors import DataError, SearchError
from ripieno.models.user_code import is_user_code
from ripieno.types import Dataset

POLICY = "policy"
USED = ("task", "seed", "metric", "episodes")
"""Options of a data set that apply to one of an environment."""


def find_environment(data: Any, requested: Mapping[str, Any]) -> str | None:
    """Return the name of the environment that `data` is; None where it is no environment.

    `requested` are the options given. Raises DataError when data and task do not fit each other, or for an option that
    environments do not have.
    """
    name = str(data) if isinstance(data, str | Path) else ""
    task = requested.get("task")
    if is_environment(name) and task is None:
        raise DataError(f"{name} is an environment, for which a policy is found: add --task policy (task=)")
    if task != POLICY:
        if is_environment(name):
            raise DataError(f"{name} is an environment: its task is policy, not {task} (--task)")
        if "episodes" in requested:
            raise DataError("episodes are those of an environment, and the data are none: leave episodes out")
        return None
    if isinstance(data, Dataset) and data.environment:
        return None  # prepared
    if name and (Path(name) / "dataset.json").is_file():
        return None  # prepared
    if not is_environment(name) and not is_user_code(name):
        given = name or f"a {type(data).__name__}"
        raise DataError(
            f"task policy is that of an environment, not of {given}: give gym:ID, gem:ID, or your own as "
            "module:function"
        )
    for option, value in requested.items():
        if option not in USED and value not in ([], {}, "auto", 0, False):
            raise DataError(f"{option} does not apply to an environment: leave {option} out")
    return name


def check_named(dataset: Dataset, environment: str | None) -> None:
    """Raise DataError for a prepared data set whose environment is own code, unless it is the `environment` named."""
    kept = dataset.environment
    if kept and kept != environment and not is_environment(kept):
        raise DataError(
            f"the data set is of environment {kept}, your own code, which is run only when you name it: give {kept} as "
            "the data, with --task policy"
        )


def check_environment(dataset: Dataset, data: Any, run: Path) -> None:
    """Raise SearchError unless `data`, where given, is the environment of a run, and own code is named again."""
    kept = dataset.environment
    name = str(data) if isinstance(data, str | Path) else ""
    if data is not None and name != kept and name not in (str(run), str(dataset.path)):
        held = f"environment {kept}" if kept else "data"
        given = name or f"the {type(data).__name__} given"
        raise SearchError(f"{run} was made from {held}, not from {given}: leave it out, or use another folder (--run)")
    if name != kept and not is_environment(kept):
        raise SearchError(
            f"{run} is of environment {kept}, your own code, which is run only when you name it: "
            f"ripieno tune {kept} --run {run}"
        )
