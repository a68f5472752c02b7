from __future__ import annotations

import dataclasses
import os

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Engine
from ripieno.engine.worker_config import MOST_BYTES, RING_BYTES, capacity_of, map_cores, worker_config, workers_of
from ripieno.types import Device, Task


def cpu(number: int, *cores: int) -> Device:
    return Device(f"cpu:{number}", "cpu", 1 << 30, cores)


def test_planned_cores_are_kept_where_all_of_them_may_be_used():
    halves = (cpu(0, 4, 6), cpu(1, 5, 7))
    assert [map_cores(half, halves, range(8)) for half in halves] == [(4, 6), (5, 7)]


def test_planned_cores_that_are_not_here_give_way_to_as_many_that_are():
    halves = (cpu(0, 0, 1), cpu(1, 2, 3))
    assert [map_cores(half, halves, {8, 9, 10, 11, 12}) for half in halves] == [(8, 9), (10, 11)]
    assert map_cores(cpu(0, 0, 1), [cpu(0, 0, 1)], {1, 5}) == (1, 5)


def test_devices_share_out_fewer_cores_than_were_planned():
    halves = (cpu(0, 0, 1, 2, 3), cpu(1, 4, 5, 6, 7))
    assert [map_cores(half, halves, {0, 1, 2, 3}) for half in halves] == [(0, 1), (2, 3)]
    assert [map_cores(half, halves, {3}) for half in halves] == [(3,), (3,)]


def test_a_device_that_is_not_pinned_stays_so():
    assert map_cores(cpu(0), [cpu(0), cpu(1, 99)], {0}) == ()


def test_a_bundle_planned_on_cores_that_are_not_here_is_served_on_those_that_are(isolation):
    here = os.sched_getaffinity(0)
    bundle = fake.bundle(lanes=2, cores=tuple(range(100_000, 100_000 + len(here))))
    images = fake.images(5)
    with Engine(bundle, isolation=isolation, load=fake.load) as engine:
        np.testing.assert_allclose(engine.predict(images), fake.each(bundle, images).mean(0), atol=1e-6)
        if isolation == "process":
            pinned = [os.sched_getaffinity(worker.process) for worker in engine.stats().lanes]
            assert all(len(own) == max(1, len(here) // 2) for own in pinned)
            assert set.union(*pinned) <= here
    assert os.sched_getaffinity(0) == here


def test_a_worker_knows_the_largest_batch_of_each_of_its_members():
    bundle = fake.bundle(members=2, lanes=1)
    places = tuple(dataclasses.replace(p, batch_size=2 + i) for i, p in enumerate(bundle.allocation.placements))
    bundle = dataclasses.replace(bundle, allocation=dataclasses.replace(bundle.allocation, placements=places))
    (worker,) = workers_of(bundle)
    assert [spec.batch_size for spec in worker_config(bundle, worker, [worker]).models] == [2, 3]


@pytest.mark.parametrize(("largest", "capacity"), [(1, 1024), (8, 1024), (100, 1000), (600, 2400), (5000, 20_000)])
def test_a_ring_holds_whole_batches_at_least_four_of_the_largest(largest, capacity):
    assert capacity_of(fake.bundle(members=2), largest) == capacity


def test_a_ring_of_large_samples_is_bounded_by_their_bytes():
    bundle = fake.bundle(members=2)
    large = dataclasses.replace(bundle, input=dataclasses.replace(bundle.input, shape=(512, 512, 3), dtype="float32"))
    row = 512 * 512 * 3 * 4 + 4 * 2 * len(bundle.classes)
    assert capacity_of(large, 2) == RING_BYTES // row // 2 * 2 == 10
    assert capacity_of(large, 4) == 16


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 14), (8, 4), (32, 4), (64, 3), (256, 1)])
def test_a_ring_of_masks_holds_fewer_batches(batch_size, batches):
    bundle = fake.bundle(members=2)
    task = Task("segmentation", (256, 256, 4), ("a", "b", "c", "d"))
    large = dataclasses.replace(bundle, input=dataclasses.replace(bundle.input, shape=(256, 256, 3)), task=task)
    row = 256 * 256 * 3 + 4 * 2 * 256 * 256 * 4
    assert capacity_of(large, batch_size) == batches * batch_size
    assert batches == 1 or capacity_of(large, batch_size) * row <= MOST_BYTES
