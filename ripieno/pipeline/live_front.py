"""Live front of a search: the best ensembles of its members, selected by a thread while it runs.

The thread reads each member once, when it is new, and selects at most a small share of the time: after a selection it
rests until the share is kept, and takes all members that ended meanwhile at once. Costs are counted, not measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import clock
from ripieno.errors import LibraryError, ModelError
from ripieno.library import Library
from ripieno.library.cost_table import CostTable, read_cost_table
from ripieno.library.import_predictions import NO_TRIAL
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline.runs import open_run
from ripieno.reports.front_history import read_front_history
from ripieno.selection.growing_front import FIRST, ROWS, GrowingFront
from ripieno.tasks.registry import kind_of
from ripieno.types import Configuration, Ints, LiveFront, Member, Task

SHARE = 0.02
"""Maximum share of the time in which the thread selects."""
GROWTH = 0.001
"""Relative growth of the hypervolume from which on a front is kept."""
KINDS = ("flops", "parameters")
"""Kinds of cost that are known without measuring, the first that all members have; else the number of members."""
MEMBERS = "members"


def front_history(run: str | Path | Library) -> tuple[LiveFront, ...]:
    """Return the course of the live front of a search, the oldest first; nothing of runs without one.

    It can be read while the search runs. Each front has the best ensembles of all members until then. The loss is the
    validation loss by which members are ranked, of the mean of the members, at most of 8,192 rows of the validation
    split. The hypervolume is a share of the area up to the reference point, the same for the whole run. Raises
    LibraryError for a folder that is no run.
    """
    return read_front_history(open_run(run).journal_path)


def count_costs(member: Member) -> Mapping[str, float]:
    """Return the costs of a member that follow from its configuration; nothing of trees and of a user's own code."""
    try:
        return configuration_costs(member.family, member.configuration, member.input, member.task)
    except ModelError:
        return {}


class FrontThread:
    """Thread that keeps the front of a search up to date: see `ripieno.search.progress.FrontSource`.

    `budget` is that of the search, a bound by kind of cost: the ensembles have the first of these kinds, and the best
    one within that bound is shown. Without one, or where no member has that cost, the kind is the first of `KINDS` that
    all of the first members have, else their number. `costs` returns costs that are known or predicted for the
    configuration of a trial. An earlier front of the same kind continues with its reference point. `share` is that of
    the time in which the thread may work.
    """

    def __init__(
        self,
        library: Library,
        *,
        budget: Mapping[str, float] | None = None,
        costs: Callable[[Configuration], Mapping[str, float]] | None = None,
        share: float = SHARE,
        now: Callable[[], float] = clock.now,
    ) -> None:
        history = read_front_history(library.journal_path)
        self.problem = ""
        """reason that there are no more fronts; empty: there is none"""
        self._budget, self._share, self._now = dict(budget or {}), share, now
        self._kind: str | None = None
        self._last = replace(history[-1], budget=self._budget.get(history[-1].cost)) if history else None
        self._started = now() - (history[-1].seconds if history else 0.0)
        self._last_kept = self._last
        self._members = FrontMembers(library, costs)
        self._news: list[Member] = []
        self._kept: list[LiveFront] = []
        self._ending = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="live front", daemon=True)
        self._thread.start()

    def add(self, member: Member) -> None:
        """Add a member that a job has trained."""
        with self._changed:
            self._news.append(member)
            self._changed.notify()

    def latest(self) -> LiveFront | None:
        """Return the last front, of an earlier start too."""
        return self._last

    def take(self) -> list[LiveFront]:
        """Return the fronts to be kept since the last call, the oldest first."""
        with self._changed:
            taken, self._kept = self._kept, []
        return taken

    def finish(self) -> None:
        """Make the front of all members; return when it is made."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def close(self) -> None:
        """End the thread without another front."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._members.read_all()
            rest, ending = 0.0, False
            while not ending:
                news, ending = self._wait(rest)
                if self._closed:
                    return
                started = time.monotonic()
                self._members.read(news)
                if len(self._members) >= FIRST and (news or self._is_behind()):
                    self._grow()
                self._keep(always=ending)
                rest = (time.monotonic() - started) / self._share
        except Exception as error:  # the search must go on
            self.problem = f"{type(error).__name__}: {error}"

    def _is_behind(self) -> bool:
        return self._last is None or self._last.members < len(self._members)

    def _wait(self, rest: float) -> tuple[list[Member], bool]:
        """Wait for new members, and at least for `rest` seconds; return them, and True at the end of the search."""
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._closed, timeout=rest)
            self._changed.wait_for(lambda: self._news or self._ending or self._closed)
            news, self._news = self._news, []
            return news, self._ending

    def _grow(self) -> None:
        """Make the next front."""
        if self._kind is None:
            before = self._last.cost if self._last else None
            self._kind = self._members.choose_kind(next(iter(self._budget), before))
            if self._kind != before:  # costs of different kinds do not compare
                self._last = self._last_kept = None
        made = self._members.grow(self._kind, self._last)
        if made is not None:
            seconds = self._now() - self._started
            self._last = replace(made, seconds=seconds, budget=self._budget.get(self._kind))

    def _keep(self, always: bool) -> None:
        """Keep the last front where it is better by enough than the one that was kept before, or `always`."""
        front, before = self._last, self._last_kept
        if front is None or front is before:
            return
        if always or before is None or front.hypervolume > before.hypervolume * (1 + GROWTH):
            with self._changed:
                self._kept.append(front)
            self._last_kept = front


class FrontMembers:
    """Members of a run with the rows and costs that their front needs, each read once."""

    def __init__(self, library: Library, costs: Callable[[Configuration], Mapping[str, float]] | None = None) -> None:
        self._library, self._trial_costs = library, costs
        self._members: dict[str, Member] = {}
        self._waiting: list[Member] = []  # their rows and costs are not read yet
        self._costs = CostTable({}, {}, {})
        self._growing: GrowingFront | None = None
        self._rows: Ints | None = None  # of the validation split, by which ensembles are compared; None: all
        self._targets: NDArray[Any] | None = None  # of these rows, where the members' likelihoods are not kept

    def __len__(self) -> int:
        return len(self._members)

    def read_all(self) -> None:
        """Add the members of the run."""
        self.read(self._library.members())

    def read(self, members: Sequence[Member]) -> None:
        """Add members, but for those that are known."""
        for member in members:
            if member.id not in self._members:
                self._members[member.id] = member
                self._waiting.append(member)

    def choose_kind(self, wanted: str | None = None) -> str:
        """Return the kind `wanted` if a member has it, else the first that all members have, or `members`."""
        members = list(self._members.values())
        if wanted == MEMBERS or (wanted and self._table(wanted, members).own):
            return wanted
        return next((kind for kind in KINDS if len(self._table(kind, members).own) == len(members)), MEMBERS)

    def grow(self, kind: str, last: LiveFront | None = None) -> LiveFront | None:
        """Select from all members and return the front; None where there is none yet.

        The first call continues the front `last`.
        """
        if self._growing is None:
            self._growing = self._start(next(iter(self._members.values())).task, last)
        waiting, self._waiting = self._waiting, []
        if kind != MEMBERS:
            new = self._table(kind, waiting)
            self._costs = CostTable(
                {**self._costs.own, **new.own},
                {**self._costs.backbones, **new.backbones},
                {**self._costs.shared, **new.shared},
            )
            alone = new.alone(kind)
        else:
            alone = {member.id: 1.0 for member in waiting}
        for member in waiting:
            if member.id in alone:
                try:
                    self._growing.add(member.id, self._read_rows(member), member.loss, alone[member.id])
                except LibraryError:  # a broken member: the library warns of it
                    continue
        self._growing.grow(None if kind == MEMBERS else self._costs.arguments)
        if self._growing.reference is None:
            return None
        volume = self._growing.hypervolume
        return LiveFront(kind, self._growing.points, self._growing.reference, volume, len(self._members))

    def _start(self, task: Task, last: LiveFront | None) -> GrowingFront:
        """Choose the rows, and return a front that continues the last one where its members are still there."""
        kind = kind_of(task)
        if kind.keeps_likelihood:
            count = len(self._library.true_class_mapped([next(iter(self._members))])[0])
            self._rows = sample_rows(count, ROWS)
        else:
            targets = self._library.targets()
            self._rows = sample_rows(len(targets), max(1, ROWS // max(1, targets[0].size)))
            self._targets = targets if self._rows is None else targets[self._rows]
        values = self._targets if kind.activation == "identity" else None
        points = [e for e in last.ensembles if all(m in self._members for m in e.members)] if last else []
        return GrowingFront(values, points, last.reference if last else None)

    def _read_rows(self, member: Member) -> NDArray[Any]:
        """Return the likelihoods of what is true (rows,) of a member, or its values (samples, outputs)."""
        kind = kind_of(member.task)
        if kind.keeps_likelihood:
            row = self._library.true_class_mapped([member.id])[0]
            return np.asarray(row if self._rows is None else row[self._rows])
        predictions = self._library.predictions(member.id)
        predictions = np.asarray(predictions if self._rows is None else predictions[self._rows])
        if kind.activation == "identity" or self._targets is None:
            return predictions
        return np.asarray(kind.likelihood(predictions, self._targets))

    def _table(self, kind: str, members: Sequence[Member]) -> CostTable:
        """Return the costs of the members that have one; a backbone that several share is in their parameters only."""
        if kind == "parameters":
            return read_cost_table(self._library, (kind,), members=members)
        known = {member.id: self._known(member) for member in members}
        counted = {name: {kind: costs[kind]} for name, costs in known.items() if kind in costs}
        if kind != "bytes":
            return CostTable(counted, {}, {})
        files = read_cost_table(self._library, (kind,), members=[m for m in members if m.id not in counted])
        return CostTable({**files.own, **counted}, files.backbones, files.shared)

    def _known(self, member: Member) -> Mapping[str, float]:
        """Return the costs of a member that follow from its configuration, and those that were imported with it."""
        if member.backbone:
            return member.costs
        if self._trial_costs is None or member.trial == NO_TRIAL:
            return {**count_costs(member), **member.costs}
        costs = self._trial_costs(member.configuration)
        return {**costs, **member.costs}


def sample_rows(count: int, most: int) -> Ints | None:
    """Return at most `most` of `count` rows, drawn at random and always the same, in their order; None: all."""
    if count <= most:
        return None
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False)).astype(np.int64)
