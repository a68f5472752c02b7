from __future__ import annotations

import threading
import time

import fake_members as fake
import pytest

from ripieno.engine import Engine, writer
from ripieno.errors import EngineBusyError


def test_a_request_refused_for_want_of_room_is_not_held_to_its_deadline(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.05)], lanes=1, batch_size=2)
    with Engine(bundle, isolation=isolation, load=fake.load, capacity=4) as engine:
        held = engine.submit(fake.images(4))
        with pytest.raises(EngineBusyError):  # it does not fit
            engine.submit(fake.images(1), timeout=0, deadline=0.05)
        patient = threading.Thread(target=engine.predict, args=(fake.images(4),))
        patient.start()
        until = time.monotonic() + 10
        while not engine._dispatcher.desk.writer_waits and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(EngineBusyError):  # another waits before it
            engine.submit(fake.images(1), timeout=0, deadline=0.05)
        held.result(timeout=30)
        patient.join(30)
        stats = engine.stats()
        assert (stats.requests, stats.failed) == (2, 0)


def test_who_may_not_wait_is_refused_at_once_while_another_waits_for_room(monkeypatch):
    monkeypatch.setattr(writer, "COPYING", 20.0)  # a copy under way would be waited for
    bundle = fake.bundle([fake.member(0, delay=0.1)], lanes=1, batch_size=1)
    with Engine(bundle, load=fake.load, capacity=4) as engine:
        engine.submit(fake.images(4))
        patient = threading.Thread(target=engine.predict, args=(fake.images(4),))
        patient.start()
        until = time.monotonic() + 10
        while not engine._dispatcher.desk.writer_waits and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(EngineBusyError):
            engine.submit(fake.images(1), timeout=0)
        assert engine._dispatcher.desk.writer_waits  # the other still does
        patient.join(30)
