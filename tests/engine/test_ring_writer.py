from __future__ import annotations

import gc
import threading
import time
import weakref

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Engine, ring_writer
from ripieno.errors import EngineBusyError, EngineError


def test_a_request_refused_for_lack_of_room_is_not_held_to_its_deadline(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.05)], lanes=1, batch_size=2)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=4) as engine:
        held = engine.submit(fake.images(4))
        with pytest.raises(EngineBusyError):  # the request does not fit
            engine.submit(fake.images(1), timeout=0, deadline=0.05)
        patient = threading.Thread(target=engine.predict, args=(fake.images(4),))
        patient.start()
        until = time.monotonic() + 10
        while not engine.waiting and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(EngineBusyError):  # another request waits before it
            engine.submit(fake.images(1), timeout=0, deadline=0.05)
        held.result(timeout=30)
        patient.join(30)
        stats = engine.stats()
        assert (stats.requests, stats.failed) == (2, 0)


def test_a_caller_that_may_not_wait_is_refused_at_once_while_another_waits_for_room(monkeypatch):
    monkeypatch.setattr(ring_writer, "COPYING", 20.0)  # it would wait for a copy in progress
    bundle = fake.bundle([fake.member(0, delay=0.1)], lanes=1, batch_size=1)
    with Engine(bundle, load=fake.load, capacity=4) as engine:
        engine.submit(fake.images(4))
        patient = threading.Thread(target=engine.predict, args=(fake.images(4),))
        patient.start()
        until = time.monotonic() + 10
        while not engine.waiting and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(EngineBusyError):
            engine.submit(fake.images(1), timeout=0)
        assert engine.waiting  # the other request still waits
        patient.join(30)


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.005)], lanes=1, batch_size=4)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=16) as engine:
        large = engine.submit(fake.images(2000), block=False)
        time.sleep(0.1)
        began = time.monotonic()
        for _ in range(3):
            engine.predict(fake.images(1))
        took = time.monotonic() - began
        assert not large.done()
        large.cancel()
    assert took < 3, "a large request takes 10 s"


def test_a_cancelled_request_is_written_no_further_and_its_images_are_released(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.005)], lanes=1, batch_size=4)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=16) as engine:
        images = fake.images(4000)
        watched = weakref.ref(images)
        futures = [engine.submit(images, block=False) for _ in range(5)]
        del images
        for future in futures:
            future.cancel()
        futures.clear()
        until = time.monotonic() + 10
        while (watched() is not None or engine.stats().pending) and time.monotonic() < until:
            gc.collect()
            time.sleep(0.01)
        assert watched() is None
        assert engine.waiting == 0
        assert engine.stats().lanes[0].samples < 200


def test_a_caller_that_does_not_block_gets_a_future_at_once_and_the_right_answer_from_it(isolation):
    bundle = fake.bundle(2, lanes=2, batch_size=4)
    inputs = fake.images(50)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=8) as engine:
        answers = [future.result(30) for future in [engine.submit(inputs, block=False) for _ in range(4)]]
    for answer in answers:
        np.testing.assert_allclose(answer.predictions, fake.each(bundle, inputs).mean(0), atol=1e-6)


def test_room_that_does_not_come_in_time_fails_the_future_of_a_caller_that_does_not_block():
    bundle = fake.bundle([fake.member(0, delay=0.1)], lanes=1, batch_size=1)
    with Engine(bundle, load=fake.load, capacity=4) as engine:
        engine.submit(fake.images(4))
        future = engine.submit(fake.images(4), block=False, timeout=0.05)
        with pytest.raises(EngineBusyError):
            future.result(5)
        assert engine.waiting == 0


def test_an_engine_that_closes_refuses_what_waits_and_ends_what_is_in_the_ring_in_part():
    bundle = fake.bundle([fake.member(0, delay=0.01)], lanes=1, batch_size=2)
    engine = Engine(bundle, load=fake.load, capacity=8)
    begun = engine.submit(fake.images(20), block=False)
    waiting = engine.submit(fake.images(30), block=False)
    refused: list[BaseException] = []

    def patient() -> None:
        try:
            engine.submit(fake.images(40))
        except EngineError as error:
            refused.append(error)

    thread = threading.Thread(target=patient)
    thread.start()
    until = time.monotonic() + 10
    while engine.waiting < 3 and time.monotonic() < until:
        time.sleep(0.001)
    engine.close()
    thread.join(10)
    assert len(begun.result(0).predictions) == 20
    with pytest.raises(EngineError, match="closed"):
        waiting.result(0)
    assert [type(error) for error in refused] == [EngineError]


def test_a_request_that_breaks_a_member_does_not_take_those_that_wait_for_room_with_it(isolation):
    members = [fake.member(0, delay=0.05), fake.member(1, bad=fake.RAISE)]
    bundle = fake.bundle(members, lanes=1, batch_size=4)
    bad = fake.images(4)
    bad[0].flat[0] = fake.RAISE
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=4) as engine:
        asked = [engine.submit(images, block=False) for images in (bad, fake.images(4))]
        with pytest.raises(EngineError, match="died"):
            asked[0].result(30)
        assert len(asked[1].result(30).predictions) == 4


def test_an_engine_closes_though_an_interrupted_caller_still_holds_the_lock_of_the_ring(monkeypatch):
    monkeypatch.setattr("ripieno.engine.ring_writer.CLOSING", 0.05)
    engine = Engine(fake.bundle(members=1), isolation="thread", load=fake.load)
    engine._dispatcher._writer._write_lock.acquire()
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
