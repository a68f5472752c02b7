"""Neighbourhood of an allocation matrix: devices x members, entries are batch sizes, 0 if absent (arXiv 2208.14049).

A member may have replicas, a device several members, a CPU several workers. `neighbours` yields the allocations that
are one update away.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement


def neighbours(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Yield every allowed allocation one update away, in canonical form, without repeats.

    An update is another batch size, a move, an exchange of two members, a replica more or less, or another number of
    workers on a device.
    """
    seen = {canonical(placements)}
    for update in (*batches(placements, problem), *moves(placements, problem)):
        candidate = canonical(update)
        if candidate not in seen:
            seen.add(candidate)
            if problem.allows(candidate):
                yield candidate


def batches(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Yield the placements with another batch size for one placement."""
    for i, p in enumerate(placements):
        for size in problem.sizes(p.member):
            if size != p.batch_size:
                yield (*placements[:i], dataclasses.replace(p, batch_size=size), *placements[i + 1 :])


def moves(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Yield moves, exchanges, changes of replicas and of worker counts; memory limits are not checked."""
    for i, p in enumerate(placements):
        rest = (*placements[:i], *placements[i + 1 :])
        taken = {(q.device, q.lane) for q in rest if q.member == p.member}
        for device_name, lane in _lanes(placements, problem, p.member):
            if (device_name, lane) not in taken and (device_name, lane) != (p.device, p.lane):
                yield (*rest, dataclasses.replace(p, device=device_name, lane=lane))
        if taken:
            yield rest
    yield from _exchanges(placements)
    if problem.replicas:
        yield from _replicas(placements, problem)
    for device in problem.devices:
        if any(p.device == device.name for p in placements):
            yield from _worker_counts(placements, device, problem)


def _lanes(placements: Placements, problem: AllocationProblem, member: str) -> list[tuple[str, int]]:
    """Return the workers that may run `member`: existing ones, and the first of each empty device."""
    existing = {(p.device, p.lane) for p in placements} | {(d.name, 0) for d in problem.devices}
    allowed = {d.name for d in problem.allowed_devices(member)}
    return sorted(lane for lane in existing if lane[0] in allowed)


def _exchanges(placements: Placements) -> Iterator[Placements]:
    """Yield the placements with two members exchanged, each with its own batch size."""
    for i, p in enumerate(placements):
        for j, q in enumerate(placements[:i]):
            if p.member != q.member and (p.device, p.lane) != (q.device, q.lane):
                changed = list(placements)
                changed[i] = dataclasses.replace(p, device=q.device, lane=q.lane)
                changed[j] = dataclasses.replace(q, device=p.device, lane=p.lane)
                if len({(x.member, x.device, x.lane) for x in changed}) == len(changed):
                    yield tuple(changed)


def _replicas(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    for member in problem.members:
        taken = {(p.device, p.lane) for p in placements if p.member == member}
        for device, lane in _lanes(placements, problem, member):
            if (device, lane) not in taken:
                for size in problem.sizes(member):
                    yield (*placements, Placement(member, device, size, lane))


def _worker_counts(placements: Placements, device: Device, problem: AllocationProblem) -> Iterator[Placements]:
    """Yield `device` with the next larger or smaller worker count that divides its cores; redistribute members."""
    rest = tuple(p for p in placements if p.device != device.name)
    inside = list({p.member: p for p in placements if p.device == device.name}.values())
    now = len({p.lane for p in placements if p.device == device.name})
    counts = problem.lane_counts(device)
    fewer, more = max((n for n in counts if n < now), default=now), min((n for n in counts if n > now), default=now)
    for lanes in {fewer, more} - {now}:
        yield (*rest, *_distribute(inside, device, lanes, problem))
        if problem.replicas and lanes > 1:  # all members on every worker
            yield (*rest, *(dataclasses.replace(p, lane=lane) for p in inside for lane in range(lanes)))


def _distribute(inside: list[Placement], device: Device, lanes: int, problem: AllocationProblem) -> Placements:
    """Distribute placements over workers: longest first, each to the worker with the least load."""
    times = {p: problem.costs.seconds(p.member, device, p.batch_size, lanes) / p.batch_size for p in inside}
    load: dict[int, float] = defaultdict(float)
    distributed = []
    for p in sorted(inside, key=lambda p: (-times[p], p.member)):
        lane = min(range(lanes), key=lambda n: (load[n], n))
        load[lane] += times[p]
        distributed.append(dataclasses.replace(p, lane=lane))
    return tuple(distributed)
