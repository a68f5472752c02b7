"""Progress of a search: snapshots while it runs, and the summary when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ripieno.types import Job, JobResult

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


Summary = Snapshot
"""The last snapshot of a search."""


class SearchStats:
    """Counts and best losses of a search."""

    def __init__(self) -> None:
        self.jobs = self.members = self.failures = 0
        self.busy = 0.0
        self.best: tuple[float, str] | tuple[None, None] = (None, None)
        """loss and id of the best member"""
        self.losses: dict[int, float] = {}
        """loss of each trial at the last rung it reached"""
        self._top: dict[int, float] = {}  # the best trials and their lowest losses

    def add(self, job: Job, loss: float | None) -> None:
        """Record the `loss` of `job`; None: it failed."""
        self.jobs += 1
        if loss is None:
            self.failures += 1
        else:
            self.members += 1
            if self.best[0] is None or (loss, job.member) < self.best:
                self.best = loss, job.member
            self.losses[job.trial] = loss
            self._top[job.trial] = min(loss, self._top.get(job.trial, loss))
            if len(self._top) > TOP:
                del self._top[max(self._top, key=self._top.__getitem__)]

    @property
    def top(self) -> float | None:
        """Mean loss of the ten best trials, each counted once, at its best rung."""
        return sum(sorted(self._top.values())) / len(self._top) if self._top else None

    @property
    def top_trials(self) -> int:
        """Number of trials in `top`."""
        return len(self._top)


def describe_top(count: int) -> str:
    """Return `the ten best trials`, or `the 4 best trials` where there are only so many."""
    return "the best trial" if count == 1 else f"the {'ten' if count == TOP else count} best trials"
