"""History of a search as data: trials and the epochs at which they stopped, jobs and their times."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ripieno.errors import SearchError
from ripieno.search.objectives import LOSS
from ripieno.search.settings import kept_settings
from ripieno.types import Configuration, Epoch, Member, Value


@dataclass(frozen=True)
class TrialSummary:
    """A configuration and its results."""

    number: int
    configuration: Configuration
    stopped: int
    """the last epoch it was trained to"""
    stops: tuple[int, ...]
    """all epochs with a member"""
    loss: float
    """its lowest validation loss"""
    seconds: float
    curve: tuple[Epoch, ...]


@dataclass(frozen=True)
class SlotInterval:
    """A job in a slot; times are hours since the search began."""

    slot: int
    member: str
    epoch: int
    start: float
    end: float


@dataclass(frozen=True)
class FailedJob:
    """A job that failed to make a member."""

    trial: int
    epoch: int
    reason: str
    message: str


@dataclass(frozen=True)
class Promotion:
    """A trial that went on from epoch `start` to `stop`, as it had that `rank`, from 1, of the results at `start`."""

    trial: int
    start: int
    stop: int
    rank: int
    ranked: int
    """number of results at `start` then"""


def trials(members: Sequence[Member]) -> tuple[TrialSummary, ...]:
    """Return the trials of trained members, by number; imported members are no trials."""
    by_number: dict[int, list[Member]] = {}
    for member in members:
        if member.curve:
            by_number.setdefault(member.trial, []).append(member)
    summaries = []
    for number, of_trial in sorted(by_number.items()):
        of_trial.sort(key=lambda m: m.epoch)
        last = of_trial[-1]
        best = min(m.loss for m in of_trial)
        stops = tuple(m.epoch for m in of_trial)
        summaries.append(TrialSummary(number, last.configuration, last.epoch, stops, best, last.seconds, last.curve))
    return tuple(summaries)


def best_trials_loss(trials: Sequence[TrialSummary], count: int) -> float:
    """Return the mean loss of the `count` best trials, each counted once, at its best rung; of all if fewer."""
    return float(np.mean(sorted(trial.loss for trial in trials)[:count]))


def rungs(trials: Sequence[TrialSummary]) -> tuple[tuple[int, int, int], ...]:
    """Return (epoch, trials that reached it, trials that stopped there) for each epoch with a member, ascending."""
    return tuple(
        (epoch, sum(epoch in t.stops for t in trials), sum(t.stopped == epoch for t in trials))
        for epoch in sorted({e for t in trials for e in t.stops})
    )


def slot_intervals(members: Sequence[Member]) -> tuple[SlotInterval, ...]:
    """Return the busy times of slots by the members' creation and training times; a job takes the lowest free slot."""
    known = sorted((m for m in members if m.created and m.curve), key=lambda m: (m.trial, m.epoch))
    jobs = []
    for before, member in zip([None, *known], known, strict=False):
        same = before is not None and before.trial == member.trial
        seconds = member.seconds - (before.seconds if before is not None and same else 0.0)
        jobs.append((member.created - max(seconds, 0.0), member.created, member))
    if not jobs:
        return ()
    jobs.sort(key=lambda job: (job[0], job[2].id))
    began = jobs[0][0]
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    slots, intervals = 0, []
    for start, end, member in jobs:
        while busy and busy[0][0] <= start + 0.5:  # tolerance of 0.5 s: jobs follow each other within a slot
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, slots)
            slots += 1
        slot = heapq.heappop(free)
        heapq.heappush(busy, (end, slot))
        intervals.append(SlotInterval(slot, member.id, member.epoch, (start - began) / 3600, (end - began) / 3600))
    return tuple(intervals)


def busy(intervals: Sequence[SlotInterval]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the hours at which the number of busy slots changes, and that number from then on."""
    changes: dict[float, int] = {}
    for interval in intervals:
        changes[interval.start] = changes.get(interval.start, 0) + 1
        changes[interval.end] = changes.get(interval.end, 0) - 1
    hours = sorted(changes)
    return tuple(hours), tuple(int(n) for n in np.cumsum([changes[h] for h in hours]))


def utilisation(intervals: Sequence[SlotInterval]) -> float:
    """Return the share of time that the slots were busy, 0..1."""
    if not intervals:
        return 0.0
    slots, hours = 1 + max(s.slot for s in intervals), max(s.end for s in intervals)
    return min(1.0, sum(s.end - s.start for s in intervals) / (slots * hours)) if hours else 0.0


def varying_hyperparameters(trials: Sequence[TrialSummary]) -> tuple[str, ...]:
    """Return the hyperparameters that differ between trials, the strongest rank correlation with the loss first."""
    names = sorted({name for t in trials for name in t.configuration})
    different = [n for n in names if len({t.configuration.get(n) for t in trials}) > 1]
    return tuple(sorted(different, key=lambda n: (-abs(trend(trials, n) or 0.0), n)))


def trend(trials: Sequence[TrialSummary], name: str) -> float | None:
    """Return Spearman's rank correlation of a hyperparameter and the lowest loss; None for text and below 3 trials."""
    pairs = [(t.configuration[name], t.loss) for t in trials if name in t.configuration]
    if len(pairs) < 3 or not all(numeric(value) for value, _ in pairs):
        return None
    from scipy.stats import rankdata

    x, y = (rankdata(column) for column in zip(*pairs, strict=True))
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else None


def numeric(value: Value) -> bool:
    """Return True if a hyperparameter's value is a number, not a string or a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def search_terms(path: Path) -> str:
    """Return a sentence on objectives, budget and constraints of the search whose settings are in the file `path`.

    It is empty where the search has none but the loss, or the file cannot be read.
    """
    try:
        settings = kept_settings(path)
    except SearchError:
        return ""
    if settings is None:
        return ""
    terms = [] if settings.objective == (LOSS,) else [f"several objectives: {', '.join(settings.objective)}"]
    if settings.budget:
        terms.append("a budget: " + ", ".join(f"{kind}={bound:g}" for kind, bound in settings.budget.items()))
    if settings.constraints:
        terms.append(f"constraints: {', '.join(settings.constraints)}")
    return f"The search had {'; '.join(terms)}." if terms else ""


def failures(journal: Path) -> tuple[FailedJob, ...]:
    """Return the failed jobs of the journal; an incomplete last line, which is still being written, is ignored."""
    return tuple(
        FailedJob(int(e["trial"]), int(e["stop"]), str(why.get("reason")), str(why.get("message")))
        for e in journal_events(journal, b'"failure":{')
        if (why := e.get("failure"))
    )


def promotions(journal: Path) -> tuple[Promotion, ...]:
    """Return the promotions of the journal whose rank is known, in their order; older versions kept no ranks."""
    return tuple(
        Promotion(*(int(e[name]) for name in ("trial", "start", "stop", "rank", "ranked")))
        for e in journal_events(journal, b'"rank":')
        if e.get("rank")
    )


def journal_events(journal: Path, word: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of the lines of the journal that contain `word`; an incomplete last line is left out."""
    for line in journal.read_bytes().split(b"\n") if journal.exists() else ():
        if word in line:
            with contextlib.suppress(ValueError):
                attributes = json.loads(line).get("user_attr", {})
                yield from (value for name, value in attributes.items() if name.startswith("event:"))
