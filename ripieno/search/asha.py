"""Asynchronous successive halving with promotion, in one or several brackets (section 2.1; Li et al., MLSys 2020).

Theory of operation. A bracket is a ladder of rungs, integer numbers of epochs, each about `step` times the one before.
A trial is trained to its bracket's first rung and pauses there. Whenever a worker is free, a paused trial in the top
1/keep of its rung is promoted: it is trained to the next rung. The highest rung with such a trial goes first, and its
best trial. When there is none, a new trial starts. No worker waits for a rung to fill, so none is idle; the price is
that early promotions rest on few results. Trials are ranked by their priority: the loss, or what
:mod:`ripieno.search.objectives` makes of several objectives.

Hyperband hedges against first rungs too short to separate trials: each bracket leaves out one more of the low rungs,
and new trials are distributed over the brackets in Hyperband's proportions. One bracket of one rung is random search.

Trials that the caller favours, as past searches speak for them, need only be in the better half of a rung, the only
one there included: they are trained further while there are too few others to judge by.

In the papers one number, eta, is both the ratio of epochs (`step`) and that of survivors (`keep`).

Pure decisions: the caller provides time, randomness and processes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from math import ceil, inf, isfinite

from ripieno.errors import SearchError
from ripieno.search.scheduler import TrialStep


def rungs(epochs: int, step: float = 3, least: int = 1) -> tuple[int, ...]:
    """Return the epochs at which trials pause: least, least * step, ... and exactly `epochs`.

    Each is the one before times `step`, rounded, and at least one epoch more; there are no logarithms, which lose the
    top rung of (3, 243) by rounding. A last step shorter than sqrt(step) would stop trials just before their end; it is
    left out: rungs(30) is (1, 3, 9, 30). Raises SearchError for numbers out of range.
    """
    if epochs < 1 or least < 1 or least > epochs or not (isfinite(step) and step > 1):
        raise SearchError(
            f"cannot make rungs of {epochs} epochs, first rung {least}, step {step:g}: epochs and the first rung must "
            "be at least 1, the first rung at most epochs, and step above 1"
        )
    ladder = [least]
    while (following := max(ladder[-1] + 1, round(ladder[-1] * step))) <= epochs:
        ladder.append(following)
    while len(ladder) > 1 and ladder[-1] < epochs and ladder[-1] ** 2 * step > epochs**2:
        ladder.pop()
    return (*ladder, epochs) if ladder[-1] < epochs else tuple(ladder)


def hyperband(epochs: int, step: float = 3, least: int = 1) -> tuple[tuple[int, ...], ...]:
    """Return Hyperband's brackets: all rungs of `rungs`, then without the lowest, and so on to the top rung alone."""
    ladder = rungs(epochs, step, least)
    return tuple(ladder[skipped:] for skipped in range(len(ladder)))


def shares(brackets: int, keep: int, step: float | None = None) -> tuple[int, ...]:
    """Return the trials of each bracket per round, the longest bracket first; `step` None: the same as `keep`.

    As in Hyperband (Li et al., JMLR 2018, algorithm 1) every bracket gets the same budget, as many full trainings as
    there are brackets, and a rung's trials cost its epochs. A trial started in a bracket of s + 1 rungs costs
    sum(keep^-i * step^(i - s), i = 0 ... s) full trainings, so that n = ceil((s_max + 1) / sum) for s = s_max ... 0.
    With step = keep = eta all rungs cost the same, and n is Hyperband's ceil((s_max + 1) / (s + 1) * eta^s).
    """
    ratio = Fraction(keep if step is None else step)
    costs = [sum(ratio ** (i - s) / keep**i for i in range(s + 1)) for s in reversed(range(brackets))]
    return tuple(ceil(brackets / cost) for cost in costs)


IsFavoured = Callable[[int], bool]
"""Tells whether past searches speak for a trial."""


@dataclass
class _Rung:
    """Results at one rung, best first; a failed trial is last, with an infinite priority."""

    ranking: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)  # the part of `ranking` that is not promoted

    def add(self, priority: float, trial: int) -> None:
        """Add `trial` with `priority`."""
        insort(self.ranking, (priority, trial))
        insort(self.waiting, (priority, trial))

    def admit(self, priority: float, trial: int, keep: int) -> None:
        """Add `trial` with `priority`; it is promoted now, if in the top 1/keep, or never."""
        insort(self.ranking, (priority, trial))
        if bisect_left(self.ranking, (priority, trial)) < -(-len(self.ranking) // keep) and isfinite(priority):
            insort(self.waiting, (priority, trial))

    def revise(self, priorities: Mapping[int, float]) -> None:
        """Give trials of the rung that did not fail other priorities, by trial."""
        for entries in (self.ranking, self.waiting):
            entries[:] = sorted((priorities.get(t, old) if isfinite(old) else old, t) for old, t in entries)

    def promotable(self, keep: int, is_favoured: IsFavoured | None = None) -> list[tuple[float, int]]:
        """Return (priority, trial) of the top 1/keep that were not promoted, best first.

        Those that are favoured need only be in the better half.
        """
        top, half = len(self.ranking) // keep, -(-len(self.ranking) // 2)
        last = self.ranking[top - 1] if top else (-inf, 0)
        found = [entry for entry in self.waiting[: bisect_right(self.waiting, last)] if isfinite(entry[0])]
        if is_favoured is not None and half > top:
            others = self.waiting[len(found) : bisect_right(self.waiting, self.ranking[half - 1])]
            found += [entry for entry in others if isfinite(entry[0]) and is_favoured(entry[1])]
        return found

    def promote(self, trial: int) -> None:
        """Remove `trial` from the waiting ones; a linear scan, as promoted trials are near the head."""
        index = next((n for n, (_, waiting) in enumerate(self.waiting) if waiting == trial), None)
        assert index is not None, f"trial {trial} promoted twice"
        del self.waiting[index]


class Asha:
    """ASHA or Hyperband as a `Scheduler`: one in `keep` of a rung survives it.

    `step` is the ratio of the brackets' rungs, None: `keep`. `trials` limits how many are started; None: no limit.
    With `stopping`, trials train on at once or never. `candidates` lists the possible next steps, `start` records the
    step taken, `tell` records its result. Of trials that `is_favoured` one in two survives a rung.
    """

    def __init__(
        self,
        brackets: tuple[tuple[int, ...], ...],
        keep: int = 3,
        trials: int | None = None,
        stopping: bool = False,
        step: float | None = None,
        is_favoured: IsFavoured | None = None,
    ) -> None:
        if trials is not None and trials < 1:
            raise SearchError(f"{trials} trials requested: a search needs at least 1")
        self.keep = keep
        self.trials = trials
        self.stopping = stopping
        self.started = 0
        self._is_favoured = is_favoured
        self._brackets = brackets
        self._shares = shares(len(brackets), keep, step)
        self._dealt = [0] * len(brackets)
        self._bracket: dict[int, int] = {}
        self._rungs = [{epochs: _Rung() for epochs in ladder} for ladder in brackets]
        # (bracket, next rung) of every rung below the top, from the highest rung down
        steps = [(start, number, stop) for number, ladder in enumerate(brackets) for start, stop in pairwise(ladder)]
        self._steps: dict[int, list[tuple[int, int]]] = {}
        for start, number, stop in sorted(steps, reverse=True):
            self._steps.setdefault(start, []).append((number, stop))

    def candidates(self) -> Iterator[TrialStep]:
        """Yield the possible next steps, most urgent first: promotions from the highest rung down, then a new trial."""
        for start, steps in self._steps.items():
            rungs_below = [(self._rungs[number][start], stop) for number, stop in steps]
            promotions = [
                (priority, trial, stop)
                for rung, stop in rungs_below
                for priority, trial in (
                    rung.waiting if self.stopping else rung.promotable(self.keep, self._is_favoured)
                )
            ]
            yield from (TrialStep(trial, start, stop) for _, trial, stop in sorted(promotions))
        if self.trials is None or self.started < self.trials:
            # first the bracket furthest behind its share; then the other brackets, for when its first rung is too long
            turn = self._brackets[self._next_bracket()][0]
            yield TrialStep(self.started, 0, turn)
            yield from (TrialStep(self.started, 0, ladder[0]) for ladder in self._brackets if ladder[0] != turn)

    def start(self, step: TrialStep) -> None:
        """Record that `step`, one of the candidates, was started."""
        if step.start == 0:
            assert step.trial == self.started, f"trial {step.trial} issued, {self.started} is next"
            number = next(n for n, ladder in enumerate(self._brackets) if ladder[0] == step.stop)
            self.started += 1
            self._dealt[number] += 1
            self._bracket[step.trial] = number
        else:
            self._rungs[self._bracket[step.trial]][step.start].promote(step.trial)

    def set_priorities(self, epoch: int, priorities: Mapping[int, float]) -> None:
        """Change the priorities of results at `epoch`, by trial: a trial that is promoted from there stays so."""
        for ladder in self._rungs:
            if epoch in ladder:
                ladder[epoch].revise(priorities)

    def tell(self, step: TrialStep, priority: float | None) -> None:
        """Record the `priority` of `step`; None, infinite or not a number: it failed and ranks last."""
        rank = priority if priority is not None and isfinite(priority) else inf
        rung = self._rungs[self._bracket[step.trial]][step.stop]
        if self.stopping:
            is_favoured = self._is_favoured is not None and self._is_favoured(step.trial)
            rung.admit(rank, step.trial, min(2, self.keep) if is_favoured else self.keep)
        else:
            rung.add(rank, step.trial)

    def rank(self, step: TrialStep) -> tuple[int, int] | None:
        """Return the rank of a trial at the rung from which `step` promotes it, from 1, and the results there.

        None for a new trial. Ask before `start`.
        """
        if step.start == 0:
            return None
        ranking = self._rungs[self._bracket[step.trial]][step.start].ranking
        return 1 + next(n for n, (_, trial) in enumerate(ranking) if trial == step.trial), len(ranking)

    def _next_bracket(self) -> int:
        """Return the bracket furthest behind its share, on a tie the longest; the total of trials does not count."""
        total, count = sum(self._shares), self.started + 1
        behind = [share * count - total * dealt for share, dealt in zip(self._shares, self._dealt, strict=True)]
        return max(range(len(behind)), key=lambda number: (behind[number], -number))
