"""Worker processes that die, hang or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pool_jobs
import psutil
import pytest
from pool_jobs import job, notes

from ripieno.cluster import LocalPool, cpu_slots, gpu_slots, retries
from ripieno.errors import SearchError
from ripieno.resources import usable_cores
from ripieno.types import Job, JobResult
from tests.child_processes import find_children


def pool_of(folder: Path, slots: int = 1) -> LocalPool:
    return LocalPool(partial(pool_jobs.work, str(folder)), slots, logs=folder / "logs")


def pids(folder: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for line in notes(folder):
        trial, _, pid = line.partition(":")
        found.setdefault(int(trial), []).append(int(pid))
    return found


def until(condition: partial[bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def started(folder: Path, trial: int) -> bool:
    return trial in pids(folder)


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), 0, -1])
def test_a_limit_that_is_no_time_is_refused(limit: float) -> None:
    with pytest.raises(SearchError, match=r"^limit .* must be a number of seconds"):
        LocalPool(partial(pool_jobs.work, ""), limit=limit)


def test_a_worker_killed_costs_its_job_a_retry_and_the_other_slot_nothing(tmp_path: Path) -> None:
    with pool_of(tmp_path, 2) as pool:
        pool.submit(job(0, "die once"))
        pool.submit(job(1, "sleep", seconds=0.3))
        outcomes = {}
        while finished := pool.wait(30):
            outcomes |= {o.job.trial: o for o in finished}
    assert outcomes[0].member is not None
    assert outcomes[1].member is not None
    assert len(set(pids(tmp_path)[0])) == 2
    assert len(pids(tmp_path)[1]) == 1


def test_a_job_that_kills_every_worker_is_a_failure_after_three_and_the_slot_goes_on(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        pool.submit(job(0, "die"))
        pool.submit(job(1))
        (outcome,) = pool.wait(30)
        (after,) = pool.wait(30)
    assert outcome.failure is not None
    assert outcome.failure.reason == "crash"
    assert outcome.failure.message == "the worker was killed by SIGKILL (out of memory?), 3 times"
    assert outcome.failure.log == str(tmp_path / "logs" / "slot-0.log")
    assert len(pids(tmp_path)[0]) == 3
    assert after.member is not None


def test_a_job_that_gets_on_between_kills_is_not_at_fault(tmp_path: Path) -> None:
    progress = partial(pool_jobs.times, str(tmp_path))
    with LocalPool(partial(pool_jobs.work, str(tmp_path)), 1, progress=progress) as pool:
        pool.submit(job(0, "get on"))
        (outcome,) = pool.wait(60)
    assert outcome.member is not None
    assert len(set(pids(tmp_path)[0])) == 4


def kill_new(killed: set[int]) -> bool:
    """Kill the running workers; return True if one was new."""
    before = len(killed)
    with suppress(psutil.Error):
        for process in find_children("spawn_main"):
            process.kill()
            killed.add(process.pid)
    return len(killed) > before


def test_workers_killed_while_they_start_are_not_held_against_their_job(tmp_path: Path) -> None:
    killed: set[int] = set()
    with pool_of(tmp_path) as pool:
        pool.submit(job(0))
        for _ in range(retries.RETRIES + 1):
            until(partial(kill_new, killed))
        (outcome,) = pool.wait(30)
    assert outcome.member is not None
    assert len(pids(tmp_path)[0]) == 1


def test_workers_that_never_come_up_are_a_failure(tmp_path: Path) -> None:
    killed: set[int] = set()
    with pool_of(tmp_path) as pool:
        pool.submit(job(0))
        while not (outcomes := pool.wait(0.001)):
            kill_new(killed)
    assert outcomes[0].failure is not None
    assert (
        outcomes[0].failure.message == f"the worker was killed by SIGKILL (out of memory?), {retries.STARTS + 1} times"
    )
    assert len(killed) == retries.STARTS + 1
    assert not notes(tmp_path)


def test_a_crash_in_native_code_has_its_traceback_and_its_log(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        pool.submit(job(0, "fault"))
        (outcome,) = pool.wait(30)
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.log) == ("crash", str(tmp_path / "logs" / "slot-0.log"))
    assert "SIGSEGV" in outcome.failure.message
    assert "in work" in outcome.failure.detail


def test_a_crash_names_the_exit_code(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        pool.submit(job(0, "leave"))
        (outcome,) = pool.wait(30)
    assert outcome.failure is not None
    assert outcome.failure.message == "the worker ended with exit code 7, 3 times"


def test_a_job_that_hangs_is_ended_once_and_its_slot_goes_on(tmp_path: Path) -> None:
    with LocalPool(partial(pool_jobs.work, str(tmp_path)), 1, logs=tmp_path / "logs", limit=1.0) as pool:
        pool.submit(job(0, "sleep", seconds=60))
        pool.submit(job(1))
        (outcome,) = pool.wait(30)
        (after,) = pool.wait(30)
    assert outcome.failure is not None
    assert outcome.failure.message.startswith("timed out after 1 s (limit: 1 s per epoch, epochs: 1)")
    assert outcome.failure.log == str(tmp_path / "logs" / "slot-0.log")
    assert len(pids(tmp_path)[0]) == 1
    assert is_dead(pids(tmp_path)[0][0])
    assert after.member is not None


def test_a_worker_that_lost_its_gpu_is_replaced_and_one_whose_job_was_a_mistake_is_not(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        for n, do in enumerate(["raise", "lose the GPU", "work"]):
            pool.submit(job(n, do))
        outcomes = {}
        while finished := pool.wait(30):
            outcomes |= {o.job.trial: o for o in finished}
    failure = outcomes[1].failure
    assert failure is not None
    assert failure.reason == "error"
    assert outcomes[2].member is not None
    ran = pids(tmp_path)
    assert ran[0] == ran[1] != ran[2]


def test_cancel_kills_the_running_job_at_once(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    pool.submit(job(0, "sleep", seconds=60))
    until(partial(started, tmp_path, 0))
    before = time.monotonic()
    pool.close(cancel=True)
    assert time.monotonic() - before < 5
    assert is_dead(pids(tmp_path)[0][0])
    assert len(pids(tmp_path)[0]) == 1


def test_workers_leave_control_c_to_the_parent(tmp_path: Path) -> None:
    with pool_of(tmp_path) as pool:
        pool.submit(job(0, "sleep", seconds=0.3))
        until(partial(started, tmp_path, 0))
        os.kill(pids(tmp_path)[0][0], signal.SIGINT)
        (outcome,) = pool.wait(30)
    assert outcome.member is not None


def test_a_slot_brings_its_environment_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    slots = gpu_slots(["GPU-7"], threads=3)
    with LocalPool(partial(pool_jobs.work, str(tmp_path)), slots, logs=tmp_path / "logs") as pool:
        pool.submit(job(0, "environment"))
        pool.submit(job(1, "speak"))
        assert all(pool.wait(30) + pool.wait(1))
    assert "'3' 'GPU-7' 'passive'" in notes(tmp_path)
    assert (tmp_path / "logs" / "slot-0.log").read_text() == "a word from the worker\n"


def test_threads_are_divided_and_gpus_are_spread() -> None:
    cores = len(usable_cores())
    assert [s["OMP_NUM_THREADS"] for s in cpu_slots(1)] == [str(cores)]
    assert len(cpu_slots()) == cores
    assert {s["OMP_NUM_THREADS"] for s in cpu_slots(cores + 1)} == {"1"}
    assert [s["CUDA_VISIBLE_DEVICES"] for s in gpu_slots([0, 1], per_device=2)] == ["0", "1", "0", "1"]
    with pytest.raises(SearchError, match="at least 1"):
        cpu_slots(0)


@pytest.mark.parametrize(
    ("ours", "asked", "workers"),
    [
        ("2,5", ["0", "1"], ["2", "5"]),
        ("GPU-a, GPU-b", [1], ["GPU-b"]),
        ("2,5", ["GPU-c"], ["GPU-c"]),
        ("", [0, 1], ["0", "1"]),
    ],
)
def test_a_worker_gets_the_gpu_that_we_see_by_that_number(
    monkeypatch: pytest.MonkeyPatch, ours: str, asked: list[int | str], workers: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ours)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in gpu_slots(asked)] == workers


def test_a_function_that_workers_cannot_import_is_refused_in_one_line(tmp_path: Path) -> None:
    def inside(job: Job) -> JobResult:
        return JobResult(job)

    with pytest.raises(SearchError, match="must be a function at the top of a module"):
        LocalPool(inside)


SCRIPT = """
import sys
from functools import partial
sys.path.insert(0, {here!r})
import pool_jobs
from ripieno.cluster import LocalPool

pool_jobs.note({folder!r}, "script")
pool = LocalPool(partial(pool_jobs.work, {folder!r}), 1)
pool.submit(pool_jobs.job(0, "sleep", seconds={seconds}))
pool.wait()
pool.close()
"""


def script(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder), seconds=seconds))
    return subprocess.Popen([sys.executable, str(path)])


def test_a_script_needs_no_main_guard_and_runs_once(tmp_path: Path) -> None:
    assert script(tmp_path, 0).wait(60) == 0
    assert notes(tmp_path)[0] == "script"
    assert len(notes(tmp_path)) == 2


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    parent = script(tmp_path, 60)
    until(lambda: len(notes(tmp_path)) == 2)  # type: ignore[arg-type]
    parent.kill()
    parent.wait()
    worker = int(notes(tmp_path)[1].partition(":")[2])
    until(partial(is_dead, worker), 5)
