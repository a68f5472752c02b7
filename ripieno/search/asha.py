"""Asynchronous successive halving with promotion, in one or several brackets (section 2.1; Li et al., MLSys 2020).

Theory of operation. A bracket is a ladder of rungs, integer numbers of epochs. A trial is trained to its bracket's
first rung and pauses there. Whenever a worker is free, the best trial of a rung that is in the rung's top 1/eta and was
not promoted yet is trained on to the next rung; the highest such rung goes first. When there is none, a new trial
starts. Nobody ever waits for a rung to fill, so no worker is idle; the price is that early promotions rest on few
results.

Hyperband hedges against first rungs too short to tell trials apart: its brackets leave out more and more of the low
rungs, and new trials are dealt out between them in Hyperband's proportions. One bracket of one rung is random search.

Decides only: time, randomness and processes are the caller's.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isfinite

from ripieno.errors import SearchError
from ripieno.search.scheduler import Decision


def rungs(epochs: int, eta: int = 3, least: int = 1) -> tuple[int, ...]:
    """Epochs at which trials pause: least, least * eta, ... and exactly `epochs`.

    Integers only (logarithms lose the top rung of (3, 243) by rounding). A last step shorter than sqrt(eta) would stop
    trials just before their end; it is left out: rungs(30) is (1, 3, 9, 30). Raises SearchError for impossible numbers.
    """
    if epochs < 1 or least < 1 or least > epochs or eta < 2:
        raise SearchError(
            f"{epochs} epochs from {least} by eta {eta}: epochs and the first rung must be at least 1, "
            "the first rung at most epochs, and eta at least 2"
        )
    ladder = [least]
    while ladder[-1] * eta <= epochs:
        ladder.append(ladder[-1] * eta)
    while len(ladder) > 1 and ladder[-1] < epochs and ladder[-1] ** 2 * eta > epochs**2:
        ladder.pop()
    return (*ladder, epochs) if ladder[-1] < epochs else tuple(ladder)


def hyperband(epochs: int, eta: int = 3, least: int = 1) -> tuple[tuple[int, ...], ...]:
    """Hyperband's brackets: the ladder of `rungs`, the same without its lowest, and so on down to the top alone."""
    ladder = rungs(epochs, eta, least)
    return tuple(ladder[skipped:] for skipped in range(len(ladder)))


def shares(brackets: int, eta: int) -> tuple[int, ...]:
    """Trials each bracket gets per round: Hyperband's n = ceil((s_max + 1) / (s + 1) * eta^s) for s = s_max ... 0."""
    return tuple(-(-brackets * eta**s // (s + 1)) for s in reversed(range(brackets)))


@dataclass
class _Rung:
    """Results at one rung, best first; a failed trial stands last, with an infinite loss."""

    ranking: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)  # of these, not promoted

    def add(self, loss: float, trial: int) -> None:
        """`trial` is here, with `loss`."""
        insort(self.ranking, (loss, trial))
        insort(self.waiting, (loss, trial))

    def admit(self, loss: float, trial: int, eta: int) -> None:
        """`trial` is here, with `loss`, and trains on now or never."""
        insort(self.ranking, (loss, trial))
        if bisect_left(self.ranking, (loss, trial)) < -(-len(self.ranking) // eta) and isfinite(loss):
            insort(self.waiting, (loss, trial))

    def promotable(self, eta: int) -> list[tuple[float, int]]:
        """(loss, trial) in the top 1/eta that were not promoted, best first."""
        top = len(self.ranking) // eta
        last = self.ranking[top - 1] if top else (-inf, 0)
        return [found for found in self.waiting[: bisect_right(self.waiting, last)] if isfinite(found[0])]

    def promote(self, trial: int) -> None:
        """`trial` trains on; what is promoted stands at the head of those that wait."""
        place = next((n for n, (_, waiting) in enumerate(self.waiting) if waiting == trial), None)
        assert place is not None, f"trial {trial} promoted twice"
        del self.waiting[place]


class Asha:
    """Which trial trains on, and how far. `trials` bounds how many are started; None: no bound.

    A `Scheduler`: `options` lists what could be done now, `issue` says what is done, `tell` how it ended.
    """

    def __init__(
        self,
        brackets: tuple[tuple[int, ...], ...],
        eta: int = 3,
        trials: int | None = None,
        stopping: bool = False,
    ) -> None:
        if trials is not None and trials < 1:
            raise SearchError(f"{trials} trials: a search needs at least 1")
        self.eta = eta
        self.trials = trials
        self.stopping = stopping
        self.started = 0
        self._brackets = brackets
        self._shares = shares(len(brackets), eta)
        self._dealt = [0] * len(brackets)
        self._bracket: dict[int, int] = {}
        self._rungs = [{epochs: _Rung() for epochs in ladder} for ladder in brackets]
        # (bracket, next rung) of every rung that has one, from the highest rung down
        steps = [(start, number, stop) for number, ladder in enumerate(brackets) for start, stop in pairwise(ladder)]
        self._steps: dict[int, list[tuple[int, int]]] = {}
        for start, number, stop in sorted(steps, reverse=True):
            self._steps.setdefault(start, []).append((number, stop))

    def options(self) -> Iterator[Decision]:
        """What a free worker could do, most urgent first: promotions from the highest rung down, then a new trial."""
        for start in self._steps:
            found = [
                (loss, trial, stop)
                for number, stop in self._steps[start]
                for loss, trial in self._ready(self._rungs[number][start])
            ]
            yield from (Decision(trial, start, stop) for _, trial, stop in sorted(found))
        if self.trials is None or self.started < self.trials:
            # that of the bracket whose turn it is; the others, shortest first, for when there is no time for it
            turn = self._brackets[self._next_bracket()][0]
            yield Decision(self.started, 0, turn)
            yield from (Decision(self.started, 0, ladder[0]) for ladder in self._brackets if ladder[0] != turn)

    def ask(self) -> Decision | None:
        """The most urgent option; None: wait for results, or, when none is outstanding, the search has ended."""
        return next(self.options(), None)

    def issue(self, decision: Decision) -> None:
        """`decision`, one of the options, is being carried out."""
        if decision.start == 0:
            assert decision.trial == self.started, f"trial {decision.trial} issued, {self.started} is next"
            number = next(n for n, ladder in enumerate(self._brackets) if ladder[0] == decision.stop)
            self.started += 1
            self._dealt[number] += 1
            self._bracket[decision.trial] = number
        else:
            self._rungs[self._bracket[decision.trial]][decision.start].promote(decision.trial)

    def tell(self, decision: Decision, loss: float | None) -> None:
        """`decision` ended with `loss`; None, infinite or not a number: it failed, and is worse than all others."""
        rank = loss if loss is not None and isfinite(loss) else inf
        rung = self._rungs[self._bracket[decision.trial]][decision.stop]
        if self.stopping:
            rung.admit(rank, decision.trial, self.eta)
        else:
            rung.add(rank, decision.trial)

    def _ready(self, rung: _Rung) -> list[tuple[float, int]]:
        return rung.waiting if self.stopping else rung.promotable(self.eta)

    def _next_bracket(self) -> int:
        """The bracket furthest behind its share; of equals, that with the most rungs. Depends on no total."""
        total, count = sum(self._shares), self.started + 1
        behind = [share * count - total * dealt for share, dealt in zip(self._shares, self._dealt, strict=True)]
        return max(range(len(behind)), key=lambda number: (behind[number], -number))
