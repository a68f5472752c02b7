"""Operations of augmentation that suit a data set, which a look at it decides."""

from __future__ import annotations

from ripieno.data.augmentation_check import find_unfit
from ripieno.data.augmentation_policy import OPERATIONS
from ripieno.data.table_operations import column_groups
from ripieno.types import Dataset


def fitting_operations(dataset: Dataset) -> tuple[str, ...]:
    """Return the operations that can change inputs of `dataset` and that they can bear."""
    left_out = {"identity", *(unfit.name for unfit in find_unfit(dataset))}
    if dataset.kind == "series" and dataset.inputs.shape[-1] == 1:
        left_out.add("channel-dropout")
    if dataset.kind == "table":
        groups, numbers = column_groups(dataset)
        left_out |= ({"noise"} if not numbers else set()) | ({"swap"} if len(set(groups)) == 1 else set())
    return tuple(name for name in OPERATIONS[dataset.kind] if name not in left_out)
