"""Planning of an allocation from an ensemble, devices and profiles."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from ripieno.allocation import memory, neighbourhood, throughput_model
from ripieno.allocation.confirm import confirm
from ripieno.allocation.costs import ENGINE_OVERHEAD, ProfileCosts
from ripieno.allocation.hill_climbing import hill_climb, longest_processing_time_first
from ripieno.allocation.latency import arrivals, p99
from ripieno.allocation.problem import AllocationProblem, PlacementConstraint, Placements, canonical, check_pins
from ripieno.allocation.refine import Bench, BenchCallback, CachedBench, Refined, refine
from ripieno.allocation.units import PlacementUnits
from ripieno.allocation.worst_fit import DEFAULT_BATCH_SIZE, worst_fit
from ripieno.durations import check_duration
from ripieno.errors import AllocationError
from ripieno.types import Allocation, Device, Ensemble, Profile

AllocationMethod = Literal["model", "algorithm-1", "worst-fit"]
NEAR = 0.999
"""Fraction of the bound at which a plan is accepted."""
SAMPLES = 1000
"""Arrivals simulated for a latency."""
TRIALS = 300
"""Maximum number of latency predictions per plan."""
SMALL = 64
"""Devices times members up to which the model ascends from every start."""


@dataclass(frozen=True)
class AllocationOptions:
    """Options of the planner; every default is defined only here."""

    method: AllocationMethod = "model"
    """`model`: plan by the model, confirm by benchmark; `algorithm-1`: the paper's; `worst-fit`: no refinement"""
    batch_size: int = DEFAULT_BATCH_SIZE
    """batch size of worst-fit"""
    max_benches: int = 20
    pins: Mapping[str, PlacementConstraint] = field(default_factory=dict)
    replicas: bool = True
    """whether a member may run on several devices"""
    lanes: int = 4
    """maximum number of workers of one CPU"""
    seconds: float = 5.0
    """time limit for the optimum; 0: skip it if other placements are found"""
    rate: float | None = None
    """arrival rate in samples per second at which to minimise p99 latency; None: maximise throughput"""

    def __post_init__(self) -> None:
        if self.method not in get_args(AllocationMethod):
            raise AllocationError(
                f"unknown method {self.method!r}: expected one of {', '.join(get_args(AllocationMethod))}"
            )
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise AllocationError(f"rate {self.rate:g} is invalid: expected samples per second above 0")
        check_duration(self.seconds, "seconds", zero=True, error=AllocationError)
        if self.max_benches < 0:
            raise AllocationError(f"max_benches {self.max_benches} is invalid: expected 0 or more")


@dataclass(frozen=True)
class ModelPlan:
    """Plan by the model alone: worst-fit's `start` (None if it fails), the model's `best`, and a bound."""

    start: Placements | None
    best: Placements
    bound: float
    score: Callable[[Placements], float] | None = None
    """predicts what a benchmark reports, if that is not the throughput"""


def plan(
    ensemble: Ensemble,
    devices: Sequence[Device],
    profiles: Mapping[str, Mapping[str, Profile]],
    batch_sizes: Sequence[int] = (),
    bench: Bench | None = None,
    max_benches: int | None = None,
    *,
    options: AllocationOptions | None = None,
    name: str = "",
    progress: BenchCallback | None = None,
    backbones: Mapping[str, str] | None = None,
) -> Allocation:
    """Place the members of `ensemble` on `devices` for maximum throughput within memory.

    `profiles` are by kind of device, then by member: `{d.kind: library.profiles(d.kind) for d in devices}`; with
    profiles of parts of a CPU, several workers per CPU are planned too. `batch_sizes` default to those measured for all
    members on all devices. `bench` measures placements in samples per second, at most `max_benches` times (default
    `options.max_benches`); without it the plan is the model's. With `options.rate` it must report 1 / p99 seconds at
    that rate instead. `progress` is called after each benchmark with the number of runs, the limit and the best value.
    `backbones` holds the backbone of each member that shares one (`Member.backbone`): its members are placed together,
    and `profiles` hold the backbone's own profile too, by that name.

    Raises AllocationError if a profile is missing, or if the members do not fit; the message names the smallest change
    that makes them fit.
    """
    options = options or AllocationOptions()
    check_pins(options.pins, ensemble.members, [d.name for d in devices])
    units = PlacementUnits(ensemble.members, backbones or {})
    options = dataclasses.replace(options, pins=units.pins(options.pins))
    # of members only: other profiles would count runtimes that no worker here loads
    known = {kind: units.profiles(of) for kind, of in profiles.items()}
    problem = problem_of(tuple(units.members), devices, ProfileCosts(known, ENGINE_OVERHEAD), batch_sizes, options)
    planned = plan_with_model(problem, options)
    found: Refined | None = None
    errors: tuple[float, ...] = ()
    if bench is not None:
        measure = bench
        limit = options.max_benches if max_benches is None else max_benches
        cached = CachedBench(lambda placements: measure(units.expand(placements)), limit, progress)
        found = _measured(planned, problem, cached, options)
        errors = _errors(cached, problem, planned.score)
    placements = found.placements if found else planned.best
    members = units.expand(placements)
    made = Allocation(
        name=name or default_name(ensemble, devices),
        ensemble=ensemble.name,
        devices=tuple(devices),
        placements=tuple(sorted(members, key=lambda p: (ensemble.members.index(p.member), p.device, p.lane))),
        benches=found.benches if found else 0,
        predicted=throughput_model.predict(placements, devices, problem.costs).throughput,
        bound=planned.bound if math.isfinite(planned.bound) else None,
        rate=options.rate,
        errors=errors,
        planned=memory.worker_usage(placements, devices, problem.costs),
    )
    if planned.score is not None:
        figure = found.measurement.throughput if found else planned.score(placements)
        return dataclasses.replace(made, latency=1 / figure if figure > 0 else None)
    if found is None:
        return made
    return dataclasses.replace(made, throughput=found.measurement.throughput, start_throughput=found.start.throughput)


def problem_of(
    members: Sequence[str],
    devices: Sequence[Device],
    costs: ProfileCosts,
    batch_sizes: Sequence[int],
    options: AllocationOptions,
) -> AllocationProblem:
    """Build the allocation problem and validate it. Raises AllocationError."""
    if not devices:
        raise AllocationError("no devices are given: pass at least cpu")
    sizes = tuple(sorted(set(batch_sizes) or costs.batch_sizes(members, devices)))
    if not sizes:
        raise AllocationError("no batch size was measured for all members on all devices: measure the members again")
    replicas = options.replicas and options.method == "model"
    lanes = options.lanes if options.method == "model" else 1
    check_pins(options.pins, members, [d.name for d in devices])
    return AllocationProblem(members, tuple(devices), costs, sizes, options.pins, replicas, lanes)


def plan_with_model(problem: AllocationProblem, options: AllocationOptions) -> ModelPlan:
    """Plan without benchmarks: worst-fit, ascents from it, and the optimum if it is found in time.

    Raises AllocationError if the members do not fit; the message names the smallest changes that make them fit.
    """
    starts, rejection = _initial_placements(problem, options.batch_size)
    if options.method != "model":
        if not starts:
            raise _infeasible_error(problem, rejection, f"{rejection}, or pass method model, which fits all members")
        # bound on any plan, including the model's
        whole = dataclasses.replace(problem, replicas=options.replicas, lanes=options.lanes)
        return ModelPlan(starts[0], starts[0], _relaxed(whole, options.seconds), _score(problem, options))
    best, bound = _search(problem, starts, options.seconds)
    if best is None:
        raise _infeasible_error(problem, rejection)
    score = _score(problem, options)
    if score is not None:
        best = _lowest_latency(best, starts, problem, score, options.rate or 0.0, bound)
    return ModelPlan(starts[0] if starts else None, best, bound, score)


def _infeasible_error(problem: AllocationProblem, rejection: AllocationError, model_hint: str = "") -> AllocationError:
    """Return the error with the changes that help; `model_hint` if worst-fit alone fails (`rejection`)."""
    from ripieno.allocation import infeasibility  # imports SciPy, which is slow

    why = infeasibility.explain_infeasible(problem)
    if why is None:
        return AllocationError(model_hint) if model_hint else rejection
    return rejection if model_hint else AllocationError(why)


def _score(problem: AllocationProblem, options: AllocationOptions) -> Callable[[Placements], float] | None:
    """Return the model's score, 1 / p99 seconds at the requested rate; None if throughput is maximised."""
    if options.rate is None:
        return None
    times = arrivals(options.rate, SAMPLES, np.random.default_rng(0))
    return lambda placements: 1 / p99(placements, problem.devices, problem.costs, times)


def _lowest_latency(
    best: Placements,
    starts: list[Placements],
    problem: AllocationProblem,
    score: Callable[[Placements], float],
    rate: float,
    bound: float,
) -> Placements:
    """Ascend by the model to the lowest latency. Raises AllocationError if the rate exceeds the bound of all plans."""
    if rate > bound:
        raise AllocationError(f"rate {rate:g} samples/s exceeds the capacity of the devices ({bound:.4g}): add devices")
    start = max([best, *starts], key=score)
    around = functools.partial(neighbourhood.neighbours, problem=problem)
    return refine(start, problem.devices, problem.batch_sizes, score, TRIALS, neighbours=around).placements


def _search(problem: AllocationProblem, starts: list[Placements], seconds: float) -> tuple[Placements | None, float]:
    """Return the best placements by the model and a bound; try cheap methods first, until one is near the bound."""

    def speed(placements: Placements) -> float:
        return throughput_model.predict(placements, problem.devices, problem.costs).throughput

    from ripieno.allocation import mcnaughton, placement_milp  # import SciPy, which is slow

    bound = _relaxed(problem, seconds)
    quick = (mcnaughton.mcnaughton_wrap(problem), longest_processing_time_first(problem))
    candidates = [*(p for p in quick if p is not None), *starts]
    best = max(candidates, key=speed, default=None)
    if best is not None and speed(best) < bound * NEAR:
        # an ascent over many devices is slow: then only from the best start
        small = len(problem.devices) * len(problem.members) <= SMALL
        best = max((hill_climb(p, problem) for p in (candidates if small else [best])), key=speed)
    if best is None or (seconds > 0 and speed(best) < bound * NEAR):
        solved = placement_milp.solve_optimum(problem, seconds or 1.0, known=best)
        best, bound = solved.placements, min(bound, solved.bound)
    return best, bound


def _relaxed(problem: AllocationProblem, seconds: float) -> float:
    from ripieno.allocation import placement_milp  # imports SciPy, which is slow

    return placement_milp.solve_optimum(problem, max(seconds, 1.0), relaxed=True).bound


def _initial_placements(problem: AllocationProblem, batch_size: int) -> tuple[list[Placements], AllocationError]:
    """Run worst-fit at `batch_size` and each smaller measured size; return what fits, and the last error."""
    rejection = AllocationError("worst-fit has no batch size to try")
    sizes = sorted((s for s in problem.batch_sizes if s <= batch_size), reverse=True) or [min(problem.batch_sizes)]
    starts = []
    fit = functools.partial(worst_fit, problem.members, problem.devices, problem.costs, pins=problem.pins)
    for size in sizes:
        try:
            starts.append(fit(size, smaller=problem.batch_sizes))
        except AllocationError as error:
            rejection = error
    return starts, rejection


def _measured(
    planned: ModelPlan, problem: AllocationProblem, bench: CachedBench, options: AllocationOptions
) -> Refined:
    start = planned.start or planned.best
    if options.method == "model":
        # a single benchmark measures the model's plan
        starts = list(dict.fromkeys([canonical(start), canonical(planned.best)]))[-1 if bench.max_benches == 1 else 0 :]
        return confirm(starts, problem, bench, score=planned.score)
    if options.method != "algorithm-1":
        bench.max_benches = 0
    return refine(start, problem.devices, problem.batch_sizes, bench, bench.max_benches, fits=problem.allows)


def _errors(
    bench: CachedBench, problem: AllocationProblem, score: Callable[[Placements], float] | None
) -> tuple[float, ...]:
    """Return the relative error predicted / measured - 1 of each successful benchmark."""
    expected = score or (lambda p: throughput_model.predict(p, problem.devices, problem.costs).throughput)
    known = ((canonical(key), found.throughput) for key, found in bench.results.items())
    return tuple(expected(placements) / measured - 1 for placements, measured in known if measured > 0)


def default_name(ensemble: Ensemble, devices: Sequence[Device]) -> str:
    """Return a default name such as `B80-on-2-cuda-1-cpu`."""
    counts = Counter(device.type for device in devices)
    return "-".join([ensemble.name, "on", *(f"{counts[t]}-{t}" for t in ("cuda", "cpu") if counts[t])])
