"""Matrix greedy: steepest ascent by the model alone, benching nothing.

Theory of operation. Memory couples who sits on a device with the batch sizes there: a move is often good only with
other batch sizes than before. So each move is tried as it is and *settled*: the devices it touched begin again with
every batch at its smallest, and take the larger one that saves most time per byte until nothing more fits.

Each candidate is first bounded by the present allocation's prices (see `simulate`), a sum; only those the bound leaves
are solved. Of equal throughputs the one with less time taken goes on, so that the ascent crosses plateaus where two
resources are equally slow.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from ripieno.allocation import neighbourhood, throughput_model
from ripieno.allocation.problem import AllocationProblem, Placements, canonical
from ripieno.types import Device, Placement

STEPS = 200
"""Most steps of one ascent."""
NOISE = 1e-9
"""Throughputs that differ by less, relatively, are equal."""


def hill_climb(placements: Placements, problem: AllocationProblem, steps: int = STEPS) -> Placements:
    """The allocation that steepest ascent by the model reaches from `placements`, which must fit."""
    current = canonical(placements)
    now = throughput_model.predict(current, problem.devices, problem.costs)
    for _ in range(steps):
        better = _best(current, now, problem, level=False) or _best(current, now, problem, level=True)
        if better is None:
            break
        current, now = better
    return current


def _best(
    current: Placements, now: throughput_model.Prediction, problem: AllocationProblem, level: bool
) -> tuple[Placements, throughput_model.Prediction] | None:
    """The best candidate that is better; `level`: of equal throughput too, when it is busy for less time."""
    best, then = current, now
    seen = {current}

    def bounded(candidate: Placements, hopeful: bool = False) -> bool:
        """Whether it could be better; `hopeful`: whether it could in other batch sizes."""
        loads = throughput_model.workload(candidate, problem.devices, problem.costs)
        if hopeful:
            loads = _in_best_batches(loads, candidate, problem)
        return loads.bound(now.prices) > then.throughput * (1 - NOISE if level else 1 + NOISE)

    for candidate in _candidates(current, problem, bounded):
        if candidate not in seen:
            seen.add(candidate)
            if bounded(candidate) and problem.allows(candidate):
                found = throughput_model.predict(candidate, problem.devices, problem.costs)
                if _rank(found, level) > _rank(then, level):
                    best, then = candidate, found
    return None if best is current else (best, then)


def _rank(found: throughput_model.Prediction, level: bool) -> tuple[float, float]:
    """The throughput, then how little is busy: a sum of squares, least when it is level. To nine digits."""
    busy = sum(b * b for b in found.busy.values()) if level else 0.0
    return float(f"{found.throughput:.9g}"), -float(f"{busy:.9g}")


def _candidates(
    placements: Placements, problem: AllocationProblem, bounded: Callable[[Placements, bool], bool]
) -> Iterator[Placements]:
    yield from map(canonical, neighbourhood.batches(placements, problem))
    before = set(placements)
    for moved in (*neighbourhood.moves(placements, problem), *_swaps(placements, problem)):
        if bounded(moved, True):
            yield canonical(moved)
            yield canonical(with_best_batch_sizes(moved, problem, {p.device for p in before ^ set(moved)}))


def _in_best_batches(
    loads: throughput_model.Workload, placements: Placements, problem: AllocationProblem
) -> throughput_model.Workload:
    """`loads` as if each placement had the batch size that is fastest there."""
    lanes = Counter(device for device, _ in {(p.device, p.lane) for p in placements})
    seconds = []
    for p in placements:
        device = problem.by_name[p.device]
        times = (problem.costs.seconds(p.member, device, n, lanes[p.device]) / n for n in problem.sizes(p.member))
        seconds.append(min(times))
    return dataclasses.replace(loads, seconds=tuple(seconds))


def _swaps(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Two devices change all they hold."""
    for a, b in itertools.combinations([d.name for d in problem.devices], 2):
        names = {a: b, b: a}
        yield tuple(dataclasses.replace(p, device=names.get(p.device, p.device)) for p in placements)


def longest_processing_time_first(problem: AllocationProblem) -> Placements | None:
    """Each member, the one that takes longest everywhere first, where it is done soonest after those already there.

    Batches begin at their smallest and are settled at the end. None when somebody does not fit.
    """
    placed: Placements = ()
    busy = dict.fromkeys(problem.by_name, 0.0)

    def seconds(member: str, device: Device) -> float:
        return min(problem.costs.seconds(member, device, size) / size for size in problem.sizes(member))

    for member in sorted(problem.members, key=lambda m: -min(seconds(m, d) for d in problem.allowed_devices(m))):
        for device in sorted(problem.allowed_devices(member), key=lambda d: busy[d.name] + seconds(member, d)):
            trial = (*placed, Placement(member, device.name, min(problem.sizes(member))))
            if problem.fits(trial):
                placed = trial
                busy[device.name] += seconds(member, device)
                break
        else:
            return None
    return with_best_batch_sizes(placed, problem, problem.by_name)


def with_best_batch_sizes(placements: Placements, problem: AllocationProblem, names: Iterable[str]) -> Placements:
    """`placements` with new batch sizes on the devices `names`: as large as pays and fits, most time per byte first.

    Where not even the smallest fit, these come back.
    """
    result = placements
    for name in names:
        inside = sorted((p for p in result if p.device == name), key=lambda p: (p.lane, p.member))
        if inside:
            key = (name, *((p.member, p.lane) for p in inside))
            if key not in problem.settled:
                problem.settled[key] = _settle(inside, problem.by_name[name], problem)
            sizes = problem.settled[key]
            new = (dataclasses.replace(p, batch_size=n) for p, n in zip(inside, sizes, strict=True))
            result = (*(p for p in result if p.device != name), *new)
    return result


def _settle(inside: list[Placement], device: Device, problem: AllocationProblem) -> tuple[int, ...]:
    """Batch sizes of the placements on `device`."""
    costs = problem.costs
    lanes = len({p.lane for p in inside})
    # (seconds a sample, bytes, batch size) of each, smallest batch first
    ladders = [
        [(costs.seconds(p.member, device, n, lanes) / n, costs.bytes(p.member, device, n), n) for n in sorted(sizes)]
        for p, sizes in ((p, problem.sizes(p.member)) for p in inside)
    ]
    now = [ladder[0] for ladder in ladders]
    room = device.memory - lanes * costs.base(device) - sum(size for _, size, _ in now)
    while True:
        gains = [
            ((now[i][0] - rung[0]) / max(1, rung[1] - now[i][1]), i, rung)
            for i, ladder in enumerate(ladders)
            for rung in ladder
            if rung[0] < now[i][0] and rung[1] - now[i][1] <= room
        ]
        if not gains:
            return tuple(n for _, _, n in now)
        _, i, rung = max(gains)
        room -= rung[1] - now[i][1]
        now[i] = rung
