"""Progress of a search: snapshots while it runs, and the summary when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal, Protocol

from ripieno.search.forecast import predict_best_loss
from ripieno.search.objectives import LOSS, SINGLE, SearchObjective, Vector, dominates, vector
from ripieno.search.predictions import StepCorrelation
from ripieno.types import Job, JobResult, LiveFront, Member

FIRST = 10
"""Members whose objectives scale the hypervolume of the front of trials."""
TOP = 10
"""Number of trials whose mean loss is shown, besides the best one."""
Ending = Literal["", "trials", "deadline"]
"""Reason that a search ended: all trials are done, or the time is up; empty while it runs."""


@dataclass(frozen=True)
class RunningJob:
    """A job in a slot."""

    job: Job
    since: float
    """start, in Unix seconds"""
    loss: float | None
    """loss of its trial at the last rung it reached; None for a new trial"""


@dataclass(frozen=True)
class SkippedStep:
    """A step that would not end before the deadline, and so was not started."""

    trial: int | None
    """None: any new trial"""
    start: int
    stop: int
    seconds: float
    """predicted duration"""
    left: float
    """seconds from the free slot to the deadline"""


@dataclass(frozen=True)
class FrontTrial:
    """A trial, at one epoch, that no other one dominates in the objectives of the search."""

    member: str
    """id of its member"""
    values: Mapping[str, float]
    """of the objectives, by name"""


@dataclass(frozen=True)
class Snapshot:
    """State of a search at one moment; seconds count from the latest start, the counts cover all starts."""

    running: tuple[RunningJob, ...]
    """jobs in slots, the oldest first"""
    queued: int
    """issued jobs that wait for a slot"""
    slots: int
    trials: int
    """trials started"""
    most_trials: int | None
    jobs: int
    """jobs that ended"""
    members: int
    failures: int
    best: str | None
    """id of the member with the smallest loss"""
    best_loss: float | None
    top_loss: float | None
    """mean loss of the ten best trials, each at its best rung"""
    now: float
    """Unix seconds"""
    seconds: float
    left: float | None
    """seconds to the deadline, None without one"""
    occupancy: float
    """share of the slots' time in which jobs ran"""
    started: tuple[Job, ...] = ()
    """jobs that got a slot since the last snapshot"""
    finished: tuple[JobResult, ...] = ()
    """jobs that ended since the last snapshot"""
    ended: Ending = ""
    top_trials: int = 0
    """number of trials in `top_loss`: `TOP`, or fewer where fewer have a member"""
    ranks: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """of promoted trials in `started`: rank at the rung they come from, and the number of results there"""
    skipped: tuple[SkippedStep, ...] = ()
    """steps left out for the first time since the last snapshot"""
    epochs: int = 0
    """epochs of the jobs that ended"""
    expected_epochs: int | None = None
    """epochs that all jobs of the search train, about; None without a bound of trials"""
    timed_epochs: int = 0
    """epochs of the jobs that ended since the latest start"""
    timed_seconds: float = 0.0
    """seconds that these jobs took"""
    lowest: Sequence[float] = ()
    """lowest loss after each ended job, since the first member; it grows after the snapshot"""
    front: LiveFront | None = None
    """best ensembles so far, from the first ten members on; None before, and where none is asked for"""
    redrawn: int = 0
    """configurations that broke a constraint before training, and were drawn again"""
    infeasible: int | None = None
    """trials that break a measured constraint; None: there is none"""
    trial_front: tuple[FrontTrial, ...] = ()
    """members that no other dominates, by the first objective; empty in a search for one objective"""
    trial_volume: float | None = None
    """hypervolume of these, in boxes from the best to the worst values of the first ten members; None before them"""
    correlations: tuple[StepCorrelation, ...] = ()
    """of predicted and measured values, by step; empty where the sampler predicts nothing"""


class FrontSource(Protocol):
    """Source of the fronts of ensembles of a running search; none of its methods waits, except for `finish`."""

    def add(self, member: Member) -> None:
        """Add a member that a job has trained."""

    def latest(self) -> LiveFront | None:
        """Return the last front, of an earlier start too."""

    def take(self) -> list[LiveFront]:
        """Return the fronts to be kept since the last call, the oldest first."""

    def finish(self) -> None:
        """Make the front of all members; return when it is made."""


Summary = Snapshot
"""The last snapshot of a search."""


class SearchStats:
    """Counts and best losses of a search."""

    def __init__(self, objectives: Sequence[SearchObjective] = SINGLE) -> None:
        self._objectives = objectives
        self._front: dict[str, tuple[Vector, FrontTrial]] = {}  # by member
        self._first: list[Vector] = []  # objectives of the first members, which scale the hypervolume
        self.trial_volume: float | None = None
        """hypervolume of the front of trials: see `Snapshot.trial_volume`"""
        self.jobs = self.members = self.failures = 0
        self.busy = 0.0
        self.epochs = 0
        """epochs of the jobs that ended"""
        self.timed_epochs = 0
        """those of the jobs in `busy`"""
        self.lowest: list[float] = []
        """lowest loss after each ended job, since the first member"""
        self.best: tuple[float, str] | tuple[None, None] = (None, None)
        """loss and id of the best member"""
        self.losses: dict[int, float] = {}
        """loss of each trial at the last rung it reached"""
        self._top: dict[int, float] = {}  # the best trials and their lowest losses

    def add(self, job: Job, loss: float | None, values: Mapping[str, float] | None = None) -> None:
        """Record the `loss` of `job`, None: it failed, and the other `values` of its result."""
        self.jobs += 1
        self.epochs += job.stop - job.start
        if loss is None:
            self.failures += 1
        else:
            self.members += 1
            self._add_to_front(job, loss, values or {})
            if self.best[0] is None or (loss, job.member) < self.best:
                self.best = loss, job.member
            self.losses[job.trial] = loss
            self._top[job.trial] = min(loss, self._top.get(job.trial, loss))
            if len(self._top) > TOP:
                del self._top[max(self._top, key=self._top.__getitem__)]
        if self.best[0] is not None:
            self.lowest.append(self.best[0])

    def _add_to_front(self, job: Job, loss: float, values: Mapping[str, float]) -> None:
        point = vector(self._objectives, loss, values)
        if len(self._objectives) == 1 or point is None:
            return
        if len(self._first) < FIRST:
            self._first.append(point)
        before = [other for other, _ in self._front.values()]
        if not any(dominates(other, point) for other in before):
            self._front = {m: entry for m, entry in self._front.items() if not dominates(point, entry[0])}
            named = {o.name: loss if o.name == LOSS else values[o.name] for o in self._objectives}
            self._front[job.member] = point, FrontTrial(job.member, named)
        elif self.trial_volume is not None:
            return  # the front is the same
        if len(self._first) == FIRST:
            worst, best = (tuple(map(end, zip(*self._first, strict=True))) for end in (max, min))
            box = prod(w - b for w, b in zip(worst, best, strict=True))
            front = [entry for entry, _ in self._front.values()]
            self.trial_volume = dominated_volume(front, worst) / box if box else None

    def trial_front(self) -> tuple[FrontTrial, ...]:
        """Return the trials that no other one dominates, by the first objective, the best first."""
        return tuple(entry for _, entry in sorted(self._front.values(), key=lambda found: (found[0], found[1].member)))

    @property
    def top(self) -> float | None:
        """Mean loss of the ten best trials, each counted once, at its best rung."""
        return sum(sorted(self._top.values())) / len(self._top) if self._top else None

    @property
    def top_trials(self) -> int:
        """Number of trials in `top`."""
        return len(self._top)


def dominated_volume(points: Sequence[Vector], reference: Vector) -> float:
    """Return the volume that `points` dominate, up to the `reference`; all numbers are made small."""
    inside = sorted(p for p in points if all(value < end for value, end in zip(p, reference, strict=True)))
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - inside[0][0]
    ends = [*(p[0] for p in inside[1:]), reference[0]]
    slices = (dominated_volume([p[1:] for p in inside[: n + 1]], reference[1:]) for n in range(len(inside)))
    return sum((end - p[0]) * area for p, end, area in zip(inside, ends, slices, strict=True))


def seconds_left(snapshot: Snapshot, trained: Mapping[int, float]) -> float | None:
    """Estimate the seconds to the end of a search; None where nothing is known yet.

    With a deadline alone they are those to the deadline. With a bound of trials they follow from the time that an epoch
    took so far, and from the epochs left in all jobs; `trained` holds the epochs that running jobs have trained, by
    trial, where that is known. The deadline bounds them.
    """
    if snapshot.expected_epochs is None:
        return snapshot.left
    running = [(entry, trained[entry.job.trial]) for entry in snapshot.running if entry.job.trial in trained]
    epochs = snapshot.timed_epochs + sum(done for _, done in running)
    if epochs <= 0:
        return snapshot.left
    rate = (snapshot.timed_seconds + sum(snapshot.now - entry.since for entry, _ in running)) / epochs
    rest = snapshot.expected_epochs - snapshot.epochs - sum(done for _, done in running)
    # a job that has just begun has reported nothing yet
    longest = max((e.job.stop - e.job.start - trained.get(e.job.trial, 0.0) for e in snapshot.running), default=0.0)
    found = rate * max(rest / max(1, snapshot.slots), longest, 0.0)
    return found if snapshot.left is None else min(found, snapshot.left)


def predicted_best(snapshot: Snapshot) -> float | None:
    """Predict the lowest loss at the end of a search from how it fell; None where that is not known.

    The share that is done is that of the epochs. With a deadline, epochs are taken to go on as fast as until now.
    """
    shares = []
    if snapshot.expected_epochs:
        shares.append(snapshot.epochs / snapshot.expected_epochs)
    if snapshot.left is not None and snapshot.epochs:
        later = snapshot.timed_epochs * snapshot.left / max(1e-9, snapshot.seconds)
        shares.append(snapshot.epochs / (snapshot.epochs + later))
    return predict_best_loss(snapshot.lowest, max(shares)) if shares else None


def describe_top(count: int) -> str:
    """Return `the ten best trials`, or `the 4 best trials` where there are only four."""
    return "the best trial" if count == 1 else f"the {'ten' if count == TOP else count} best trials"
