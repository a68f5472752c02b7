"""Promotion by what a trial is worth in place of its loss: a table worked by hand, and what must hold for any worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.errors import SearchError
from ripieno.search import Settings, simulate
from ripieno.search.algorithms import ALGORITHMS, make_scheduler
from ripieno.search.asha import Asha, RungResult, hyperband, rungs
from ripieno.search.scheduler import Decision
from ripieno.search.settings import resolve_settings

FOR_ENSEMBLE = Settings(synthetic.SPACE, trials=6, epochs=9, promote="ensemble", budget={"flops": 4e7})


class Table:
    """A worth from a table by trial, which may be changed as an ensemble would change it."""

    def __init__(self, **worth: float) -> None:
        self.worth = {int(trial[1:]): value for trial, value in worth.items()}
        self.told: list[RungResult] = []

    def __call__(self, told: Sequence[RungResult], waiting: Sequence[RungResult]) -> list[float]:
        self.told = list(told)
        return [self.worth.get(trial, 100.0) for trial, _ in waiting]


def start(asha: Asha, *losses: float | None) -> None:
    """A trial more for each loss, told."""
    for loss in losses:
        decision = next(d for d in asha.options() if d.start == 0)
        asha.issue(decision)
        asha.tell(decision, loss)


def promoted(asha: Asha) -> list[int]:
    """Trials that would train on now, most urgent first."""
    return [d.trial for d in asha.options() if d.start]


def test_a_rung_promotes_the_best_by_worth_as_long_as_fewer_than_its_share_were() -> None:
    table = Table(t0=3, t1=2, t2=1, t3=9, t4=8, t5=0.5)
    asha = Asha((rungs(9),))
    asha.worth = table
    start(asha, 0.5, 0.4)
    assert promoted(asha) == []  # a third of two is none
    start(asha, 0.6)
    assert promoted(asha) == [2]  # the worst by loss
    asha.issue(Decision(2, 1, 3))
    assert promoted(asha) == []  # one of three was; by loss trial 1 would still be in the top third
    start(asha, 0.1, 0.2)
    assert promoted(asha) == []  # a third of five is one, and was, though trial 3 is the best by loss
    start(asha, 0.3)
    assert promoted(asha) == [5]
    table.worth[3] = 0.1  # the ensemble has changed: a trial that waited long is now the best
    assert promoted(asha) == [3]
    asha.issue(Decision(3, 1, 3))
    start(asha, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    assert promoted(asha) == [5, 1]  # four of twelve may, two did: the two best that wait
    asha.tell(Decision(2, 1, 3), 0.05)
    assert promoted(asha) == [5, 1]
    assert table.told == [*((trial, 1) for trial in range(12)), (2, 3)]


def test_what_is_worth_nothing_or_failed_is_not_promoted_though_its_share_is_free() -> None:
    asha = Asha((rungs(9),))
    asha.worth = Table(t0=inf, t1=inf, t2=1)
    start(asha, 0.1, 0.2, None)
    assert promoted(asha) == []
    start(asha, 0.9, 0.9, 0.9)
    assert promoted(asha) == [3, 4]
    assert (2, 1) not in asha._told  # a failure leaves no member


def test_without_a_worth_the_loss_decides() -> None:
    by_loss = Asha((rungs(9),))
    start(by_loss, 0.5, 0.4, 0.6)
    assert promoted(by_loss) == [1]


VALUES = st.one_of(st.floats(0, 1), st.sampled_from([0.5, inf]))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 30), st.integers(2, 4), st.integers(1, 30), st.integers(1, 6), st.booleans())
def test_for_any_worth_no_job_twice_and_no_rung_promotes_more_than_its_share(
    data: st.DataObject, epochs: int, eta: int, trials: int, workers: int, brackets: bool
) -> None:
    ladders = hyperband(epochs, eta) if brackets else (rungs(epochs, eta),)
    table = Table()
    asha = Asha(ladders, eta, trials)
    asha.worth = table
    first: dict[int, int] = {}
    jobs: list[Decision] = []
    running: list[Decision] = []
    paused: Counter[tuple[int, int]] = Counter()  # by bracket's first rung, and rung
    went_on: Counter[tuple[int, int]] = Counter()
    while True:
        while len(running) < workers and (decision := asha.ask()) is not None:
            assert decision not in jobs
            asha.issue(decision)
            jobs.append(decision)
            running.append(decision)
            first.setdefault(decision.trial, decision.stop)
            if decision.start:
                rung = first[decision.trial], decision.start
                went_on[rung] += 1
                assert went_on[rung] <= paused[rung] // eta
        if not running:
            break
        assert len(running) == workers or asha.started == trials
        done = running.pop(data.draw(st.integers(0, len(running) - 1)))
        table.worth[done.trial] = data.draw(VALUES)
        asha.tell(done, data.draw(st.one_of(st.none(), st.floats(0, 1))))
        paused[first[done.trial], done.stop] += 1
    assert asha.started == trials


@pytest.mark.parametrize("algorithm", ["hyperband", "asha", "bohb", "asha+gp"])
def test_algorithms_that_pause_trials_promote_by_worth(algorithm: str) -> None:
    assert isinstance(make_scheduler(algorithm, 9, 3, 4, Table()), Asha)


@pytest.mark.parametrize(
    "algorithm", [*(a for a in ALGORITHMS if a not in ("hyperband", "asha", "bohb")), "asha-stopping+tpe"]
)
def test_algorithms_that_pause_none_are_refused(algorithm: str) -> None:
    with pytest.raises(SearchError, match="never pauses a trial"):
        replace(FOR_ENSEMBLE, algorithm=algorithm)


def test_a_promotion_needs_what_belongs_to_it() -> None:
    with pytest.raises(SearchError, match="needs a budget"):
        replace(FOR_ENSEMBLE, budget={})
    with pytest.raises(SearchError, match="promote='ensemble'"):
        replace(FOR_ENSEMBLE, promote="loss")
    with pytest.raises(SearchError, match="needs `worth`"):
        simulate(FOR_ENSEMBLE, lambda _, epochs: (1 / epochs, 1.0), 1)


def test_a_search_that_goes_on_promotes_as_before_also_one_older_than_the_choice(tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    resolve_settings(record, FOR_ENSEMBLE, 1, None)
    assert resolve_settings(record, FOR_ENSEMBLE, 1, None).budget == {"flops": 4e7}
    with pytest.raises(
        SearchError, match=r"promote ensemble and budget flops=4e\+07, asked is promote loss and budget none"
    ):
        resolve_settings(record, replace(FOR_ENSEMBLE, promote="loss", budget={}), 1, None)
    old = tmp_path / "old.json"
    by_loss = replace(FOR_ENSEMBLE, promote="loss", budget={})
    resolve_settings(old, by_loss, 1, None)
    text = old.read_text()
    for line in ('"promote": "loss"', '"budget": {}'):
        assert line in text
        text = text.replace(f"  {line},\n", "").replace(f",\n  {line}", "")
    assert "promote" not in text
    old.write_text(text)
    assert resolve_settings(old, by_loss, 1, None).promote == "loss"
