"""The kinds of tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping

from ripieno.errors import RipienoError
from ripieno.tasks.classification import Classification
from ripieno.tasks.multilabel import Multilabel
from ripieno.tasks.policy import PolicyTask
from ripieno.tasks.regression import Regression
from ripieno.tasks.segmentation import Segmentation
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Task

KINDS = (Classification(), Multilabel(), Regression(), Segmentation(), PolicyTask())
TASKS: Mapping[str, TaskKind] = {kind.name: kind for kind in KINDS}

DEFAULT_TASK = Classification.name
"""Kind of task where none is given, and that of version 1."""


def kind_of(task: Task) -> TaskKind:
    """Return the kind of `task`. Raises RipienoError for a kind that ripieno does not know."""
    if task.kind not in TASKS:
        raise RipienoError(f"task {task.kind!r} is unknown: expected {', '.join(TASKS)}")
    return TASKS[task.kind]


def check_task(task: Task, where: str, error: type[RipienoError]) -> None:
    """Raise `error`, naming `where`, unless the kind of `task` is known, and its names and output fit the kind."""
    if task.kind not in TASKS:
        raise error(f"{where}: task {task.kind!r} is unknown: expected {', '.join(TASKS)}")
    TASKS[task.kind].check_task(task, where, error)
