"""Targets of samples as exact text, which tables hold and read back."""

from __future__ import annotations

from typing import Any

from ripieno.types import Task

SEPARATOR = "|"
"""Sign between the labels, or the values, of a sample in text; a sample without labels may have it alone."""


def target_text(target: Any, task: Task) -> str:
    """Return the target of a sample as in `Dataset` as text: a class, `a|b` of labels, `1.5|2` of values."""
    if getattr(target, "ndim", 0) == 0:
        return task.names[int(target)]
    if target.dtype.kind == "f":
        return SEPARATOR.join(f"{value:.9g}" for value in target)
    return SEPARATOR.join(name for name, present in zip(task.names, target, strict=True) if present)
