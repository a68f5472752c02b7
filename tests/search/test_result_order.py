"""The order of results, with a small driver in which durations and kills are drawn at random."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.search.asha import Asha, hyperband
from ripieno.search.result_order import ArrivalOrder, OrderName, VirtualOrder, make_order
from ripieno.search.scheduler import TrialStep


def one(trial: int) -> TrialStep:
    return TrialStep(trial, 0, 1)


def test_virtual_order_reports_by_virtual_finish_and_waits_for_the_first() -> None:
    order = VirtualOrder(3)
    for trial, cost in enumerate([5.0, 2.0, 3.0]):
        order.issued(one(trial), cost)
    assert not order.room
    order.arrived(one(0))
    order.arrived(one(2))
    assert order.due() is None  # trial 1 is first in virtual time
    order.arrived(one(1))
    assert order.due() == one(1)
    order.issued(one(3), 0.5)  # from 2.0 to 2.5: before trial 2
    assert order.due() is None
    order.arrived(one(3))
    assert [order.due() for _ in range(4)] == [one(3), one(2), one(0), None]
    assert order.told == 4


def test_virtual_ties_are_reported_as_issued() -> None:
    order = VirtualOrder(4)
    for trial in range(4):
        order.issued(one(trial), 1.0)
        order.arrived(one(trial))
    assert [order.due() for _ in range(4)] == [one(n) for n in range(4)]


def test_arrival_order_reports_as_they_arrive_and_a_reported_result_makes_room() -> None:
    order = ArrivalOrder(2)
    order.issued(one(0), 1.0)
    order.issued(one(1), 1.0)
    order.arrived(one(1))
    assert not order.room  # the job that takes its slot must depend on it
    assert order.due() == one(1)
    assert order.room
    assert order.due() is None


def loss_of(step: TrialStep) -> float | None:
    generator = Random(step.trial)
    return None if generator.random() < 0.1 else generator.random() + 1 / step.stop


def cost_of(step: TrialStep) -> float:
    return (step.stop - step.start) * (1.0 + step.trial % 5)


def search(name: OrderName, window: int, slots: int, durations: Random, spread: float) -> tuple[list[TrialStep], float]:
    """Run a search on `slots` simulated workers, where each job takes its cost times a random factor.

    Return the jobs in the order issued, and the share of the slots' time that was idle while trials were left.
    """
    asha, order = Asha(hyperband(9), 3, 25), make_order(name, window)
    issued: list[TrialStep] = []
    queue: list[TrialStep] = []
    running: list[tuple[float, TrialStep]] = []
    now = idle = total = 0.0
    while True:
        while True:
            while order.room and (step := next(asha.candidates(), None)) is not None:
                asha.start(step)
                order.issued(step, cost_of(step))
                issued.append(step)
                queue.append(step)
            if (due := order.due()) is None:
                break
            asha.tell(due, loss_of(due))
        while queue and len(running) < slots:
            running.append((now + cost_of(queue[0]) * durations.lognormvariate(0, spread), queue.pop(0)))
        if not running:
            return issued, idle / total
        finish, done = min(running, key=lambda r: r[0])
        if asha.started < 25:
            idle += (slots - len(running)) * (finish - now)
            total += slots * (finish - now)
        running.remove((finish, done))
        now = finish
        order.arrived(done)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_virtual_order_gives_the_same_jobs_in_the_same_sequence_whatever_the_timing(
    seeds: tuple[int, int], window: int, few: int, many: int
) -> None:
    jobs, _ = search("virtual", window, few, Random(seeds[0]), 2.0)
    assert search("virtual", window, many, Random(seeds[1]), 2.0)[0] == jobs
    assert len(set(jobs)) == len(jobs)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_arrival_order_keeps_every_slot_busy_while_trials_are_left(seed: int, slots: int) -> None:
    jobs, idle = search("arrival", slots, slots, Random(seed), 0.3)
    assert idle == 0
    assert len(set(jobs)) == len(jobs)


def test_timing_does_change_the_jobs_of_the_arrival_order() -> None:
    assert len({tuple(search("arrival", 3, 3, Random(seed), 0.3)[0]) for seed in range(10)}) > 1


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_twice_as_many_virtual_workers_as_slots_leave_slots_hardly_idle(slots: int) -> None:
    idle = [search("virtual", 2 * slots, slots, Random(seed), 0.3)[1] for seed in range(20)]
    assert sum(idle) / 20 < 0.05
    narrow = [search("virtual", slots, slots, Random(seed), 0.3)[1] for seed in range(20)]
    assert slots == 1 or sum(idle) < sum(narrow) / 3
