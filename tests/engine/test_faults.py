from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_members as fake
import numpy as np
import psutil
import pytest

from ripieno.engine import Engine, RestartPolicy
from ripieno.errors import EngineError

QUICK = RestartPolicy(ping=0.8, check=0.05, stall=1.0, back_off=0.01, longest_back_off=0.05)


def started(bundle, isolation="process", patience=QUICK, **options) -> Engine:
    return Engine(bundle, isolation=isolation, load=fake.load, patience=patience, **options)


def check(engine, samples=20, seed=0):
    """Check that the engine answers correctly; return the seconds it took."""
    images = fake.images(samples, seed)
    begin = time.monotonic()
    answer = engine.submit(images).result(timeout=30).predictions
    np.testing.assert_allclose(answer, fake.each(engine.bundle, images).mean(0), atol=1e-6)
    return time.monotonic() - begin


def spoilt(pixel, samples=1, at=0):
    images = fake.images(samples)
    images[at].flat[0] = pixel
    return images


def test_workers_killed_under_load_cost_no_request_its_right_answer():
    rng = random.Random(0)
    wrong: list[int] = []
    answered: list[int] = []
    with started(fake.bundle([fake.member(i, delay=0.0005) for i in range(3)]), capacity=64) as engine:
        stop = threading.Event()

        def client(seed):
            for i in range(10**6):
                if stop.is_set():
                    return
                try:
                    check(engine, 1 + i % 13, seed * 1000 + i)
                    answered.append(i)
                except Exception:
                    wrong.append(i)
                    raise

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
        for thread in clients:
            thread.start()
        for _ in range(5):
            time.sleep(0.2 + rng.random() * 0.2)
            with contextlib.suppress(ProcessLookupError):  # on a busy machine the worker may not have restarted yet
                os.kill(rng.choice(engine.stats().lanes).process, signal.SIGKILL)
        stop.set()
        for thread in clients:
            thread.join(30)
        stats = engine.stats()
    assert not wrong
    assert sum(worker.restarts for worker in stats.lanes) >= 3
    assert len(answered) > 20
    assert stats.failed == 0


def test_a_stopped_worker_is_noticed_by_its_silence_and_replaced():
    with started(fake.bundle(lanes=1)) as engine:
        check(engine)
        before = engine.stats().lanes[0].process
        os.kill(before, signal.SIGSTOP)
        check(engine)
        assert engine.stats().lanes[0].process != before
        assert not psutil.pid_exists(before)


def test_a_task_without_progress_is_given_to_a_new_worker(isolation, tmp_path):
    bundle = fake.bundle([fake.member(0, bad=fake.HANG, once=str(tmp_path / "once"))], lanes=1)
    with started(bundle, isolation) as engine:
        images = spoilt(fake.HANG, 3)
        answer = engine.submit(images).result(timeout=30).predictions
        np.testing.assert_allclose(answer, fake.each(bundle, images)[0], atol=1e-6)
        assert engine.stats().lanes[0].restarts == 1


def test_what_a_thread_that_was_abandoned_reports_late_is_ignored():
    bundle = fake.bundle([fake.member(0, bad=fake.HANG, hang=1.0)], lanes=1, batch_size=4)
    patience = RestartPolicy(check=0.05, stall=0.2, deaths=2, back_off=0.01)
    with started(bundle, "thread", patience, capacity=4) as engine:
        with pytest.raises(EngineError, match="no progress"):
            engine.submit(spoilt(fake.HANG)).result(timeout=30)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            check(engine, 4)
        assert engine.stats().members[bundle.ensemble.members[0]].samples == 4 * (engine.stats().requests)


def test_a_member_that_raises_once_is_loaded_again(isolation, tmp_path):
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE, once=str(tmp_path / "once")), fake.member(1)], lanes=1)
    with started(bundle, isolation) as engine:
        images = spoilt(fake.RAISE, 5, at=3)
        answer = engine.submit(images).result(timeout=30).predictions
        np.testing.assert_allclose(answer, fake.each(bundle, images).mean(0), atol=1e-6)


def test_a_request_that_kills_its_workers_fails_alone_with_the_cause(isolation):
    bad = fake.KILL if isolation == "process" else fake.RAISE
    bundle = fake.bundle([fake.member(0, bad=bad, delay=0.001), fake.member(1)], lanes=1, batch_size=16)
    with started(bundle, isolation) as engine:
        good = [fake.images(2, seed=i) for i in range(8)]
        futures = [engine.submit(images) for images in good]
        fatal = engine.submit(spoilt(bad, 2, at=1))
        futures += [engine.submit(images) for images in good]
        cause = "The worker was killed by SIGKILL" if isolation == "process" else "ValueError: a bad pixel"
        unavailable = "Member 00000-e001 is unavailable: its worker died 3 times. Last error"
        with pytest.raises(EngineError, match=f"{unavailable}: {cause}"):
            fatal.result(timeout=30)
        for images, future in zip(good * 2, futures, strict=True):
            expected = fake.each(bundle, images).mean(0)
            np.testing.assert_allclose(future.result(timeout=30).predictions, expected, atol=1e-6)
        check(engine)
        assert engine.stats().failed == 1
        assert engine.stats().pending == 0


def test_requests_that_wait_behind_a_fatal_one_are_still_answered(isolation):
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE)], lanes=1, batch_size=1)
    with started(bundle, isolation) as engine:
        fatal = engine.submit(spoilt(fake.RAISE))
        others = [engine.submit(fake.images(1, seed=i)) for i in range(4)]
        with pytest.raises(EngineError, match="a bad pixel"):
            fatal.result(timeout=30)
        for i, other in enumerate(others):
            expected = fake.each(bundle, fake.images(1, seed=i))[0]
            np.testing.assert_allclose(other.result(timeout=30).predictions, expected, atol=1e-6)


def test_with_min_members_a_request_is_answered_without_the_member_that_dies_and_says_so(isolation):
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE), fake.member(1), fake.member(2)], lanes=2)
    with started(bundle, isolation, min_members=2) as engine:
        images = spoilt(fake.RAISE, 4)
        answer = engine.submit(images).result(timeout=30)
        assert answer.partial
        assert answer.members == bundle.ensemble.members[1:]
        np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[1:].mean(0), atol=1e-6)
        check(engine)


def test_a_member_that_can_no_longer_be_loaded_fails_requests_until_it_can(isolation, tmp_path):
    marker = tmp_path / "broken"
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE, absent_while=str(marker))], lanes=1)
    with started(bundle, isolation) as engine:
        marker.touch()
        with pytest.raises(EngineError, match="is unavailable"):
            engine.submit(spoilt(fake.RAISE)).result(timeout=30)
        with pytest.raises(EngineError, match="its file is gone"):
            submit_until_refused(engine)
        marker.unlink()
        until = time.monotonic() + 20
        while not engine.ready and time.monotonic() < until:
            time.sleep(0.01)
        check(engine)


def submit_until_refused(engine):
    """Submit requests until the member is found to be unavailable, which may take a moment."""
    for _ in range(200):
        engine.submit(fake.images(1), deadline=0.05)
        time.sleep(0.05)


PARENT = """
import json, sys, time
sys.path.insert(0, {here!r})
import fake_members as fake
from ripieno.engine import Engine
engine = Engine(fake.bundle(lanes=2), isolation="process", load=fake.load)
engine.predict(fake.images(10))
print(json.dumps([worker.process for worker in engine.stats().lanes]), flush=True)
{then}
"""


@pytest.mark.alone  # it looks at the shared memory of all processes
@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("time.sleep(60)", signal.SIGKILL),
        ("time.sleep(60)", signal.SIGTERM),
        ("time.sleep(0.2); sys.exit(0)", None),
        ("time.sleep(0.2); 1 / 0", None),
    ],
)
def test_nothing_is_left_however_the_parent_ends(then, number):
    shared_before = set(os.listdir("/dev/shm"))
    script = PARENT.format(here=str(Path(__file__).parent), then=then)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with parent:
        pids = json.loads(parent.stdout.readline())
        workers = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]  # the parent may have ended already
        if number == signal.SIGKILL:
            os.kill(workers[0].pid, signal.SIGSTOP)  # even a worker that cannot notice it
        if number:
            parent.send_signal(number)
        parent.wait(10)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert not {name for name in set(os.listdir("/dev/shm")) - shared_before if "ripieno" in name}


def test_nothing_is_left_after_closing():
    descriptors = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    engine = started(fake.bundle(lanes=2))
    workers = [psutil.Process(worker.process) for worker in engine.stats().lanes]
    engine.close()
    assert not [worker for worker in workers if worker.is_running()]
    assert threading.active_count() == threads
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_an_interrupt_in_the_terminal_does_not_reach_the_workers():
    with started(fake.bundle(lanes=1)) as engine:
        pid = engine.stats().lanes[0].process
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        check(engine)
        assert engine.stats().lanes[0].process == pid


def test_a_worker_imports_no_framework_it_does_not_need():
    script = (
        "import sys, ripieno.engine.worker_main, ripieno.engine.model_runner, ripieno.engine.ring_memory;"
        "import ripieno.engine.messages;"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout
    assert not {"torch", "onnxruntime", "scipy", "optuna", "ray", "rich", "PIL"} & set(done.stdout.split())
