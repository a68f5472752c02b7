from __future__ import annotations

import dataclasses
from pathlib import Path

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import AllocationBenchmark, Engine
from ripieno.engine.open_loop import LEAST, measure_latency
from ripieno.errors import EngineError


def test_a_sample_that_comes_alone_waits_for_its_member_only():
    with Engine(fake.bundle([fake.member(0, delay=0.002)], lanes=1), load=fake.load) as engine:
        found = measure_latency(engine, 400.0, 0.1)
    assert (found.samples, found.rate) == (LEAST, 400.0)
    assert 0.002 <= found.p50 <= found.p99 < 1
    assert found.spread >= 0


@pytest.mark.alone
def test_a_wait_is_timed_from_when_its_own_sample_was_due():
    with Engine(fake.bundle([fake.member(0)], lanes=1), load=fake.load) as engine:
        found = measure_latency(engine, 200.0, 0.1)
    # half of the samples are due after half a second
    assert found.p50 < 0.2


def test_samples_that_come_faster_than_they_are_answered_wait_ever_longer():
    bundle = fake.bundle([fake.member(0, delay=0.002)], lanes=1)
    single = tuple(dataclasses.replace(p, batch_size=1) for p in bundle.allocation.placements)
    slow = dataclasses.replace(bundle, allocation=dataclasses.replace(bundle.allocation, placements=single))
    with Engine(slow, load=fake.load) as engine:
        found = measure_latency(engine, 5000.0, 0.01)
    # the last of 200 is due after 40 ms and answered after 400 ms
    assert found.p99 > 0.2


def test_allocations_are_benchmarked_at_a_rate():
    bundle = fake.bundle(members=2, lanes=1)
    members = {m.id: m for m in bundle.members}
    load = lambda backend, path, member, device, threads: fake.FakeBackend(path, member)  # noqa: E731
    with AllocationBenchmark(
        bundle.ensemble, members, {m: Path(m) for m in members}, seconds=0.02, load=load
    ) as measure:
        assert 0 < measure.latency(bundle.allocation, 2000.0).p99 < 1


def test_a_request_that_fails_ends_it_with_its_cause():
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE)], lanes=1)
    with Engine(bundle, load=fake.load) as engine, pytest.raises(EngineError, match="a bad pixel"):
        measure_latency(_Once(engine, fake.RAISE), 5000.0, 0.01)


class _Once:
    """Engine in which the pixels of the first sample are `value`."""

    def __init__(self, engine: Engine, value: int) -> None:
        self.engine, self.value, self.bundle = engine, value, engine.bundle

    def predict(self, images):
        return self.engine.predict(images)

    def submit(self, images):
        value, self.value = self.value, 0
        return self.engine.submit(np.full_like(images, value) if value else images)
