from __future__ import annotations

from ripieno.engine.range_queue import MOST_RANGES, RangeQueue


def todo(*ranges: tuple[int, int], capacity: int = 64) -> RangeQueue:
    made = RangeQueue(capacity)
    for start, stop in ranges:
        made.append(start, stop)
    return made


def test_neighbours_are_taken_as_one_range_and_others_together():
    some = todo((0, 2), (2, 4), (6, 8))
    assert some.take(8) == ([(0, 4), (6, 8)], 6, 0)
    assert (bool(some), some.waiting) == (False, 0)


def test_no_more_is_taken_than_asked_and_the_rest_waits_at_the_front():
    some = todo((0, 2), (6, 9))
    assert some.take(3) == ([(0, 2), (6, 7)], 3, 0)
    assert (some.front, some.waiting) == (7, 2)


def test_a_range_ends_where_the_buffer_does():
    some = todo((6, 8), (8, 10), capacity=8)
    assert some.take(8)[0] == [(6, 8), (8, 10)]
    some.put_back([(6, 8), (8, 10)], 0)
    assert some.take(8)[0] == [(6, 8), (8, 10)]


def test_a_assignment_has_no_more_ranges_than_its_message_has_room_for():
    some = todo(*((2 * n, 2 * n + 1) for n in range(MOST_RANGES + 5)), capacity=1024)
    ranges, samples, _ = some.take(1000)
    assert len(ranges) == samples == MOST_RANGES
    assert some.waiting == 5


def test_what_is_suspected_is_taken_alone():
    some = todo((4, 6), (8, 10))
    some.put_back([(0, 1), (1, 2)], 2)
    assert some.suspected
    assert some.take(8) == ([(0, 1)], 1, 2)
    assert some.take(8) == ([(1, 2)], 1, 2)
    assert not some.suspected
    assert some.take(8) == ([(4, 6), (8, 10)], 4, 0)


def test_what_is_not_suspected_is_taken_without_the_suspected_behind_it():
    some = todo((8, 10))
    some.put_back([(4, 6)], 1)
    some.put_back([(0, 2)], 0)
    assert not some.suspected
    assert some.take(8) == ([(0, 2)], 2, 0)
    assert some.take(8) == ([(4, 6)], 2, 1)


def test_a_suspected_range_is_not_prolonged_by_what_comes_later():
    some = todo()
    some.put_back([(0, 2)], 1)
    some.append(2, 4)
    assert some.take(8) == ([(0, 2)], 2, 1)
    assert some.take(8) == ([(2, 4)], 2, 0)


def test_what_is_put_back_goes_before_what_waits_and_is_joined_unless_suspected():
    some = todo((6, 8))
    some.put_back([(0, 2), (2, 4)], 0)
    assert (some.front, some.waiting) == (0, 6)
    assert some.take(8)[0] == [(0, 4), (6, 8)]
    some.put_back([(0, 2), (2, 4)], 1)
    assert some.take(8)[0] == [(0, 2)]


def test_a_cut_leaves_what_is_before_and_after_with_its_tries():
    some = todo((8, 12))
    some.put_back([(0, 6)], 1)
    assert some.cut(2, 9) == 5
    assert some.waiting == 5
    assert [some.take(8) for _ in range(2)] == [([(0, 2)], 2, 1), ([(9, 12)], 3, 0)]
    assert some.cut(0, 64) == 0
