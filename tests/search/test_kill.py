"""The whole search in processes of its own: driver and workers are killed at random, and nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ripieno.library import Library
from tests.child_processes import find_children

TRIALS, EPOCHS = 30, 9


def start(run: Path, slots: int, seconds: float = 0.01, bytes_a_file: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if bytes_a_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))

    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("drive.py"))]
    arguments = [str(run), str(TRIALS), str(EPOCHS), str(slots), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, *arguments], text=True, start_new_session=True, preexec_fn=limit, **pipes)  # type: ignore[call-overload,no-any-return]


def finish(run: Path, slots: int) -> str:
    driver = start(run, slots)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 0, err
    return str(out)


def contents(run: Path) -> dict[str, object]:
    return {m.id: (m.trial, m.epoch, m.configuration) for m in Library(run).members()}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("quiet")
    finish(run, 2)
    return run


def wait_for_members(run: Path, driver: subprocess.Popen[str], more: int) -> None:
    wanted = len(Library(run)) + more
    while driver.poll() is None and len(Library(run)) < wanted:
        time.sleep(0.005)


def kill_a_worker(driver: subprocess.Popen[str]) -> None:
    for process in find_children("spawn_main", driver.pid)[:1]:
        with suppress(psutil.Error):  # it may be dying by itself
            process.kill()


def test_a_search_whose_driver_and_workers_are_killed_ends_as_one_left_alone(tmp_path: Path, quiet: Path) -> None:
    run, chance, kills = tmp_path / "run", random.Random(5), 0
    for slots in (2, 1, 2, 2):
        driver = start(run, slots)
        wait_for_members(run, driver, chance.randrange(1, 9))
        if chance.random() < 0.5:  # a worker first, and the driver a little later
            kill_a_worker(driver)
            time.sleep(chance.random() / 5)
        driver.kill()
        driver.communicate()
        kills += driver.returncode == -signal.SIGKILL
    assert kills == 4
    assert finish(run, 2).startswith("trials")
    assert contents(run) == contents(quiet)


def test_control_c_ends_the_workers_at_once_and_the_search_goes_on_later(tmp_path: Path, quiet: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, 2, seconds=0.05)
    wait_for_members(run, driver, 3)
    workers = psutil.Process(driver.pid).children()
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: workers get the signal too
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert err == ""
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []
    finish(run, 2)
    assert contents(run) == contents(quiet)


def test_a_journal_that_cannot_be_written_stops_with_one_line_and_goes_on_later(tmp_path: Path, quiet: Path) -> None:
    run = tmp_path / "run"
    driver = start(run, 1, bytes_a_file=12_000)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "SearchError: cannot write the journal" in err.strip().splitlines()[-1]
    assert "to resume it" in err.strip().splitlines()[-1]
    assert (run / "journal.log").stat().st_size == 12_000  # the last line is torn
    finish(run, 2)
    assert contents(run) == contents(quiet)
