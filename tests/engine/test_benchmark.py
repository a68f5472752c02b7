from __future__ import annotations

import dataclasses
import importlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_members as fake
import pytest

import ripieno.engine
from ripieno.engine import AllocationBenchmark, Engine, bench
from ripieno.engine.benchmark import BackendPool
from ripieno.errors import EngineError
from ripieno.types import Allocation, Device, Placement


@pytest.mark.alone
def test_throughput_is_what_the_slowest_member_allows(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.002), fake.member(1)], lanes=2, spread_out=True)
    result = bench(bundle, seconds=0.3, batch=4, isolation=isolation, load=fake.load)
    assert 50 < result.throughput < 500
    assert result.spread >= 0
    assert 0.008 < result.p50 <= result.p99
    assert result.seconds >= 0.3
    assert all(work.batches > 0 and work.computing > 0 for work in result.members.values())
    assert sum(worker.samples for worker in result.lanes) > 0
    assert result.combining > 0
    for parts in (result.members.values(), result.lanes):
        assert sum(work.combining for work in parts) == pytest.approx(result.combining, rel=0.2)
    assert result.asked == pytest.approx(2, abs=0.5)


@pytest.mark.alone
def test_few_slow_answers_are_waited_for():
    bundle = fake.bundle([fake.member(0, delay=0.01)], lanes=1)
    result = bench(bundle, seconds=0.01, batch=2, in_flight=2, load=fake.load)
    assert 20 < result.throughput < 100


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"in_flight": 0}, {"batch": -1}, {"seconds": -1}]
)
def test_a_bench_of_nothing_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(EngineError, match=rf"^{name} .* must be"):
        bench(fake.bundle(), isolation="thread", load=fake.load, **wrong)


def test_how_full_the_batches_of_the_busiest_member_were_is_reported():
    bundle = fake.bundle([fake.member(0, delay=0.001), fake.member(1)], lanes=1, batch_size=8)
    full = bench(bundle, seconds=0.2, batch=8, in_flight=8, isolation="thread", load=fake.load)
    thin = bench(bundle, seconds=0.2, batch=2, in_flight=1, isolation="thread", load=fake.load)
    assert full.filled(bundle.allocation.placements) == pytest.approx(1, abs=0.05)
    assert thin.filled(bundle.allocation.placements) == pytest.approx(0.25, abs=0.05)


def test_a_running_engine_can_be_measured_and_stays_open():
    with Engine(fake.bundle(), load=fake.load) as engine:
        assert bench(engine.bundle, engine=engine, seconds=0.02, images=fake.images(10), batch=3).batch == 3
        assert engine.predict(fake.images(1)).shape == (1, fake.CLASSES)


def test_a_request_that_fails_ends_the_bench_with_its_cause():
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE)], lanes=1)
    images = fake.images(4)
    images[:] = fake.RAISE
    with pytest.raises(EngineError, match="a bad pixel"):
        bench(bundle, seconds=0.05, batch=4, images=images, load=fake.load)


def test_allocations_are_benchmarked_one_after_the_other_without_loading_members_again():
    loaded = []

    def load(backend, path, member, device, threads):
        loaded.append((member.id, str(path), threads))
        return fake.FakeBackend(path, member)

    bundle = fake.bundle(members=2, lanes=1)
    members = {m.id: m for m in bundle.members}
    paths = {m: Path("run") / m for m in members}
    with AllocationBenchmark(bundle.ensemble, members, paths, seconds=0.02, load=load) as measure:
        for batch_size in (2, 4, 8):
            places = tuple(dataclasses.replace(p, batch_size=batch_size) for p in bundle.allocation.placements)
            assert measure(dataclasses.replace(bundle.allocation, placements=places)) > 0
    assert [member for member, _, _ in loaded] == list(members)
    assert loaded[0][1] == "run/00000-e001"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_member_is_leased_again_on_the_cores_it_was_loaded_on_and_on_no_others():
    loaded = []

    def load(backend, path, member, device, threads):
        loaded.append(os.sched_getaffinity(0))
        return fake.FakeBackend(path, member)

    member = fake.member(0)
    stock = BackendPool({member.id: Path("model.onnx")}, "model.onnx", load)

    def borrow(core):
        os.sched_setaffinity(0, {core})
        stock.load("onnx", Path("model.onnx"), member, Device("cpu:0", "cpu", 1), 1).close()

    one, other = sorted(os.sched_getaffinity(0))[:2]
    for core in (one, other, one, other):
        with ThreadPoolExecutor(1) as worker:
            worker.submit(borrow, core).result()
    assert loaded == [{one}, {other}]


def test_the_public_bench_is_the_function_whatever_was_imported_before():
    importlib.import_module("ripieno.engine.benchmark")
    assert callable(ripieno.engine.bench)


def test_each_placement_has_its_share_of_the_time():
    bundle = fake.bundle([fake.member(0, delay=0.004), fake.member(1, delay=0.001)], lanes=1)
    result = bench(bundle, seconds=0.2, batch=4, load=fake.load)
    slow, quick = result.shares(bundle.allocation.placements)
    assert slow > quick > 0
    assert slow + quick < 1.6  # a batch under way when it ends counts whole
    assert slow * result.seconds == pytest.approx(result.members[bundle.ensemble.members[0]].computing)


def test_a_bench_keeps_cpu_workers_in_full_batches():
    slow = fake.member(0, delay=0.01)
    devices = tuple(Device(f"cpu:{n}", "cpu", 1 << 30) for n in range(2))
    placements = tuple(Placement(slow.id, d.name, 32, 0) for d in devices)
    made = dataclasses.replace(fake.bundle([slow]), allocation=Allocation("two", "t", devices, placements))
    found = bench(made, seconds=0.5, batch=16, load=fake.load)
    work = found.members[slow.id]
    assert work.samples / work.batches > 28
