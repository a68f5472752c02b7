"""Ray clusters with nodes that join and nodes that die. Needs the extra `cluster`."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pool_jobs
import pytest
from pool_jobs import job, notes

from ripieno.cluster import RayPool, retries
from ripieno.errors import SearchError
from ripieno.types import Job, JobResult

pytestmark = pytest.mark.usefixtures("cluster")


def collect(pool: RayPool, outcomes: list[JobResult], count: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while len(outcomes) < count:
        outcomes += pool.wait(1)
        assert time.monotonic() < end, f"{len(outcomes)} of {count} jobs"


def until_noted(folder: Path) -> None:
    """Wait until a job has started."""
    end = time.monotonic() + 60
    while not notes(folder):
        assert time.monotonic() < end
        time.sleep(0.02)


def ray_errors() -> Any:
    return importlib.import_module("ray").exceptions


def test_a_node_joins_and_another_dies_in_mid_run_and_no_job_is_lost(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RETRIES", 0)  # a node that leaves uses up none
    outcomes: list[JobResult] = []
    with RayPool(partial(pool_jobs.work, str(tmp_path))) as pool:
        assert pool.slots == 1
        submitted = 0

        def feed() -> None:
            """Submit enough jobs for all slots, however long a node takes to start."""
            nonlocal submitted
            while submitted < len(outcomes) + 12:
                pool.submit(job(submitted, "sleep", seconds=0.2))
                submitted += 1

        feed()
        node = cluster.add_node(num_cpus=2)
        try:
            while len({o.slot for o in outcomes}) < 3:
                feed()
                collect(pool, outcomes, len(outcomes) + 1)
            assert pool.slots == 3
            feed()
        finally:
            cluster.remove_node(node, allow_graceful=False)
        collect(pool, outcomes, submitted)
        end = time.monotonic() + 30
        while pool.slots > 1:  # Ray lists the dead node for a while
            assert time.monotonic() < end
            time.sleep(0.1)
    assert sorted(o.job.trial for o in outcomes) == list(range(submitted))
    assert all(o.member is not None for o in outcomes)
    assert len(notes(tmp_path)) > submitted  # the job on the node that died ran again


def test_a_dead_actor_costs_a_retry_and_the_third_time_without_progress_the_job(cluster: Any, tmp_path: Path) -> None:
    def progress(one: Job) -> int:
        return pool_jobs.times(str(tmp_path), one) if one.trial == 0 else 0

    with RayPool(partial(pool_jobs.work, str(tmp_path)), progress=progress) as pool:
        for n, do in enumerate(["get on", "die", "work"]):
            pool.submit(job(n, do))
        outcomes: list[JobResult] = []
        collect(pool, outcomes, 3)
    by_trial = {o.job.trial: o for o in outcomes}
    assert by_trial[0].member is not None
    assert by_trial[2].member is not None
    failure = by_trial[1].failure
    assert failure is not None
    assert failure.reason == "crash"
    assert failure.message.startswith("the worker died, 3 times: ")
    assert sum(line.startswith("1:") for line in notes(tmp_path)) == 3


def test_a_job_that_hangs_is_ended_and_its_slot_goes_on(cluster: Any, tmp_path: Path) -> None:
    with RayPool(partial(pool_jobs.work, str(tmp_path)), limit=1.5) as pool:
        pool.submit(job(0, "sleep", seconds=60))
        pool.submit(job(1))
        outcomes: list[JobResult] = []
        collect(pool, outcomes, 2)
    hung, after = outcomes
    assert hung.failure is not None
    assert hung.failure.message.startswith("timed out after 1.5 s (limit: 1.5 s per epoch, epochs: 1)")
    assert after.member is not None


def test_an_actor_that_lost_its_gpu_is_replaced(cluster: Any, tmp_path: Path) -> None:
    with RayPool(partial(pool_jobs.work, str(tmp_path))) as pool:
        for n, do in enumerate(["raise", "lose the GPU", "work"]):
            pool.submit(job(n, do))
        outcomes: list[JobResult] = []
        collect(pool, outcomes, 3)
    assert [o.job.trial for o in outcomes if o.member is None] == [0, 1]
    workers = [line.partition(":")[2] for line in notes(tmp_path)]
    assert workers[0] == workers[1] != workers[2]


def reply(pool: RayPool, error: Exception) -> None:
    """Let the pool's one actor end with `error`, as Ray reports it."""
    ended: Future[JobResult] = Future()
    ended.set_exception(error)
    pool._events.put(("reply", pool._slots[0], ended))


def test_an_actor_that_ray_killed_for_memory_costs_its_job_a_retry(cluster: Any, tmp_path: Path) -> None:
    with RayPool(partial(pool_jobs.work, str(tmp_path))) as pool:
        pool.submit(job(0, "hang once"))
        until_noted(tmp_path)
        # the error of Ray's memory monitor, which watches the whole machine; a test must not fill that
        reply(pool, ray_errors().OutOfMemoryError("killed due to the node running low on memory"))
        outcomes: list[JobResult] = []
        collect(pool, outcomes, 1)
    assert outcomes[0].member is not None
    assert len(set(notes(tmp_path))) == 2


def test_a_cluster_that_is_lost_is_said_and_blames_no_job(cluster: Any, tmp_path: Path) -> None:
    with RayPool(partial(pool_jobs.work, str(tmp_path))) as pool:
        pool.submit(job(0, "hang once"))
        until_noted(tmp_path)
        reply(pool, ConnectionError("the data client has disconnected"))  # Ray's client on a lost head
        for _ in range(2):
            with pytest.raises(SearchError, match=r"the Ray cluster is lost .*disconnected.* start the search again"):
                pool.wait(30)


def test_workers_that_cannot_start_are_tried_a_few_times_and_then_said(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "driver_only.py"
    source.write_text("def work(job):\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ripieno.cluster.ray_pool.STARTS", 1)
    work = importlib.import_module("driver_only").work
    source.unlink()  # workers import it again, by its name
    with RayPool(work) as pool:
        pool.submit(job(0))
        with pytest.raises(SearchError, match=r"no worker can start .*: No module named 'driver_only'. Fix that"):
            pool.wait(60)


def test_cancel_ends_the_running_job_at_once(cluster: Any, tmp_path: Path) -> None:
    pool = RayPool(partial(pool_jobs.work, str(tmp_path)))
    pool.submit(job(0, "sleep", seconds=60))
    while not notes(tmp_path):
        time.sleep(0.02)
    before = time.monotonic()
    pool.close(cancel=True)
    assert time.monotonic() - before < 5
    worker = int(notes(tmp_path)[0].partition(":")[2])
    while True:
        try:
            os.kill(worker, signal.SIGCONT)
        except ProcessLookupError:
            break
        assert time.monotonic() - before < 10
        time.sleep(0.05)


def test_a_slot_too_large_for_every_node_is_refused_in_one_line(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no node of the Ray cluster has 9 CPUs"):
        RayPool(partial(pool_jobs.work, str(tmp_path)), cpus=9)


SCRIPT = """
import sys, warnings
from functools import partial
sys.path.insert(0, {here!r})
import pool_jobs
from ripieno.cluster import RayPool

with RayPool(partial(pool_jobs.work, {folder!r}), "local", slots=2) as pool:
    for n in range(4):
        pool.submit(pool_jobs.job(n))
    done = []
    while len(done) < 4:
        done += pool.wait(30)
    import ray
    assert pool.slots == 2
    assert all(o.member for o in done), done
assert not ray.is_initialized()
"""


def test_a_local_cluster_is_started_for_the_pool_and_ends_with_it(tmp_path: Path) -> None:
    script = SCRIPT.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert len(notes(tmp_path)) == 4
