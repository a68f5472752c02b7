"""What a search did, as data: trials and where they stopped, jobs and when they ran."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ripieno.types import Configuration, Epoch, Member, Value


@dataclass(frozen=True)
class TrialSummary:
    """A configuration and what came of it."""

    number: int
    configuration: Configuration
    stopped: int
    """the last epoch it was trained to"""
    stops: tuple[int, ...]
    """all epochs a member was kept at"""
    loss: float
    """its lowest validation cross-entropy"""
    seconds: float
    curve: tuple[Epoch, ...]


@dataclass(frozen=True)
class SlotInterval:
    """A job in a slot, in hours since the search began."""

    slot: int
    member: str
    epoch: int
    start: float
    end: float


@dataclass(frozen=True)
class FailedJob:
    """A job that made no member."""

    trial: int
    epoch: int
    reason: str
    message: str


def trials(members: Sequence[Member]) -> tuple[TrialSummary, ...]:
    """The trials of trained members, by number; imported members are no trials."""
    by_number: dict[int, list[Member]] = {}
    for member in members:
        if member.curve:
            by_number.setdefault(member.trial, []).append(member)
    made = []
    for number, own in sorted(by_number.items()):
        own.sort(key=lambda m: m.epoch)
        last = own[-1]
        best = min(m.losses["valid_cross_entropy"] for m in own)
        stops = tuple(m.epoch for m in own)
        made.append(TrialSummary(number, last.configuration, last.epoch, stops, best, last.seconds, last.curve))
    return tuple(made)


def rungs(trials: Sequence[TrialSummary]) -> tuple[tuple[int, int, int], ...]:
    """(epoch, trials that got there, of them stopped there) for each epoch at which a trial stopped, ascending."""
    return tuple(
        (epoch, sum(epoch in t.stops for t in trials), sum(t.stopped == epoch for t in trials))
        for epoch in sorted({e for t in trials for e in t.stops})
    )


def slot_intervals(members: Sequence[Member]) -> tuple[SlotInterval, ...]:
    """Which slot was busy when, from the time each member was made and how long its job trained.

    Slots are numbered by who was free: a job takes the lowest one.
    """
    known = sorted((m for m in members if m.created and m.curve), key=lambda m: (m.trial, m.epoch))
    jobs = []
    for before, member in zip([None, *known], known, strict=False):
        same = before is not None and before.trial == member.trial
        own = member.seconds - (before.seconds if before is not None and same else 0.0)
        jobs.append((member.created - max(own, 0.0), member.created, member))
    if not jobs:
        return ()
    jobs.sort(key=lambda job: (job[0], job[2].id))
    began = jobs[0][0]
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    slots, found = 0, []
    for start, end, member in jobs:
        while busy and busy[0][0] <= start + 0.5:  # half a second: jobs follow each other within a slot
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, slots)
            slots += 1
        slot = heapq.heappop(free)
        heapq.heappush(busy, (end, slot))
        found.append(SlotInterval(slot, member.id, member.epoch, (start - began) / 3600, (end - began) / 3600))
    return tuple(found)


def busy(stays: Sequence[SlotInterval]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Hours at which the number of busy slots changes, and that number from there on."""
    changes: dict[float, int] = {}
    for stay in stays:
        changes[stay.start] = changes.get(stay.start, 0) + 1
        changes[stay.end] = changes.get(stay.end, 0) - 1
    hours = sorted(changes)
    return tuple(hours), tuple(int(n) for n in np.cumsum([changes[h] for h in hours]))


def utilisation(stays: Sequence[SlotInterval]) -> float:
    """Share of the slots' time that they were busy, 0..1."""
    if not stays:
        return 0.0
    slots, hours = 1 + max(s.slot for s in stays), max(s.end for s in stays)
    return min(1.0, sum(s.end - s.start for s in stays) / (slots * hours)) if hours else 0.0


def varying_hyperparameters(trials: Sequence[TrialSummary]) -> tuple[str, ...]:
    """Hyperparameters that differ between trials, those that go with the loss most closely first."""
    names = sorted({name for t in trials for name in t.configuration})
    different = [n for n in names if len({t.configuration.get(n) for t in trials}) > 1]
    return tuple(sorted(different, key=lambda n: (-abs(trend(trials, n) or 0.0), n)))


def trend(trials: Sequence[TrialSummary], name: str) -> float | None:
    """Rank correlation (Spearman) of a hyperparameter with the lowest loss; None for words and too few trials."""
    pairs = [(t.configuration[name], t.loss) for t in trials if name in t.configuration]
    if len(pairs) < 3 or not all(numeric(value) for value, _ in pairs):
        return None
    from scipy.stats import rankdata

    x, y = (rankdata(column) for column in zip(*pairs, strict=True))
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else None


def numeric(value: Value) -> bool:
    """Whether a hyperparameter's value is a number, not a word or a switch."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def failures(journal: Path) -> tuple[FailedJob, ...]:
    """Failed jobs from the journal's lines; a last line that is still being written is not read."""
    if not journal.exists():
        return ()
    found = []
    for line in journal.read_bytes().split(b"\n"):
        if b'"failure":{' in line:
            found += [_failed(event) for event in _events(line) if event.get("failure")]
    return tuple(found)


def _events(line: bytes) -> list[dict[str, object]]:
    try:
        attributes = json.loads(line).get("user_attr", {})
    except ValueError:
        return []
    return [value for name, value in attributes.items() if name.startswith("event:")]


def _failed(event: Mapping[str, object]) -> FailedJob:
    failure = event["failure"]
    assert isinstance(failure, dict)
    return FailedJob(
        int(str(event["trial"])), int(str(event["stop"])), str(failure.get("reason")), str(failure.get("message"))
    )
