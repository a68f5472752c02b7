"""Matrix greedy: steepest ascent by the model alone, without benchmarks.

Theory of operation. Memory couples the placements on a device with the batch sizes there: many moves improve only with
other batch sizes. So each move is tried unchanged and with the best batch sizes. For these, every batch on the changed
devices starts at its smallest size; then the increase that saves most time per byte is applied until nothing fits.

Each candidate is first bounded by the current allocation's prices (see `throughput_model`), at the cost of a sum; only
candidates that pass the bound are solved. Of equal throughputs the one with less busy time wins, so that the ascent
crosses plateaus where two resources are equally slow.
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
"""Maximum steps of one ascent."""
NOISE = 1e-9
"""Throughputs that differ by less, relatively, are equal."""


def hill_climb(placements: Placements, problem: AllocationProblem) -> Placements:
    """Run steepest ascent by the model from `placements`, which must fit."""
    current = canonical(placements)
    now = throughput_model.predict(current, problem.devices, problem.costs)
    for _ in range(STEPS):
        better = _best(current, now, problem, level=False) or _best(current, now, problem, level=True)
        if better is None:
            break
        current, now = better
    return current


def _best(
    current: Placements, now: throughput_model.Prediction, problem: AllocationProblem, level: bool
) -> tuple[Placements, throughput_model.Prediction] | None:
    """Return the best improvement; `level`: also accept equal throughput with less busy time."""
    best, then = current, now
    seen = {current}

    def bounded(candidate: Placements, hopeful: bool = False) -> bool:
        """Return whether `candidate` could be better; `hopeful`: with other batch sizes."""
        loads = throughput_model.workload(candidate, problem.devices, problem.costs)
        if hopeful:
            loads = _in_best_batches(loads, candidate, problem)
        return loads.bound(now.prices) > then.throughput * (1 - NOISE if level else 1 + NOISE)

    for candidate in _candidates(current, problem, bounded):
        if candidate not in seen:
            seen.add(candidate)
            if bounded(candidate) and problem.allows(candidate):
                prediction = throughput_model.predict(candidate, problem.devices, problem.costs)
                if _rank(prediction, level) > _rank(then, level):
                    best, then = candidate, prediction
    return None if best is current else (best, then)


def _rank(prediction: throughput_model.Prediction, level: bool) -> tuple[float, float]:
    """Return the sort key: throughput, then the negative sum of squared busy fractions; rounded to nine digits."""
    busy = sum(b * b for b in prediction.busy.values()) if level else 0.0
    return float(f"{prediction.throughput:.9g}"), -float(f"{busy:.9g}")


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
    lanes = Counter(device for device, _ in {(p.device, p.lane) for p in placements})
    seconds = (problem.fastest(p.member, problem.by_name[p.device], lanes[p.device]) for p in placements)
    return dataclasses.replace(loads, seconds=tuple(seconds))


def _swaps(placements: Placements, problem: AllocationProblem) -> Iterator[Placements]:
    """Yield the placements with all members of two devices swapped."""
    for a, b in itertools.combinations([d.name for d in problem.devices], 2):
        names = {a: b, b: a}
        yield tuple(dataclasses.replace(p, device=names.get(p.device, p.device)) for p in placements)


def longest_processing_time_first(problem: AllocationProblem) -> Placements | None:
    """Place each member, longest time on its best device first, on the device where it finishes first.

    Batches start at their smallest size; the best sizes are chosen at the end. Return None if a member does not fit.
    """
    placed: Placements = ()
    busy = dict.fromkeys(problem.by_name, 0.0)
    seconds = problem.fastest
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
    """Enlarge the batches on the devices `names` greedily by time saved per byte, from the smallest, while they fit."""
    result = placements
    for name in names:
        inside = sorted((p for p in result if p.device == name), key=lambda p: (p.lane, p.member))
        if inside:
            key = (name, *((p.member, p.lane) for p in inside))
            if key not in problem.settled:
                problem.settled[key] = _best_batch_sizes(inside, problem.by_name[name], problem)
            sizes = problem.settled[key]
            new = (dataclasses.replace(p, batch_size=n) for p, n in zip(inside, sizes, strict=True))
            result = (*(p for p in result if p.device != name), *new)
    return result


def _best_batch_sizes(inside: list[Placement], device: Device, problem: AllocationProblem) -> tuple[int, ...]:
    costs = problem.costs
    lanes = len({p.lane for p in inside})
    # (seconds per sample, bytes, batch size) of each, smallest batch first
    choices = [
        [(costs.seconds(p.member, device, n, lanes) / n, costs.bytes(p.member, device, n), n) for n in sorted(sizes)]
        for p, sizes in ((p, problem.sizes(p.member)) for p in inside)
    ]
    now = [steps[0] for steps in choices]
    free = device.memory - lanes * costs.base(device) - sum(size for _, size, _ in now)
    while True:
        gains = [
            ((now[i][0] - step[0]) / max(1, step[1] - now[i][1]), i, step)
            for i, steps in enumerate(choices)
            for step in steps
            if step[0] < now[i][0] and step[1] - now[i][1] <= free
        ]
        if not gains:
            return tuple(n for _, _, n in now)
        _, i, step = max(gains)
        free -= step[1] - now[i][1]
        now[i] = step
