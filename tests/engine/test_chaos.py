"""Everything at once: sizes, deadlines, workers that die, missing members, cascades, a ring too small, closing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import threading
import time

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Cascade, Engine, RestartPolicy
from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError
from ripieno.types import DISABLED

QUICK = RestartPolicy(ping=0.8, check=0.05, stall=1.0, back_off=0.01, longest_back_off=0.05)


def right(bundle, images, answer):
    """Return whether an answer is the mean of its members, or with a cascade of a prefix of the order per sample."""
    own, names = fake.each(bundle, images), bundle.ensemble.members
    if answer.members_evaluated is None:
        return np.allclose(answer.predictions, own[[names.index(m) for m in answer.members]].mean(0), atol=1e-5)
    order = [names.index(m) for m in bundle.cascade.order]
    means = np.cumsum(own[order], 0) / np.arange(1, len(order) + 1)[:, None, None]
    return np.allclose(answer.predictions, means[answer.members_evaluated - 1, np.arange(len(images))], atol=1e-5)


def test_whatever_is_asked_while_workers_die_is_answered_right_or_refused(isolation):
    """Each answer is right for the members it names, and every request ends."""
    members = [fake.member(i, delay=0.0003) for i in range(3)]
    bundle = fake.bundle(members, lanes=2, batch_size=5)
    ids = bundle.ensemble.members
    bundle = dataclasses.replace(bundle, cascade=Cascade((ids[2], ids[0], ids[1]), 0.5))
    ends: list[str] = []
    options = {"capacity": 23, "min_members": 1, "patience": QUICK, "isolation": isolation, "load": fake.load}
    with Engine(bundle, **options) as engine:
        stop = threading.Event()

        def client(seed):
            rng = random.Random(seed)
            while not stop.is_set():
                images = fake.images(rng.choice((1, 1, 2, 5, 22, 23, 60)), rng.randrange(1000))
                more = rng.choice(({}, {"cascade": False}, {"members": ids[:2]}, {"deadline": 0.004, "partial": True}))
                more = {**more, "timeout": rng.choice((None, 0.0, 0.01))}
                try:
                    answer = engine.submit(images, **more).result(timeout=30)
                except (EngineBusyError, EngineTimeoutError) as error:
                    ends.append(type(error).__name__)
                    continue
                # after a deadline every sample has the named members, and some samples have more
                good = right(bundle, images, answer) or (answer.partial and answer.members_evaluated is None)
                ends.append("right" if good else f"wrong {more}")

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
        for thread in clients:
            thread.start()
        for _ in range(3 if isolation == "process" else 1):
            time.sleep(0.25)
            if isolation == "process":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(engine.stats().lanes).process, signal.SIGKILL)
        stop.set()
        for thread in clients:
            thread.join(30)
        assert not any(thread.is_alive() for thread in clients)
        until = time.monotonic() + 10
        while engine.stats().pending and time.monotonic() < until:
            time.sleep(0.01)
        assert engine.stats().pending == 0, "a slot was never freed"
    assert "right" in ends
    assert not [end for end in ends if end.startswith("wrong")]


def test_a_deadline_with_the_worker_dead_is_kept():
    """A hanging worker delays no request with a deadline; a request that allows it gets a partial answer."""
    members = [fake.member(0), fake.member(1, bad=fake.HANG, hang=1.5)]
    bundle = fake.bundle(members, lanes=2, spread_out=True)
    images = fake.images(3)
    images[0].flat[0] = fake.HANG
    with Engine(bundle, load=fake.load, patience=RestartPolicy(stall=60.0)) as engine:
        begin = time.monotonic()
        some = engine.submit(images, deadline=0.2, partial=True)
        none = engine.submit(images, deadline=0.2)
        answer = some.result(timeout=10)
        with pytest.raises(EngineTimeoutError):
            none.result(timeout=10)
        assert time.monotonic() - begin < 1.0
        assert answer.partial
        assert answer.members == bundle.ensemble.members[:1]
        np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[0], atol=1e-6)
        engine.close(drain=False, timeout=0.1)


@pytest.mark.parametrize("drain", [True, False])
def test_closing_with_requests_in_flight_ends_every_one(isolation, drain):
    """Also requests that wait for room, with a cascade or without."""
    bundle = fake.bundle([fake.member(i, delay=0.001) for i in range(2)], lanes=1, batch_size=4)
    engine = Engine(
        bundle, isolation=isolation, load=fake.load, capacity=8, cascade=Cascade(bundle.ensemble.members, DISABLED)
    )
    ends: list[str] = []

    def ask(samples):
        images = fake.images(samples)
        try:
            answer = engine.submit(images).result(timeout=20)
            ends.append(
                "right" if np.allclose(answer.predictions, fake.each(bundle, images).mean(0), atol=1e-5) else "wrong"
            )
        except EngineError as error:
            ends.append("closed" if "closed" in str(error) else str(error))

    askers = [threading.Thread(target=ask, args=(samples,)) for samples in (1, 30, 30, 3, 30)]
    for thread in askers:
        thread.start()
    time.sleep(0.03)
    engine.close(drain=drain)
    for thread in askers:
        thread.join(20)
    assert not any(thread.is_alive() for thread in askers)
    assert len(ends) == 5
    assert set(ends) <= {"right", "closed"}
    assert not drain or "right" in ends
