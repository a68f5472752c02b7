from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ripieno.engine.ring import InstanceConfig, Ring


def ring(capacity=16, members=2, workers=2, batch_size=4, **options) -> Ring:
    made = Ring(
        capacity, members, [[InstanceConfig(m, batch_size) for m in range(members)] for _ in range(workers)], **options
    )
    for worker in range(workers):
        made.worker_up(worker)
    return made


def flat(taken):
    return [assignment for assignments in taken.values() for assignment in assignments]


def finish(some: Ring, now: float = 0.0):
    """Complete and schedule until nothing is left; return the finished slices, in order."""
    slices = []
    assignments = flat(some.schedule(now)) + list(some.assignments.values())
    while assignments:
        for assignment in assignments:
            slices += some.complete(assignment.id, 0.001)
        assignments = flat(some.schedule(now))
    return slices


def test_every_member_predicts_every_sample_once_and_then_the_slice_is_finished():
    some = ring()
    request_slice = some.enqueue("request", 0, 6, [0, 1], 0.0)
    seen = {0: set(), 1: set()}
    assignments = flat(some.schedule(0.0))
    finished = []
    while assignments:
        for assignment in assignments:
            positions = {p for start, stop in assignment.ranges for p in range(start, stop)}
            assert not positions & seen[assignment.unit]
            seen[assignment.unit] |= positions
            finished += some.complete(assignment.id, 0.001)
        assignments = flat(some.schedule(0.0))
    assert seen == {0: set(range(6)), 1: set(range(6))}
    assert finished == [request_slice]


def test_small_requests_share_a_batch():
    some = ring(workers=1, members=1)
    for i in range(3):
        some.enqueue(i, 0, 1, [0], 0.0)
    (assignment,) = flat(some.schedule(0.0))
    assert assignment.samples == 3
    assert [request_slice.request for request_slice in some.complete(assignment.id, 0.001)] == [0, 1, 2]


def test_a_full_ring_has_no_room_until_a_slice_is_freed():
    some = ring(capacity=8)
    first = some.enqueue("a", 0, 8, [0, 1], 0.0)
    assert some.piece(1) == 0
    assert finish(some) == [first]
    assert some.piece(1) == 0
    some.free(first)
    assert some.piece(100) == 8


def test_slots_are_freed_in_order_so_that_none_is_written_over():
    some = ring(capacity=8)
    first = some.enqueue("a", 0, 4, [0], 0.0)
    second = some.enqueue("b", 0, 4, [1], 0.0)
    finish(some)
    some.free(second)
    assert some.piece(8) == 0
    some.free(first)
    assert some.piece(8) == 8


def test_the_member_that_is_behind_goes_first_and_among_equals_the_longest():
    some = ring(workers=1, members=2)
    some.measured(0, 0, 0.001)
    some.measured(0, 1, 0.003)
    some.enqueue("a", 0, 4, [0, 1], 0.0)
    (longest,) = flat(some.schedule(0.0))
    assert longest.unit == 1
    some.enqueue("b", 0, 4, [0, 1], 0.0)
    some.complete(longest.id, 0.012)
    (behind,) = flat(some.schedule(0.0))
    assert behind.unit == 0


def test_idle_workers_share_the_last_work_evenly():
    some = ring(capacity=64, members=1, workers=2, batch_size=64)
    for worker in range(2):
        some.measured(worker, 0, 0.01)
    some.enqueue("a", 0, 64, [0], 0.0)
    first, second = flat(some.schedule(0.0))
    assert first.samples == 16
    assert second.samples == 12


def test_the_newest_measurement_counts_a_fifth():
    some = ring(workers=1, members=1)
    some.measured(0, 0, 1.0)
    some.measured(0, 0, 2.0)
    some.enqueue("a", 0, 4, [0], 0.0)
    (assignment,) = flat(some.schedule(0.0))
    assert assignment.seconds == pytest.approx(4 * 1.2)
    some.complete(assignment.id, 4 * 0.2)
    some.enqueue("b", 0, 4, [0], 0.0)
    assert flat(some.schedule(0.0))[0].seconds == pytest.approx(4 * 1.0)


def test_the_last_work_is_not_cut_below_the_floor_of_a_instance():
    for floor, samples in ((8, 8), (2, 5), (12, 10)):
        some = Ring(64, 1, [[InstanceConfig(0, 64, floor)]])
        some.worker_up(0)
        some.measured(0, 0, 0.01)
        some.enqueue("a", 0, 10, [0], 0.0)
        assert flat(some.schedule(0.0))[0].samples == samples


def test_a_batch_waits_for_more_until_max_delay():
    some = ring(workers=1, members=1, max_delay=0.5)
    some.enqueue("a", 0, 1, [0], 10.0)
    assert not some.schedule(10.0)
    assert some.next_deadline() == 10.5
    assert flat(some.schedule(10.5))[0].samples == 1


@pytest.mark.parametrize("first", [0, 1])
def test_what_is_due_first_is_what_waits_longest_whichever_member_it_waits_for(first):
    some = ring(capacity=64, workers=1, members=2, max_delay=0.5)
    some.enqueue("a", 0, 1, [first], 10.0)
    some.enqueue("b", 0, 1, [1 - first], 10.25)
    assert not some.schedule(10.25)
    assert some.next_deadline() == 10.5
    (assignment,) = flat(some.schedule(10.5))
    assert assignment.unit == first
    some.complete(assignment.id, 0.001)
    assert some.next_deadline() == 10.75


def test_nothing_is_due_when_nothing_waits():
    assert ring(max_delay=0.5).next_deadline() is None


def test_what_is_past_due_behind_a_busy_worker_hides_nothing_that_comes_due_later():
    some = Ring(64, 2, [[InstanceConfig(0, 4)], [InstanceConfig(1, 4)]], max_delay=0.5)
    some.worker_up(0)
    some.worker_up(1)
    some.enqueue("a", 0, 4, [0], 9.0)
    assert len(some.schedule(9.0)) == 1  # worker 0 computes
    some.enqueue("b", 0, 1, [0], 9.5)
    some.enqueue("c", 0, 1, [1], 10.25)
    assert not some.schedule(10.25)
    assert some.next_deadline(10.25) == 10.75
    assert some.next_deadline(10.75) is None
    assert flat(some.schedule(10.75))[0].unit == 1


def test_a_full_batch_does_not_wait():
    some = ring(workers=1, members=1, max_delay=0.5)
    some.enqueue("a", 0, 4, [0], 10.0)
    assert flat(some.schedule(10.0))[0].samples == 4


def test_work_ahead_goes_to_a_busy_worker_only_up_to_its_seconds():
    some = ring(capacity=64, workers=1, members=1, ahead=0.002)
    some.measured(0, 0, 0.0002)
    some.enqueue("a", 0, 64, [0], 0.0)
    assert len(flat(some.schedule(0.0))) == 3


def test_work_shorter_than_a_wake_up_stays_in_one_worker_and_longer_work_is_spread():
    for rate, workers in ((1e-7, 1), (1e-3, 2)):
        some = ring(workers=2, members=4, ahead=0.0002)
        for worker, member in itertools.product(range(2), range(4)):
            some.measured(worker, member, rate)
        some.enqueue("a", 0, 1, range(4), 0.0)
        assert len(some.schedule(0.0)) == workers


def test_a_worker_takes_nothing_in_addition_to_what_is_suspected_of_killing_workers():
    some = ring(workers=1, members=3, ahead=1.0)
    some.enqueue("a", 0, 1, range(3), 0.0)
    assert len(flat(some.schedule(0.0))) == 3
    some.release(0)
    some.worker_up(0)
    held = []
    while assignments := flat(some.schedule(0.0)):
        held.append([assignment.tries for assignment in assignments])
        for assignment in assignments:
            some.complete(assignment.id, 0.001)
    assert sorted(held, key=len) == [[1], [0, 0]]


def suspect(some: Ring) -> None:
    """Let the worker die on its new assignment, and come up again."""
    some.release(0)
    some.worker_up(0)


def test_a_worker_that_is_busy_for_long_takes_no_second_assignment_in_addition_to_what_is_suspected():
    some = ring(capacity=64, workers=1, members=2, ahead=0.001)
    some.measured(0, 0, 1.0)
    some.measured(0, 1, 0.5)
    some.enqueue("a", 0, 4, [0], 0.0)
    assert [assignment.unit for assignment in flat(some.schedule(0.0))] == [0]
    suspect(some)
    some.enqueue("b", 0, 40, [1], 0.0)
    (alone,) = flat(some.schedule(0.0))
    assert (alone.unit, alone.tries) == (0, 1)
    assert not some.schedule(0.0)
    some.complete(alone.id, 4.0)
    assert len(flat(some.schedule(0.0))) == 2  # unsuspected work is assigned in addition to the running one


def test_what_is_suspected_is_not_given_to_a_worker_that_holds_something():
    some = ring(capacity=64, workers=2, members=2, ahead=1.0)
    for worker, member in itertools.product(range(2), range(2)):
        some.measured(worker, member, 0.1)
    some.enqueue("a", 0, 4, [0, 1], 0.0)
    held, lost = (assignments[0] for _, assignments in sorted(some.schedule(0.0).items()))
    some.release(lost.worker)
    assert not some.schedule(0.0)
    some.complete(held.id, 0.4)
    (alone,) = flat(some.schedule(0.0))
    assert (alone.worker, alone.unit, alone.tries) == (held.worker, lost.unit, 1)


def test_what_is_suspected_is_predicted_request_by_request_without_what_came_later():
    some = ring(capacity=64, workers=1, members=1, batch_size=8)
    some.enqueue("a", 0, 2, [0], 0.0)
    assert flat(some.schedule(0.0))[0].ranges == [(0, 2)]
    suspect(some)
    some.enqueue("b", 0, 2, [0], 0.0)
    (alone,) = flat(some.schedule(0.0))
    assert (alone.ranges, alone.tries) == ([(0, 2)], 1)
    some.complete(alone.id, 0.001)
    (later,) = flat(some.schedule(0.0))
    assert (later.ranges, later.tries) == ([(2, 4)], 0)


def test_a_busy_worker_gets_a_second_assignment_only_while_much_more_waits():
    some = ring(capacity=256, workers=2, members=2, batch_size=16, ahead=0.002)
    for worker in range(2):
        for member in range(2):
            some.measured(worker, member, 0.01)
    some.enqueue("a", 0, 16, [0, 1], 0.0)
    assert [len(assignments) for assignments in some.schedule(0.0).values()] == [1, 1]
    some.enqueue("b", 0, 200, [0, 1], 0.0)
    assert [len(assignments) for assignments in some.schedule(0.0).values()] == [1, 1]
    assert not some.schedule(0.0)
    assert [len(worker.held) for worker in some.workers] == [2, 2]


def test_the_assignments_of_a_dead_worker_are_assigned_again():
    some = ring(workers=2, members=1)
    request_slice = some.enqueue("a", 0, 4, [0], 0.0)
    (assignment,) = flat(some.schedule(0.0))
    assert some.release(assignment.worker) == ([], [])
    assert some.complete(assignment.id, 0.001) == []
    (again,) = flat(some.schedule(0.0))
    assert again.worker != assignment.worker
    assert some.complete(again.id, 0.001) == [request_slice]


def test_what_a_dead_worker_held_goes_before_what_came_later():
    some = ring(workers=1, members=1, batch_size=2)
    some.enqueue("a", 0, 6, [0], 0.0)
    (assignment,) = flat(some.schedule(0.0))
    some.release(0)
    some.worker_up(0)
    (again,) = flat(some.schedule(0.0))
    assert again.ranges == assignment.ranges == [(0, 2)]


def test_a_worker_that_holds_a_member_waits_for_its_next_batch_to_fill():
    some = ring(capacity=64, workers=1, members=1, ahead=1.0)
    some.enqueue("a", 0, 1, [0], 0.0)
    assert len(flat(some.schedule(0.0))) == 1
    some.enqueue("b", 0, 3, [0], 0.0)
    assert not some.schedule(0.0)
    some.enqueue("c", 0, 1, [0], 0.0)
    assert flat(some.schedule(0.0))[0].samples == 4


def test_samples_over_which_workers_died_are_retried_request_by_request_and_then_given_up():
    some = ring(workers=1, members=1, deaths=2)
    first, second = (some.enqueue(name, 0, 1, [0], 0.0) for name in "ab")
    assert flat(some.schedule(0.0))[0].samples == 2
    assert some.release(0) == ([], [])
    some.worker_up(0)
    (alone,) = flat(some.schedule(0.0))
    assert alone.samples == 1
    hopeless, _ = some.release(0)
    assert hopeless == [(first, 0)]
    assert second.left == [1]


def test_assignments_behind_the_running_one_are_not_suspected():
    some = ring(workers=1, members=2, ahead=1.0, deaths=1)
    request_slice = some.enqueue("a", 0, 1, [0, 1], 0.0)
    running, _ = flat(some.schedule(0.0))
    hopeless, _ = some.release(0)
    assert hopeless == [(request_slice, running.unit)]


def test_a_withdrawn_slice_finishes_when_its_last_assignment_returns():
    some = ring(capacity=8, workers=1, members=2)
    request_slice = some.enqueue("a", 0, 2, [0, 1], 0.0)
    (assignment,) = flat(some.schedule(0.0))
    assert not some.cancel(request_slice, [0, 1])
    assert some.complete(assignment.id, 0.001) == [request_slice]


def test_a_withdrawn_slice_finishes_when_its_worker_dies():
    some = ring(capacity=8, workers=1, members=1)
    request_slice = some.enqueue("a", 0, 2, [0], 0.0)
    some.schedule(0.0)
    some.cancel(request_slice, [0])
    assert some.release(0) == ([], [request_slice])
    some.worker_up(0)
    assert not some.schedule(0.0)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    capacity=st.integers(1, 24),
    members=st.integers(1, 4),
    workers=st.integers(1, 4),
    ahead=st.sampled_from([0.0, 0.004]),
)
def test_whatever_happens_every_sample_is_predicted_once_by_every_member_in_its_own_slot(
    seed, capacity, members, workers, ahead
):
    rng = random.Random(seed)
    instances = [
        [InstanceConfig(m, rng.randint(1, 8)) for m in range(members) if m % workers == worker or rng.random() < 0.5]
        for worker in range(workers)
    ]
    for m in range(members):  # every member has an instance
        if not any(instance.unit == m for worker in instances for instance in worker):
            instances[0].append(InstanceConfig(m, 4))
    some = Ring(capacity, members, instances, ahead=ahead, deaths=10**9)
    down = set(range(workers))
    slots: list[int | None] = [None] * capacity  # position of the sample in each slot
    done: dict[tuple[int, int], int] = {}  # (position, member) -> times
    wanted: dict[int, tuple[int, ...]] = {}
    dropped: list = []
    live: list = []
    freed = []

    def publish():
        count = some.piece(rng.randint(1, 12))
        if not count:
            return
        chosen = sorted(rng.sample(range(members), rng.randint(1, members)))
        for position in range(some.head, some.head + count):
            assert slots[position % capacity] is None
            slots[position % capacity] = position
            wanted[position] = tuple(chosen)
        live.append(some.enqueue(object(), 0, count, chosen, 0.0))

    def check(assignment):
        instance = next(p for p in instances[assignment.worker] if p.unit == assignment.unit)
        assert assignment.samples == sum(stop - start for start, stop in assignment.ranges) <= instance.batch_size
        for start, stop in assignment.ranges:
            assert start % capacity + stop - start <= capacity
            for position in range(start, stop):
                assert slots[position % capacity] == position
                assert assignment.unit in wanted[position]

    def settle(slices):
        for request_slice in slices:
            if request_slice not in dropped:
                for position in range(request_slice.start, request_slice.stop):
                    assert all(done.get((position, m)) == 1 for m in wanted[position])
            for position in range(request_slice.start, request_slice.stop):
                slots[position % capacity] = None
            some.free(request_slice)
            freed.append(request_slice)
            live.remove(request_slice)

    def complete():
        if some.assignments:
            assignment = rng.choice(list(some.assignments.values()))
            for start, stop in assignment.ranges:
                for position in range(start, stop):
                    done[position, assignment.unit] = done.get((position, assignment.unit), 0) + 1
            settle(some.complete(assignment.id, rng.random() * 0.01))

    def die():
        worker = rng.randrange(workers)
        if worker not in down:
            down.add(worker)
            settle(some.release(worker)[1])

    def rise():
        if down:
            worker = rng.choice(sorted(down))
            down.remove(worker)
            some.worker_up(worker)

    def withdraw():
        if live:
            request_slice = rng.choice(live)
            dropped.append(request_slice)
            if some.cancel(request_slice, range(members)):
                settle([request_slice])

    acts = [publish] * 4 + [complete] * 4 + [die, rise, rise, withdraw]
    for _ in range(150):
        rng.choice(acts)()
        for assignment in flat(some.schedule(0.0)):
            check(assignment)
        assert 0 <= some.head - some.tail <= capacity
        assert some.idle == sum(worker.up and not worker.held for worker in some.workers)
    while down:
        rise()
    for assignment in flat(some.schedule(0.0)):
        check(assignment)
    while some.assignments:
        complete()
        for assignment in flat(some.schedule(0.0)):
            check(assignment)
    assert not live
    assert some.head == some.tail
    assert all(not member and member.waiting == 0 for member in some.units)


@pytest.mark.parametrize("bad", [0, -1])
def test_a_ring_has_at_least_one_slot(bad):
    with pytest.raises(AssertionError):
        Ring(bad, 1, [[InstanceConfig(0, 1)]])
