"""The matrix form: devices x members with batch sizes as entries, 0 where a member is absent (arXiv 2208.14049).

A member may have replicas, a device several members, a CPU several lanes. `neighbours` are the allocations one update
away, for whoever benches them.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement


def neighbours(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Every allowed allocation one update away, in canonical order, none twice.

    An update is another batch size, a move, two members' exchange of places, a replica more or less, or a device cut
    in more or fewer lanes.
    """
    seen = {canonical(placements)}
    for update in (*batches(placements, problem), *moves(placements, problem)):
        candidate = canonical(update)
        if candidate not in seen:
            seen.add(candidate)
            if problem.allows(candidate):
                yield candidate


def batches(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Another batch size for one placement."""
    for i, p in enumerate(placements):
        for size in problem.sizes(p.member):
            if size != p.batch_size:
                yield (*placements[:i], dataclasses.replace(p, batch_size=size), *placements[i + 1 :])


def moves(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Another place for somebody; whether it fits is not asked."""
    for i, p in enumerate(placements):
        rest = (*placements[:i], *placements[i + 1 :])
        taken = {(q.device, q.lane) for q in rest if q.member == p.member}
        for home, lane in _lanes(placements, problem, p.member):
            if (home, lane) not in taken and (home, lane) != (p.device, p.lane):
                yield (*rest, dataclasses.replace(p, device=home, lane=lane))
        if taken:
            yield rest
    yield from _exchanges(placements)
    if problem.replicas:
        yield from _replicas(placements, problem)
    for device in problem.devices:
        if any(p.device == device.name for p in placements):
            yield from _cuts(placements, device, problem)


def _lanes(placements: Placements, problem: AllocationProblem, member: str) -> list[tuple[str, int]]:
    """Lanes that `member` may sit in: those of each device there are, the first of an empty one."""
    there = {(p.device, p.lane) for p in placements} | {(d.name, 0) for d in problem.devices}
    allowed = {d.name for d in problem.allowed_devices(member)}
    return sorted(lane for lane in there if lane[0] in allowed)


def _exchanges(placements: Placements) -> Iterator[Placements]:
    """Two members change places, each with its own batch size."""
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
        for home, lane in _lanes(placements, problem, member):
            if (home, lane) not in taken:
                for size in problem.sizes(member):
                    yield (*placements, Placement(member, home, size, lane))


def _cuts(placements: Placements, device: Device, problem: AllocationProblem) -> Iterator[Placements]:
    """The device with more or fewer lanes, the next number that its cores divide by: its members dealt out anew."""
    rest = tuple(p for p in placements if p.device != device.name)
    inside = list({p.member: p for p in placements if p.device == device.name}.values())
    now = len({p.lane for p in placements if p.device == device.name})
    counts = problem.lane_counts(device)
    fewer, more = max((n for n in counts if n < now), default=now), min((n for n in counts if n > now), default=now)
    for lanes in {fewer, more} - {now}:
        yield (*rest, *_deal(inside, device, lanes, problem))
        if problem.replicas and lanes > 1:  # everybody in every lane
            yield (*rest, *(dataclasses.replace(p, lane=lane) for p in inside for lane in range(lanes)))


def _deal(inside: list[Placement], device: Device, lanes: int, problem: AllocationProblem) -> Placements:
    """The longest first, each to the lane with the least to do."""
    times = {p: problem.costs.seconds(p.member, device, p.batch_size, lanes) / p.batch_size for p in inside}
    full: dict[int, float] = defaultdict(float)
    dealt = []
    for p in sorted(inside, key=lambda p: (-times[p], p.member)):
        lane = min(range(lanes), key=lambda n: (full[n], n))
        full[lane] += times[p]
        dealt.append(dataclasses.replace(p, lane=lane))
    return tuple(dealt)
