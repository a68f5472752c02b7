from __future__ import annotations

import gc
import random
import weakref

import pytest

from ripieno.engine.request_queue import RequestQueue


def serve(queue, piece=4):
    """Serve all requests, `piece` samples at a time; return the order in which they were served."""
    order = []
    left = dict(serve.sizes)
    while queue:
        request = queue.next()
        count = min(piece, left[request])
        left[request] -= count
        order.append((request, count))
        queue.served(request, count)
    return order


def filled(share, **sizes):
    queue = RequestQueue(share)
    for name, size in sizes.items():
        queue.put(name, size)
    serve.sizes = sizes
    return queue


def test_a_small_request_goes_before_what_is_left_of_a_large_one():
    queue = filled(100, large=1000, small=2)
    assert serve(queue)[0] == ("small", 2)


def test_equal_requests_are_served_in_the_order_in_which_they_came():
    queue = filled(100, a=3, b=3, c=3)
    assert [request for request, _ in serve(queue)] == ["a", "b", "c"]


def test_the_oldest_gets_at_least_half_of_what_is_given_while_small_ones_keep_coming():
    queue, share = RequestQueue(8), {"old": 0, "new": 0}
    queue.put("old", 1000)
    for number in range(200):
        queue.put(number, 1)
    while "old" in queue and len(queue) > 1:
        request = queue.next()
        count = 8 if request == "old" else 1
        share["old" if request == "old" else "new"] += count
        queue.served(request, count)
    assert share["new"] == 200
    assert share["old"] >= 192


def test_a_flood_of_large_requests_does_not_hold_up_a_small_one():
    queue = filled(8, **{f"large{i}": 1000 for i in range(50)})
    serve.sizes["small"] = 1
    for _ in range(7):
        queue.served(queue.next(), 4)
    queue.put("small", 1)
    order = []
    while "small" in queue:
        order.append(queue.next())
        queue.served(order[-1], 4 if order[-1] != "small" else 1)
    assert len(order) <= 2


def test_what_has_left_is_never_served_again_and_not_kept():
    class Thing:
        pass

    queue = RequestQueue(8)
    things = [Thing() for _ in range(3)]
    for thing in things:
        queue.put(thing, 1000)
        for _ in range(100):
            queue.served(thing, 1)
    kept = things[0]
    queue.discard(things[1])
    queue.served(things[2], 1000)
    watched = [weakref.ref(thing) for thing in things]
    del things, thing
    gc.collect()
    assert [one() for one in watched] == [kept, None, None]
    assert queue.next() is kept
    queue.discard(kept)
    with pytest.raises(IndexError):
        queue.next()


def test_every_request_is_served_whole_whatever_the_order():
    rng = random.Random(0)
    for _ in range(50):
        sizes = {f"r{i}": rng.randint(1, 60) for i in range(rng.randint(1, 12))}
        queue = filled(rng.randint(1, 20), **sizes)
        given = dict.fromkeys(sizes, 0)
        for request, count in serve(queue, rng.randint(1, 9)):
            given[request] += count
        assert given == sizes
