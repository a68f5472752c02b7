"""Augmentation of a built-in space that the data of a run can bear."""

from __future__ import annotations

from ripieno.data.augmentation_check import find_unfit
from ripieno.search.augmentation_space import leave_out, leave_out_operations
from ripieno.search.space import Space
from ripieno.types import Dataset


def fit_augmentation(space: Space, dataset: Dataset) -> tuple[Space, list[str]]:
    """Return `space` without the flips, and operations of a random policy, that images cannot bear; and notes on them.

    Ranges of `max_rotation` stay: small rotations suit most images.
    """
    has_policy = "operations" in space.ranges or bool(space.fixed.get("operations"))
    if not has_policy and "flip" not in space.ranges:
        return space, []
    notes = []
    for unfit in find_unfit(dataset):
        fitted = leave_out(space, ["flip"]) if unfit.name == "flip" else space
        fitted = leave_out_operations(fitted, [unfit.name]) if has_policy else fitted
        if fitted != space:
            notes.append(f"augmentation leaves out {unfit.name}: {unfit.reason}; a space of your own keeps it")
        space = fitted
    return space, notes
