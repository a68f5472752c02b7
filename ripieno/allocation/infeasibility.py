"""What would make members fit that do not: the smallest of each kind of change, found by mixed-integer programs.

Imported only when something does not fit, for it brings SciPy. Each program packs every member at its smallest batch
size once, on one lane a device, which is the least memory there is:

    minimise the change  where  sum of x over devices = 1 - left out        for each member
                                sum of bytes x + base z <= memory + extra   for each device
                                x <= z                                      for each (member, device)

The change is bytes more on one device, devices like one of these, or members left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ripieno.allocation.memory import format_bytes, format_rounded_up
from ripieno.allocation.milp import CapacityConstraint, ConstraintRows, solve
from ripieno.allocation.problem import AllocationProblem
from ripieno.types import Device

MORE_DEVICES = 64
"""Devices that are thought of adding at most."""
SECONDS = 2.0
"""Of each program."""
CLOSER = 8
"""Times that the fewest bytes more are looked for below those found."""


def explain_infeasible(problem: AllocationProblem) -> str | None:
    """One line: what does not fit and the smallest changes that make it; None when it does fit."""
    if not _lacks(problem):
        return None
    names = ", ".join(d.name for d in problem.devices[:6]) + (", ..." if len(problem.devices) > 6 else "")
    size = {m: min(problem.sizes(m)) for m in problem.members}
    takes = {m: min(problem.costs.bytes(m, d, size[m]) for d in problem.allowed_devices(m)) for m in problem.members}
    total = sum(takes.values())
    room = sum(d.memory for d in problem.devices)
    base = min(problem.costs.base(d) for d in problem.devices)
    beside = f" beside {format_bytes(base)} of the runtime a device" if base else ""
    largest = max(takes, key=lambda m: takes[m])
    what = (
        f"no room for the {len(takes)} members on {names}: even in their smallest batches they take "
        f"{format_bytes(total)} "
        f"({largest} {format_bytes(takes[largest])}){beside}, and there are {format_bytes(room)}"
    )
    return f"{what}: {', or '.join(suggest_changes(problem))}"


def suggest_changes(problem: AllocationProblem) -> list[str]:
    """The smallest change of each kind that makes the members fit, in words; leaving out members always does."""
    found = _freed(problem)
    extras = {d: extra for d in _one_of_each(problem) if (extra := _extra(problem, d)) is not None}
    if extras:
        device = min(extras, key=lambda d: extras[d])
        found.append(
            f"give {device.name} {format_rounded_up(extras[device])} more than its {format_bytes(device.memory)}"
        )
    counts = {d.kind: count for d in _one_of_each(problem) if (count := _more(problem, d)) is not None}
    if counts:
        kind = min(counts, key=lambda k: counts[k])
        found.append(f"add {counts[kind]} more {kind}")
    out = _left_out(problem)
    found.append(f"leave out {', '.join(out)}" if len(out) <= 4 else f"leave out {len(out)} members ({out[0]}, ...)")
    return found


def _freed(problem: AllocationProblem) -> list[str]:
    """The one pinned member to be freed, or all of them where one is not enough; none where all are not."""

    def enough(*names: str) -> bool:
        pins = {m: pin for m, pin in problem.pins.items() if m not in names}
        return not _lacks(dataclasses.replace(problem, pins=pins))

    if not problem.pins or not enough(*problem.pins):
        return []
    one = next((m for m in problem.pins if enough(m)), None)
    return [f"free {one} of its pin" if one is not None else "free the pinned members"]


def _lacks(problem: AllocationProblem) -> bool:
    """Whether some member has no place."""
    return bool(_left_out(problem))


def _left_out(problem: AllocationProblem) -> list[str]:
    """The fewest members without which the others fit; the largest of these sets of equal size."""
    solved = _solve(problem, dropping=True)
    if solved is None:  # the time was too short for any answer, and leaving everybody out always is one
        return list(problem.members)
    placed, _ = solved
    return [m for m, row in zip(problem.members, placed, strict=True) if not row.any()]


def _extra(problem: AllocationProblem, device: Device) -> int | None:
    """Fewest bytes more on `device` with which all fit; None when no number is enough."""
    solved = _solve(problem, growing=device)
    if solved is None:
        return None
    extra = solved[1]
    for _ in range(CLOSER):  # the program stops within a millionth of a device's memory: is a byte less enough?
        if extra <= 1:
            break
        less = dataclasses.replace(device, memory=device.memory + extra - 1)
        others = tuple(less if d is device else d for d in problem.devices)
        found = _solve(dataclasses.replace(problem, devices=others))
        if found is None:
            break
        inside = [m for m, here in zip(problem.members, found[0][:, others.index(less)], strict=True) if here]
        needs = sum(problem.costs.bytes(m, device, min(problem.sizes(m))) for m in inside)
        extra = max(1, needs + problem.costs.base(device) * bool(inside) - device.memory)
    return extra


def _more(problem: AllocationProblem, device: Device) -> int | None:
    """Fewest devices more like `device` with which all fit; None when `MORE_DEVICES` are not enough."""

    def enough(count: int) -> bool:
        more = [dataclasses.replace(device, name=f"{device.name}+{i}") for i in range(count)]
        return not _lacks(dataclasses.replace(problem, devices=(*problem.devices, *more)))

    count = 1
    while not enough(count):
        count *= 2
        if count > MORE_DEVICES:
            return None
    low = count // 2
    while count - low > 1:
        middle = (low + count) // 2
        low, count = (low, middle) if enough(middle) else (middle, count)
    return count


def _one_of_each(problem: AllocationProblem) -> list[Device]:
    """The first device of each kind and size that the same members are pinned to."""
    pinned = {d.name: tuple(m for m, pin in problem.pins.items() if pin.device == d.name) for d in problem.devices}
    return list({(d.kind, d.memory, pinned[d.name]): d for d in reversed(problem.devices)}.values())[::-1]


def _solve(
    problem: AllocationProblem, growing: Device | None = None, dropping: bool = False
) -> tuple[NDArray[np.bool_], int] | None:
    """Who sits where, (members, devices), and the bytes that `growing` must have more; None when nothing fits."""
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
    # of sets of equal size the one of the least bytes left out, so that most of the work stays
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
