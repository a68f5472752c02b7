"""Smallest changes that make an infeasible allocation feasible, found by mixed-integer programs.

Imported only if the members do not fit, since SciPy is slow to import. Each program packs every member once, at its
smallest batch size and with one worker per device, which needs the least memory:

    minimise the change  where  sum of x over devices = 1 - left out        for each member
                                sum of bytes x + base z <= memory + extra   for each device
                                x <= z                                      for each (member, device)

The change is more bytes on one device, more devices of one kind, or members left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ripieno.allocation.memory import format_bytes
from ripieno.allocation.milp_solver import CapacityConstraint, ConstraintRows, solve
from ripieno.allocation.problem import AllocationProblem
from ripieno.allocation.worst_fit import smallest_sufficient, suggest_memory
from ripieno.types import Device

MORE_DEVICES = 64
"""Maximum number of devices to add."""
SECONDS = 2.0
"""Time limit of each program."""
CLOSER = 8
"""Maximum number of attempts to lower the extra bytes found."""


def explain_infeasible(problem: AllocationProblem) -> str | None:
    """Explain in one line why the members do not fit and which smallest changes help; None if they fit."""
    if not _left_out(problem):
        return None
    names = ", ".join(d.name for d in problem.devices[:6]) + (", ..." if len(problem.devices) > 6 else "")
    size = {m: min(problem.sizes(m)) for m in problem.members}
    needs = {m: min(problem.costs.bytes(m, d, size[m]) for d in problem.allowed_devices(m)) for m in problem.members}
    total = sum(needs.values())
    available = sum(d.memory for d in problem.devices)
    base = min(problem.costs.base(d) for d in problem.devices)
    runtime = f" plus {format_bytes(base)} of runtime per device" if base else ""
    largest = max(needs, key=lambda m: needs[m])
    problem_text = (
        f"{len(needs)} members do not fit on {names}: with the smallest batches they need {format_bytes(total)} "
        f"({largest} {format_bytes(needs[largest])}){runtime}, but only {format_bytes(available)} are available"
    )
    return f"{problem_text}: {', or '.join(suggest_changes(problem))}"


def suggest_changes(problem: AllocationProblem) -> list[str]:
    """Describe the smallest change of each kind that makes the members fit; leaving out members always does."""
    changes = _unpinned(problem)
    changes += suggest_memory({d: _extra(problem, d) for d in _one_of_each(problem)})
    counts = {d.kind: count for d in _one_of_each(problem) if (count := _more(problem, d)) is not None}
    if counts:
        kind = min(counts, key=lambda k: counts[k])
        changes.append(f"add {counts[kind]} more {kind}")
    out = _left_out(problem)
    changes.append(f"leave out {', '.join(out)}" if len(out) <= 4 else f"leave out {len(out)} members ({out[0]}, ...)")
    return changes


def _unpinned(problem: AllocationProblem) -> list[str]:
    """Suggest to unpin one member, or all if one is not enough; empty if that does not help."""

    def enough(*names: str) -> bool:
        pins = {m: pin for m, pin in problem.pins.items() if m not in names}
        return not _left_out(dataclasses.replace(problem, pins=pins))

    if not problem.pins or not enough(*problem.pins):
        return []
    one = next((m for m in problem.pins if enough(m)), None)
    return [f"remove the pin of {one}" if one is not None else "remove all pins"]


def _left_out(problem: AllocationProblem) -> list[str]:
    """Return the smallest set of members to leave out; of sets of equal size, the one with the fewest bytes."""
    solved = _solve(problem, dropping=True)
    if solved is None:  # no solution within the time limit; leaving out all members always works
        return list(problem.members)
    placed, _ = solved
    return [m for m, row in zip(problem.members, placed, strict=True) if not row.any()]


def _extra(problem: AllocationProblem, device: Device) -> int | None:
    """Return the fewest extra bytes on `device` with which all members fit; None if no number suffices."""
    solved = _solve(problem, growing=device)
    if solved is None:
        return None
    extra = solved[1]
    for _ in range(CLOSER):  # the program's tolerance is a millionth of a device's memory: try one byte less
        if extra <= 1:
            break
        less = dataclasses.replace(device, memory=device.memory + extra - 1)
        others = tuple(less if d is device else d for d in problem.devices)
        packed = _solve(dataclasses.replace(problem, devices=others))
        if packed is None:
            break
        inside = [m for m, here in zip(problem.members, packed[0][:, others.index(less)], strict=True) if here]
        needs = sum(problem.costs.bytes(m, device, min(problem.sizes(m))) for m in inside)
        extra = max(1, needs + problem.costs.base(device) * bool(inside) - device.memory)
    return extra


def _more(problem: AllocationProblem, device: Device) -> int | None:
    """Return the fewest extra devices like `device` with which all fit; None if `MORE_DEVICES` are too few."""

    def enough(count: int) -> bool:
        more = [dataclasses.replace(device, name=f"{device.name}+{i}") for i in range(count)]
        return not _left_out(dataclasses.replace(problem, devices=(*problem.devices, *more)))

    return smallest_sufficient(enough, 1, MORE_DEVICES)


def _one_of_each(problem: AllocationProblem) -> list[Device]:
    """Return the first device of each kind, memory size and set of pinned members."""
    pinned = {d.name: tuple(m for m, pin in problem.pins.items() if pin.device == d.name) for d in problem.devices}
    return list({(d.kind, d.memory, pinned[d.name]): d for d in reversed(problem.devices)}.values())[::-1]


def _solve(
    problem: AllocationProblem, growing: Device | None = None, dropping: bool = False
) -> tuple[NDArray[np.bool_], int] | None:
    """Return placements (members, devices) and the extra bytes of `growing`; None if infeasible."""
    members, devices = list(problem.members), list(problem.devices)
    n, k = len(members), len(devices)
    unit = max(d.memory for d in devices) or 1
    takes = np.array([[problem.costs.bytes(m, d, min(problem.sizes(m))) for d in devices] for m in members])
    base = [problem.costs.base(d) for d in devices]
    columns = n * k + k + 1 + n  # x, z, extra, left out
    x, z, extra, out = np.arange(n * k).reshape(n, k), n * k + np.arange(k), n * k + k, n * k + k + 1 + np.arange(n)
    rows = ConstraintRows()
    for i in range(n):
        once = [*((c, 1.0) for c in x[i]), (out[i], 1.0)]
        rows.add(once, 1.0)
        rows.add([(c, -value) for c, value in once], -1.0)
    for j, device in enumerate(devices):
        grown = [(extra, -1.0)] if device is growing else []
        sizes = zip(x[:, j], takes[:, j] / unit, strict=True)
        rows.add([*sizes, (z[j], base[j] / unit), *grown], device.memory / unit)
        for i in range(n):
            rows.add([(x[i, j], 1.0), (z[j], -1.0)], 0.0)
    upper = np.ones(columns)
    upper[extra] = np.inf if growing else 0.0
    upper[out] = 1.0 if dropping else 0.0
    for i, member in enumerate(members):
        homes = {d.name for d in problem.allowed_devices(member)}
        upper[x[i]] = [1.0 if d.name in homes else 0.0 for d in devices]
    objective = np.zeros(columns)
    objective[extra] = 1.0
    # of sets of equal size, leave out the fewest bytes, so that most of the work remains
    objective[out] = 1.0 + 1e-3 * takes.min(axis=1) / max(1, takes.min(axis=1).sum())
    whole = np.ones(columns)
    whole[extra] = 0.0
    rooms = [
        CapacityConstraint(list(x[:, j]), [int(size) for size in takes[:, j]], device.memory - base[j])
        for j, device in enumerate(devices)
        if device is not growing
    ]
    found = solve(objective, whole, np.zeros(columns), upper, rows, rooms, SECONDS).x
    if found is None:
        return None
    placed = found[x] > 0.5
    if growing is None:
        return placed, 0
    j = devices.index(growing)
    inside = placed[:, j]
    return placed, max(0, int(takes[inside, j].sum()) + base[j] * bool(inside.any()) - growing.memory)
