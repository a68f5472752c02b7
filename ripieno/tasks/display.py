"""Titles and texts of metrics as tables and plots show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import kind_of
from ripieno.types import RANKING_METRICS, SPLITS, Task


def score_of(task: Task | None) -> str:
    """Return the name of the score that is shown for `task`, in `METRICS`; accuracy where no task is known."""
    return "accuracy" if task is None else kind_of(task).metric_of(task)


def loss_title(task: Task) -> str:
    """Return the title of the loss by which members of `task` are ranked."""
    return METRICS[RANKING_METRICS[task.kind]].title


def metric_names(losses: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """Return the metrics that occur among `losses` of members or ensembles, of one kind of task.

    The ranking one comes first; without any they are those of a classification. Splits are left out.
    """
    found = {key.removeprefix(f"{split}_") for one in losses for key in one for split in SPLITS}
    known = [name for name in METRICS if name in found] or ["cross_entropy", "accuracy", "macro_f1"]
    return tuple(sorted(known, key=lambda name: name not in RANKING_METRICS.values()))


def format_metric(name: str, value: float | None) -> str:
    """Return the value of a metric as text, in percent where it is shown so; a dash for None."""
    return "-" if value is None else METRICS[name].format(value)
