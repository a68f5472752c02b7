from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
import time

import fake_members as fake
import numpy as np
import pytest
from PIL import Image

from ripieno.engine import Engine, RestartPolicy
from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError
from ripieno.tasks.uncertainty import mutual_information


def started(bundle, isolation, **options) -> Engine:
    return Engine(bundle, isolation=isolation, load=fake.load, **options)


def mean(bundle, images):
    return fake.each(bundle, images).mean(0)


def test_requests_of_every_size_get_the_mean_of_all_members(isolation):
    bundle = fake.bundle()
    with started(bundle, isolation, capacity=32) as engine:
        for samples in (1, 2, 7, 8, 9, 31, 32, 33, 500):
            images = fake.images(samples, seed=samples)
            answer = engine.predict(images)
            assert answer.dtype == np.float32
            np.testing.assert_allclose(answer, mean(bundle, images), atol=1e-6)


def test_many_clients_at_once_each_get_their_own_answer(isolation):
    bundle = fake.bundle(members=3, lanes=2)
    wrong = []

    def client(engine, seed):
        for i in range(25):
            images = fake.images(1 + (seed + i) % 11, seed=1000 * seed + i)
            if not np.allclose(engine.predict(images), mean(bundle, images), atol=1e-6):
                wrong.append((seed, i))

    with started(bundle, isolation, capacity=40) as engine:
        threads = [threading.Thread(target=client, args=(engine, seed)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert engine.stats().requests == 150
        assert engine.stats().pending == 0
    assert not wrong


def test_the_same_request_gets_the_same_bytes_again(isolation):
    with started(fake.bundle(lanes=2), isolation) as engine:
        images = fake.images(50)
        first = engine.predict(images)
        assert all((engine.predict(images) == first).all() for _ in range(5))


def test_members_in_separate_workers_answer_together(isolation):
    bundle = fake.bundle(members=3, lanes=3, spread_out=True)
    images = fake.images(100)
    with started(bundle, isolation) as engine:
        np.testing.assert_allclose(engine.predict(images), mean(bundle, images), atol=1e-6)
        assert [worker.samples for worker in engine.stats().lanes] == [100, 100, 100]


def test_weights_count_in_a_weighted_mean(isolation):
    bundle = fake.bundle(combiner="weighted", weights=(0.5, 0.3, 0.2))
    images = fake.images(10)
    with started(bundle, isolation) as engine:
        expected = np.einsum("m,msc->sc", [0.5, 0.3, 0.2], fake.each(bundle, images))
        np.testing.assert_allclose(engine.predict(images), expected, atol=1e-6)


def test_some_members_can_be_asked_alone_while_others_are_asked_together(isolation):
    bundle = fake.bundle()
    ids = bundle.ensemble.members
    images = fake.images(20)
    own = fake.each(bundle, images)
    with started(bundle, isolation) as engine:
        futures = [engine.submit(images, chosen) for chosen in ([ids[1]], None, [ids[2], ids[0]]) for _ in range(3)]
        answers = [future.result() for future in futures]
    assert answers[0].members == (ids[1],)
    assert answers[6].members == (ids[0], ids[2])
    for answer, expected in zip(answers, [own[1], own.mean(0), own[[0, 2]].mean(0)] * 3, strict=False):
        del expected
        chosen = [ids.index(m) for m in answer.members]
        np.testing.assert_allclose(answer.predictions, own[chosen].mean(0), atol=1e-6)


def test_spread_and_the_members_own_answers_come_on_request(isolation):
    bundle = fake.bundle()
    images = fake.images(30)
    own = fake.each(bundle, images)
    with started(bundle, isolation, capacity=8) as engine:
        answer = engine.submit(images, spread=True, each=True, disagreement=True).result()
        plain = engine.submit(images).result()
    np.testing.assert_allclose(answer.member_predictions, own, atol=1e-6)
    label = own.mean(0).argmax(1)
    np.testing.assert_allclose(answer.std, own[:, np.arange(30), label].std(0), atol=1e-5)
    np.testing.assert_allclose(answer.disagreement, mutual_information(own, np.full(3, 1 / 3), "softmax"), atol=1e-6)
    assert plain.std is None
    assert plain.disagreement is None
    assert plain.member_predictions is None


def test_asyncio_callers_wait_without_blocking_their_loop(isolation):
    bundle = fake.bundle()

    async def ask(engine):
        batches = [fake.images(5, seed=i) for i in range(20)]
        answers = await asyncio.gather(*(engine.answer(images) for images in batches))
        for images, answer in zip(batches, answers, strict=True):
            np.testing.assert_allclose(answer.predictions, mean(bundle, images), atol=1e-6)

    with started(bundle, isolation, capacity=16) as engine:
        asyncio.run(ask(engine))


def test_a_full_ring_refuses_what_may_not_wait(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.05)], lanes=1, batch_size=2)
    with started(bundle, isolation, capacity=4) as engine:
        held = engine.submit(fake.images(4))
        with pytest.raises(EngineBusyError, match="4 of 4 slots in the queue are taken, cannot accept 1 more"):
            engine.submit(fake.images(1), timeout=0)
        with pytest.raises(EngineBusyError):
            engine.submit(fake.images(4), timeout=0.01)
        assert held.result().predictions.shape == (4, fake.CLASSES)
        assert engine.predict(fake.images(1)).shape == (1, fake.CLASSES)


def test_a_full_ring_makes_a_patient_caller_wait_and_never_grows(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.002)], lanes=1, batch_size=2)
    with started(bundle, isolation, capacity=4) as engine:
        futures = [engine.submit(fake.images(3, seed=i)) for i in range(10)]
        assert engine.stats().pending <= 4
        for i, future in enumerate(futures):
            np.testing.assert_allclose(future.result().predictions, mean(bundle, fake.images(3, seed=i)), atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e10, "1", True])
def test_a_time_that_is_none_is_refused_and_the_engine_goes_on(value):
    bundle = fake.bundle()
    with pytest.raises(EngineError, match=r"max_delay .* must be a number of seconds"):
        started(bundle, "thread", max_delay=value)
    with pytest.raises(EngineError, match=r"stall .* must be a number of seconds"):
        RestartPolicy(stall=value)
    with started(bundle, "thread") as engine:
        for name in ("deadline", "timeout"):
            with pytest.raises(EngineError, match=rf"{name} .* must be a number of seconds, 0 or more"):
                engine.submit(fake.images(1), **{name: value})
        with pytest.raises(EngineError, match="timeout"):
            engine.close(timeout=value)
        assert engine.submit(fake.images(1), deadline=1e8).result(5).predictions.shape == (1, 3)
        assert engine.stats().failed == 0


@pytest.mark.alone
def test_an_idle_worker_waits_max_delay_and_not_for_a_busy_one():
    bundle = fake.bundle([fake.member(0, delay=0.2), fake.member(1)], spread_out=True)
    slow, quick = bundle.ensemble.members
    with started(bundle, "thread", max_delay=0.02) as engine:
        first = engine.submit(fake.images(5), [slow])  # a second's work
        time.sleep(0.1)
        behind = engine.submit(fake.images(1), [slow])
        time.sleep(0.1)
        begin = time.monotonic()
        engine.submit(fake.images(1), [quick]).result(5)
        assert time.monotonic() - begin < 0.4
        first.result(5)
        behind.result(5)


@pytest.mark.alone
def test_a_cancelled_request_makes_room(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.02)], lanes=1, batch_size=1)
    with started(bundle, isolation, capacity=8) as engine:
        future = engine.submit(fake.images(8))
        assert future.cancel()
        begin = time.monotonic()
        assert engine.predict(fake.images(1)).shape == (1, fake.CLASSES)
        assert time.monotonic() - begin < 0.02 * 8
        assert engine.stats().members[bundle.ensemble.members[0]].samples < 8


def test_a_late_request_fails_with_a_timeout(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.05)], lanes=1)
    with started(bundle, isolation) as engine:
        future = engine.submit(fake.images(8), deadline=0.02)
        with pytest.raises(EngineTimeoutError, match="8 of 8 samples unanswered"):
            future.result()


def test_a_late_request_may_be_answered_by_the_members_that_finished(isolation):
    bundle = fake.bundle([fake.member(0), fake.member(1, delay=0.1)], lanes=2, spread_out=True)
    images = fake.images(8)
    with started(bundle, isolation) as engine:
        answer = engine.submit(images, deadline=0.2, partial=True).result()
        assert answer.partial
        assert answer.members == bundle.ensemble.members[:1]
        np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[0], atol=1e-6)
        stats = engine.stats()
        assert (stats.requests, stats.partial, stats.failed) == (1, 1, 0)


def test_a_request_that_is_late_is_counted_as_failed_once():
    with started(fake.bundle([fake.member(0, delay=0.2)], lanes=1), "thread") as engine:
        future = engine.submit(fake.images(4), deadline=0.02)
        with pytest.raises(EngineTimeoutError):
            future.result(timeout=30)
        stats = engine.stats()
        assert (stats.requests, stats.partial, stats.failed) == (0, 0, 1)


def test_an_answer_in_time_is_not_touched_by_its_deadline(isolation):
    with started(fake.bundle(), isolation) as engine:
        answer = engine.submit(fake.images(3), deadline=5.0, partial=True).result()
        assert not answer.partial
        assert len(answer.members) == 3


def test_a_batch_may_wait_to_fill(isolation):
    bundle = fake.bundle(members=1, lanes=1, batch_size=4)
    with started(bundle, isolation, max_delay=30.0) as engine:
        futures = [engine.submit(fake.images(1, seed=i)) for i in range(4)]
        for future in futures:
            future.result(timeout=10)
        assert engine.stats().lanes[0].batches == 1


def test_a_batch_waits_no_longer_than_max_delay(isolation):
    bundle = fake.bundle(members=2, lanes=1, batch_size=4)
    with started(bundle, isolation, max_delay=0.02) as engine:
        assert engine.submit(fake.images(1)).result(timeout=10).predictions.shape == (1, fake.CLASSES)


def test_no_samples_are_answered_with_none(isolation):
    with started(fake.bundle(), isolation) as engine:
        assert engine.predict(fake.images(0)).shape == (0, fake.CLASSES)


def test_closing_answers_what_is_in_flight_first(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.005)], lanes=1)
    engine = started(bundle, isolation)
    futures = [engine.submit(fake.images(4, seed=i)) for i in range(5)]
    engine.close()
    assert all(future.done() and not future.exception() for future in futures)
    with pytest.raises(EngineError, match="The engine is closed"):
        engine.predict(fake.images(1))


def test_closing_without_draining_fails_what_is_in_flight(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.02)], lanes=1, batch_size=1)
    engine = started(bundle, isolation)
    future = engine.submit(fake.images(10))
    engine.close(drain=False)
    engine.close()
    with pytest.raises(EngineError, match="closed before the request was answered"):
        future.result()


def test_a_caller_waiting_for_room_is_notified_of_the_closing(isolation):
    bundle = fake.bundle([fake.member(0, delay=0.02)], lanes=1, batch_size=1)
    engine = started(bundle, isolation, capacity=4)
    engine.submit(fake.images(4))
    heard = []

    def wait():
        try:
            engine.predict(fake.images(4))
        except EngineError as error:
            heard.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.01)
    engine.close(drain=False)
    thread.join(10)
    assert len(heard) == 1


def test_a_member_that_cannot_be_loaded_stops_the_start_with_its_reason(isolation):
    bundle = fake.bundle([fake.member(0), fake.member(1, load_fails="no such file")])
    with pytest.raises(EngineError, match="no such file"):
        started(bundle, isolation)


def test_stats_report_the_work_of_members_and_workers(isolation):
    bundle = fake.bundle(members=2, lanes=2)
    with started(bundle, isolation) as engine:
        engine.predict(fake.images(100))
        stats = engine.stats()
    assert stats.requests == 1
    assert stats.samples == 100
    assert [work.samples for work in stats.members.values()] == [100, 100]
    assert sum(worker.samples for worker in stats.lanes) == 200
    assert all(worker.computing > 0 for worker in stats.lanes if worker.batches)
    assert all(worker.up and worker.restarts == 0 for worker in stats.lanes)
    assert stats.combining > 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 28, 28), np.uint8), r"images have shape \(3, 28, 28\), must be \(samples, 2, 2, 1\) uint8"),
        (np.zeros((3, 2, 2, 1), np.complex64), "images are complex64, must be uint8"),
        (np.full((1, 2, 2, 1), 0.5, np.float32), "whole numbers 0 to 255"),
        (np.full((1, 2, 2, 1), 256, np.float32), "whole numbers 0 to 255"),
        (np.full((1, 2, 2, 1), np.nan, np.float32), "whole numbers 0 to 255"),
    ],
)
def test_wrong_images_are_refused_in_one_line(images, message):
    with started(fake.bundle(), "thread") as engine, pytest.raises(EngineError, match=message):
        engine.submit(images)


def test_the_engine_accepts_pictures_and_paths_and_pairs_like_arrays(tmp_path):
    images = fake.images(3)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    sources = (list(images), paths, [Image.open(p) for p in paths], tmp_path, (images, np.arange(3)))
    with started(fake.bundle(), "thread") as engine:
        answers = engine.predict(images)
        for source in sources:
            assert (engine.predict(source) == answers).all()
        with pytest.raises(EngineError, match="does not exist"):
            engine.predict(tmp_path / "nowhere.png")


def test_images_of_another_range_than_that_trained_on_are_refused():
    bundle = fake.bundle()
    seen = dataclasses.replace(bundle, input=dataclasses.replace(bundle.input, range=(0.0, 1.0)))
    with started(seen, "thread") as engine:
        engine.predict(fake.images(3) % 2)
        with pytest.raises(EngineError, match="the network was trained on 0 to 1"):
            engine.predict(fake.images(3) | 128)


def test_whole_numbers_as_float32_are_taken_for_uint8():
    images = fake.images(3)
    with started(fake.bundle(), "thread") as engine:
        assert (engine.predict(images.astype(np.float32)) == engine.predict(images)).all()


@pytest.mark.parametrize("members", [[], ["nobody"], ["00000-e001", "00000-e001"]])
def test_wrong_members_are_refused_with_the_names_there_are(members):
    with started(fake.bundle(), "thread") as engine, pytest.raises(EngineError, match="members are: 00000-e001"):
        engine.submit(fake.images(1), members)


def test_an_allocation_that_leaves_a_member_out_is_refused():
    bundle = fake.bundle(members=3, lanes=1)
    short = bundle.allocation.placements[:2]
    object.__setattr__(bundle.allocation, "placements", short)
    with pytest.raises(EngineError, match="Member 00002-e001 has no placement"):
        started(bundle, "thread")


def test_a_cpu_worker_is_pinned_to_its_share_of_the_cores(isolation):
    cores = tuple(sorted(os.sched_getaffinity(0)))
    before = os.sched_getaffinity(0)
    with started(fake.bundle(cores=cores), isolation) as engine:
        engine.predict(fake.images(4))
        if isolation == "process":
            pinned = [os.sched_getaffinity(worker.process) for worker in engine.stats().lanes]
            assert all(len(own) == max(1, len(cores) // 2) for own in pinned)
    assert os.sched_getaffinity(0) == before


def test_patience_has_defaults():
    assert RestartPolicy().deaths == 3


def test_an_answered_request_leaves_no_cycle_for_the_collector(isolation):
    with started(fake.bundle(), isolation, capacity=64) as engine:
        engine.predict(fake.images(5))
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                engine.predict(fake.images(3))
            engine.predict(fake.images(200))
            engine.submit(fake.images(1), deadline=30.0).result()
            time.sleep(0.05)
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_a_refused_start_leaves_nothing_open():
    before = set(os.listdir("/proc/self/fd"))
    bundle = fake.bundle()
    with pytest.raises(EngineError, match="at the top level of a module"):
        Engine(bundle, isolation="process", load=lambda *_: fake.load(*_))
    object.__setattr__(bundle.allocation, "devices", ())
    with pytest.raises(EngineError, match="not one of its devices"):
        started(bundle, "process")
    assert set(os.listdir("/proc/self/fd")) == before


def test_tied_votes_of_unequal_weights_are_tied_when_they_are_served():
    """0.1 + 0.2 against 0.3: shares in single precision would separate them."""
    members = [fake.member(seed, hard=True) for seed in range(30)]
    weights = [0.1, 0.2, 0.3]
    images = fake.images(64, seed=1)
    with Engine(fake.bundle(members[:3]), load=fake.load) as engine:
        each = engine.submit(images, each=True).result().member_predictions
    votes = each.argmax(2)
    tied = np.flatnonzero((votes[0] == votes[1]) & (votes[0] != votes[2]))
    made = fake.bundle(members[:3])
    ensemble = dataclasses.replace(made.ensemble, combiner="vote", weights=tuple(weights))
    with Engine(dataclasses.replace(made, ensemble=ensemble), load=fake.load) as engine:
        answer = engine.predict(images)
    assert len(tied), "some sample has its votes tied"
    assert (answer[tied].argmax(1) == np.minimum(votes[0], votes[2])[tied]).all()
