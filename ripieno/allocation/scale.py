"""Predicted scaling over the number of GPUs: table 3 of the paper, also for absent hardware."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ripieno.allocation import throughput_model
from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions, plan_with_model, problem_of
from ripieno.errors import AllocationError
from ripieno.types import Device

COUNTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
PLATEAU = 0.05
"""A plateau begins where all further devices together add less than this fraction."""


@dataclass(frozen=True)
class ScalingPoint:
    """Predicted samples per second with `gpus` GPUs plus the other devices; None if the members do not fit."""

    gpus: int
    worst_fit: float | None
    planned: float | None
    bound: float | None


def scale(
    members: Sequence[str],
    gpu: Device,
    others: Sequence[Device],
    costs: ProfileCosts,
    counts: Sequence[int] = COUNTS,
    options: AllocationOptions | None = None,
) -> list[ScalingPoint]:
    """Plan `members` for each of `counts` GPUs like `gpu` plus `others` (the CPU).

    Without `options.replicas` (each member on one device, as in the paper) there is a plateau: the slowest member alone
    on a GPU. With replicas there is none.
    """
    rows: list[ScalingPoint] = []
    options = options or AllocationOptions()
    for count in sorted(counts):
        devices = [dataclasses.replace(gpu, name=f"cuda:{i}") for i in range(count)] + list(others)
        try:
            problem = problem_of(members, devices, costs, (), options)
            planned = plan_with_model(problem, options)
        except AllocationError:
            rows.append(ScalingPoint(count, None, None, None))
            continue
        best = throughput_model.predict(planned.best, problem.devices, costs).throughput
        start = throughput_model.predict(planned.start, problem.devices, costs).throughput if planned.start else None
        # more devices are never worse: the plan for fewer, with the new ones idle, is valid
        if rows and rows[-1].planned is not None:
            best = max(best, rows[-1].planned)
        rows.append(ScalingPoint(count, start, best, planned.bound))
    return rows


def plateau(rows: Sequence[ScalingPoint]) -> int | None:
    """Return the fewest GPUs within `PLATEAU` of the largest count's throughput; None if only that count is."""
    known = [row for row in rows if row.planned is not None]
    if not known:
        return None
    top = known[-1].planned or 0.0
    first = next(row for row in known if (row.planned or 0.0) >= (1 - PLATEAU) * top)
    return None if first is known[-1] else first.gpus
