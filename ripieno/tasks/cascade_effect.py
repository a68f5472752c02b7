"""Effect of a cascade in words."""

from __future__ import annotations

from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import kind_of
from ripieno.types import CascadeEffect, Task


def describe_effect(effect: CascadeEffect, task: Task) -> str:
    """Return a clause: the compute saved and its cost in loss and score."""
    kind = kind_of(task)
    loss, metric = METRICS[kind.metrics[0]], METRICS[kind.default_metric]
    grown, gained = effect.loss - effect.whole_loss, effect.score - effect.whole_score
    return (
        f"saves {effect.saved:.1%} of the compute for {grown:+.4f} of {loss.title} and {gained:+.2%} of {metric.title}"
    )
