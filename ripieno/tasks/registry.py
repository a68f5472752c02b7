"""The kinds of tasks, by name."""

from __future__ import annotations

from collections.abc import Mapping

from ripieno.errors import RipienoError
from ripieno.tasks.classification import Classification
from ripieno.tasks.task_kind import TaskKind
from ripieno.types import Task

TASKS: Mapping[str, TaskKind] = {kind.name: kind for kind in (Classification(),)}


def kind_of(task: Task) -> TaskKind:
    """Return the kind of `task`. Raises RipienoError for a kind that ripieno does not know."""
    if task.kind not in TASKS:
        raise RipienoError(f"task {task.kind!r} is unknown: expected {', '.join(TASKS)}")
    return TASKS[task.kind]
