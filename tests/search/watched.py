"""Scheduler with checked invariants of promotion, for any results in any order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ripieno.search.asha import Asha
from ripieno.search.scheduler import TrialStep


class Watched:
    """Scheduler that checks every step against its own rung table."""

    def __init__(self, brackets: tuple[tuple[int, ...], ...], eta: int, trials: int) -> None:
        self.asha = Asha(brackets, eta, trials)
        self.eta = eta
        self.jobs: list[TrialStep] = []
        self.results: dict[TrialStep, float | None] = {}

    def start(self) -> TrialStep | None:
        step = next(self.asha.candidates(), None)
        if step is not None:
            assert step not in self.jobs
            if step.start:
                self.check_rank(step)
            self.asha.start(step)
            self.jobs.append(step)
        return step

    def check_rank(self, step: TrialStep) -> None:
        """Check that fewer than 1/eta of the trials that paused in the same rung of the same bracket are better."""
        first = {d.trial: d.stop for d in self.jobs if d.start == 0}
        rung = {
            d.trial: loss
            for d, loss in self.results.items()
            if d.stop == step.start and first[d.trial] == first[step.trial]
        }
        mine = rung[step.trial]
        assert mine is not None
        better = sum(loss is not None and loss < mine for loss in rung.values())
        assert better + 1 <= len(rung) / self.eta

    def tell(self, step: TrialStep, loss: float | None) -> None:
        self.results[step] = loss
        self.asha.tell(step, loss)

    def check_end(self, brackets: tuple[tuple[int, ...], ...]) -> None:
        """Check that every rung but the last of each bracket promoted its top 1/eta, without failed trials."""
        first = {d.trial: d.stop for d in self.jobs if d.start == 0}
        promoted = {(d.trial, d.start) for d in self.jobs}
        for ladder in brackets:
            for rung, _ in pairwise(ladder):
                found = [
                    (loss, d.trial)
                    for d, loss in self.results.items()
                    if d.stop == rung and first[d.trial] == ladder[0] and loss is not None
                ]
                there = sum(d.stop == rung and first[d.trial] == ladder[0] for d in self.results)
                assert all((trial, rung) in promoted for _, trial in sorted(found)[: there // self.eta])


def walk(
    brackets: tuple[tuple[int, ...], ...],
    eta: int,
    trials: int,
    workers: int,
    which: Callable[[int], int],
    loss: Callable[[], float | None],
) -> None:
    """Run a search on `workers`: `which` selects the running job that ends next, `loss` gives its loss."""
    watched = Watched(brackets, eta, trials)
    running: list[TrialStep] = []
    while True:
        while len(running) < workers and (step := watched.start()) is not None:
            running.append(step)
        if not running:
            break
        # a worker is idle only when all trials are started
        assert len(running) == workers or watched.asha.started == trials
        watched.tell(running.pop(which(len(running))), loss())
    assert watched.asha.started == trials
    assert len(watched.jobs) == len(watched.results)
    watched.check_end(brackets)
