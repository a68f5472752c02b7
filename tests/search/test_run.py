"""The driver, with jobs in the caller's process that take no time."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from optuna.samplers import BaseSampler, RandomSampler
from synthetic import LABELS, member_of

from ripieno import files
from ripieno.clock import now as unix_now
from ripieno.cluster import InlinePool, LocalPool, SimulatedPool
from ripieno.errors import MissingExtraError, RipienoError, SearchError
from ripieno.library import Library
from ripieno.search import Settings, Snapshot, Summary, driver, run_search, samplers
from ripieno.search.journal import JobFinished, JobSubmitted, Journal
from ripieno.search.progress import seconds_left
from ripieno.search.result_order import OrderName
from ripieno.search.settings import kept_settings
from ripieno.types import Configuration, Epoch, Failure, Job, JobResult

SETTINGS = Settings(synthetic.SPACE, trials=30, epochs=9)


class ShuffledPool:
    """Many slots in one process; which running job ends next is drawn at random. After `most` results, it is killed."""

    def __init__(self, function: Callable[[Job], JobResult], slots: int, seed: int, most: int = 10**9) -> None:
        self.slots = slots
        self.jobs: list[Job] = []
        self.closed = False
        self._function = function
        self._queue: list[Job] = []
        self._random = random.Random(seed)
        self._most = most

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self._queue.append(job)

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        if self._most == 0:
            raise KeyboardInterrupt
        self._most -= 1
        number = self._random.randrange(min(self.slots, len(self._queue)))
        return [self._function(self._queue.pop(number))]

    def close(self, cancel: bool = False) -> None:
        self.closed = True

    def __enter__(self) -> ShuffledPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def keep(run: Path, job: Job) -> JobResult:
    """Write the member to the library, like real training."""
    if job.trial % 7 == 5:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"))
    member = member_of(job)
    Library(run).add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member)


def members(run: Path) -> dict[str, object]:
    return {m.id: m.configuration for m in Library(run).members()}


def search(run: Path, pool: object = None, settings: Settings = SETTINGS, **more: object) -> Summary:
    pool = pool or ShuffledPool(partial(keep, run), 3, 0)
    return run_search(Library(run), settings, pool, weight=synthetic.weight, **more)  # type: ignore[arg-type]


def journal_of(run: Path) -> Journal:
    return Journal(Library(run).journal_path, synthetic.SPACE, "random", 0)


def read(path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(path.read_text())
    return plain


def jobs_issued(run: Path) -> list[tuple[int, int]]:
    return [(e.trial, e.stop) for e in journal_of(run).events() if isinstance(e, JobSubmitted)]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed run."""
    run = tmp_path_factory.mktemp("quiet")
    search(run)
    return run


def test_every_trial_stopped_is_in_the_library(quiet: Path) -> None:
    issued = jobs_issued(quiet)
    assert len(set(issued)) == len(issued)
    assert {trial for trial, _ in issued} == set(range(30))
    assert {f"{trial:05d}-e{stop:03d}" for trial, stop in issued if trial % 7 != 5} == set(members(quiet))
    assert len({m.trial for m in Library(quiet).members()}) < len(members(quiet))  # some were promoted


def test_the_library_does_not_depend_on_timing_or_slots_or_kills(tmp_path: Path, quiet: Path) -> None:
    settings = replace(SETTINGS, window=6)  # that of three slots
    for seed in range(4):
        run, kills = tmp_path / str(seed), random.Random(seed)
        for start in itertools.count():
            pool = ShuffledPool(partial(keep, run), 1 + (seed + start) % 4, seed, kills.randrange(14))
            try:
                search(run, pool, settings)
                break
            except KeyboardInterrupt:
                assert pool.closed
        assert start > 2
        assert jobs_issued(run) == jobs_issued(quiet)
        assert members(run) == members(quiet)


def test_samplers_see_the_numbers_of_results_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, list[tuple[int, int, dict[str, float]]]] = {}

    class Spy(RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            seen[trial.number] = [(r.trial, r.epoch, dict(r.values)) for r in study.results]
            return {}

    def measured(job: Job) -> JobResult:
        values = {"joules": 10.0 * job.trial + job.stop, "lost": float("nan")}
        return replace(keep(tmp_path, job), values=values)

    monkeypatch.setitem(samplers.SAMPLERS, "spy", lambda seed: Spy(seed))
    settings = replace(SETTINGS, algorithm="asha+spy", trials=12, window=4)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, ShuffledPool(measured, 2, 0, most=12), settings)
    before = dict(seen)
    search(tmp_path, ShuffledPool(measured, 2, 0), settings)
    assert len(before) < len(seen)
    told = seen[max(seen)]
    assert len(told) > 8
    assert all(values == {"joules": 10.0 * trial + epoch} for trial, epoch, values in told)  # what is no number is left


OLDER = Path(__file__).parent / "older_runs"
"""Runs that version 0.1 began, with eta 2 and 3, and the jobs and configurations that it would have gone on to."""


@pytest.mark.parametrize(("name", "step"), [("hyperband", 2), ("asha-stopping", 3)])
def test_an_older_run_resumes_with_the_same_decisions(tmp_path: Path, name: str, step: int) -> None:
    shutil.copytree(OLDER / name, tmp_path, dirs_exist_ok=True)
    expected = read(tmp_path / "expected.json")
    begun = jobs_issued(tmp_path)
    settings = kept_settings(tmp_path / "run.json")
    assert settings is not None
    search(tmp_path, settings=settings)
    issued = [(e.trial, e.start, e.stop) for e in journal_of(tmp_path).events() if isinstance(e, JobSubmitted)]
    assert 3 < len(begun) < len(issued)
    assert [list(job) for job in issued] == expected["jobs"]
    trials = range(len(expected["configurations"]))
    assert [journal_of(tmp_path).configuration(trial) for trial in trials] == expected["configurations"]
    assert read(tmp_path / "run.json")["algorithm"]["step"] == step  # now the run keeps the whole algorithm
    assert "eta" not in read(tmp_path / "run.json")
    search(tmp_path, settings=settings)
    assert len(jobs_issued(tmp_path)) == len(issued)


def test_jobs_without_a_result_run_first_and_results_left_in_the_library_are_taken(tmp_path: Path) -> None:
    pool = ShuffledPool(partial(keep, tmp_path), 3, 0, most=4)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, pool)
    journal = Journal(Library(tmp_path).journal_path, synthetic.SPACE, "random", 0)
    done = {(e.trial, e.stop) for e in journal.events() if isinstance(e, JobFinished)}
    left = [job for job in pool.jobs if (job.trial, job.stop) not in done]
    assert len(left) > 2
    keep(tmp_path, left[0])  # a worker finished after its driver had died
    again = ShuffledPool(partial(keep, tmp_path), 3, 0)
    search(tmp_path, again)
    assert again.jobs[: len(left) - 1] == left[1:]
    assert left[0] not in again.jobs


def test_a_job_that_was_resumed_counts_with_the_epochs_before_it_was_killed(tmp_path: Path) -> None:
    settings = replace(SETTINGS, algorithm="random", trials=2)

    def resumed(job: Job) -> JobResult:
        """Train the last of nine epochs, of two seconds each."""
        curve = tuple(Epoch(number, 1.0, 1.0, 0.5, 2.0) for number in range(1, job.stop + 1))
        return JobResult(job, replace(member_of(job), curve=curve), started=100.0, finished=102.5)

    left = Job(0, Journal(None, synthetic.SPACE, "random", 0).configuration(0), 0, 9)
    found = resumed(left).member
    assert found is not None
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, ShuffledPool(resumed, 1, 0, most=0), settings)
    Library(tmp_path).add(found, np.full((3, 2), 0.5), LABELS)  # its worker finished after the driver was killed
    search(tmp_path, ShuffledPool(resumed, 1, 0), settings)
    journal = Journal(Library(tmp_path).journal_path, synthetic.SPACE, "random", 0)
    assert [(e.trial, e.seconds) for e in journal.events() if isinstance(e, JobFinished)] == [(0, 18.0), (1, 18.0)]


def test_a_finished_search_runs_nothing_again_and_more_trials_go_on(tmp_path: Path) -> None:
    first = search(tmp_path)
    pool = ShuffledPool(partial(keep, tmp_path), 3, 0)
    again = search(tmp_path, pool)
    assert pool.jobs == []
    assert (again.jobs, again.members, again.best, again.ended) == (first.jobs, first.members, first.best, "trials")
    before = members(tmp_path)
    more = search(tmp_path, pool, replace(SETTINGS, trials=40))
    assert more.trials == 40
    assert {job.trial for job in pool.jobs} >= set(range(30, 40))
    assert before.items() <= members(tmp_path).items()


@pytest.mark.parametrize("algorithm", ["bohb", "genetic", "tpe", "gp", "smac", "forest"])
def test_what_a_sampler_learns_survives_kills_and_does_not_depend_on_timing(tmp_path: Path, algorithm: str) -> None:
    if algorithm == "smac":
        pytest.importorskip("smac", reason="needs the extra smac")
    settings = replace(SETTINGS, algorithm=algorithm, window=6, trials=18 if algorithm in ("gp", "smac") else 26)
    search(tmp_path / "quiet", ShuffledPool(partial(keep, tmp_path / "quiet"), 3, 0), settings)
    run, kills = tmp_path / "killed", random.Random(1)
    for start in itertools.count():
        try:
            search(run, ShuffledPool(partial(keep, run), 1 + start % 4, start, kills.randrange(14)), settings)
            break
        except KeyboardInterrupt:
            continue
    assert start > 1
    assert members(run) == members(tmp_path / "quiet")


def test_a_missing_extra_is_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smac", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"ripieno\[smac\]"):
        search(tmp_path, settings=replace(SETTINGS, algorithm="smac"))


def test_in_arrival_order_the_next_configuration_is_chosen_while_workers_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    plain = samplers.SAMPLERS["random"]

    def counted(seed: int) -> BaseSampler:
        asked.append(seed)
        return plain(seed)

    class Watched(ShuffledPool):
        def wait(self, timeout: float | None = None) -> list[JobResult]:
            assert len(asked) - 1 == min(8, len(self.jobs) + 1)  # one was made to see that it can be
            return super().wait(timeout)

    monkeypatch.setitem(samplers.SAMPLERS, "random", counted)
    settings = replace(SETTINGS, algorithm="random", order="arrival", trials=8)
    search(tmp_path, Watched(partial(keep, tmp_path), 3, 0), settings)


class InTurn:
    """Four slots with results in the order of the jobs, `together` of them at a time."""

    slots = 4

    def __init__(self, run: Path, together: Callable[[], int]) -> None:
        self.jobs: list[Job] = []
        self._run, self._together = run, together
        self._running: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self._running.append(job)

    def wait(self, timeout: float | None = None) -> list[JobResult]:
        count = self._together()
        ended, self._running = self._running[:count], self._running[count:]
        return [keep(self._run, job) for job in ended]

    def close(self, cancel: bool = False) -> None:
        pass


@pytest.mark.parametrize("algorithm", ["hyperband", "bohb", "tpe"])
def test_the_same_order_of_results_gives_the_same_jobs_however_many_come_together(
    tmp_path: Path, algorithm: str
) -> None:
    settings = replace(SETTINGS, algorithm=algorithm, order="arrival", trials=25)
    alone = InTurn(tmp_path / "alone", lambda: 1)
    search(tmp_path / "alone", alone, settings)
    for seed in range(2):
        run = tmp_path / str(seed)
        together = InTurn(run, partial(random.Random(seed).randint, 1, 4))
        search(run, together, settings)
        assert together.jobs == alone.jobs


def test_in_arrival_order_a_result_counts_for_the_job_that_takes_its_place(tmp_path: Path) -> None:
    pool = InTurn(tmp_path, lambda: 1)
    pool.slots = 1
    search(tmp_path, pool, replace(SETTINGS, algorithm="asha", order="arrival", trials=4, epochs=3))
    assert [(job.start, job.stop) for job in pool.jobs][:4] == [(0, 1), (0, 1), (0, 1), (1, 3)]


def test_random_search_in_arrival_order_trains_each_to_the_end(tmp_path: Path) -> None:
    settings = replace(SETTINGS, algorithm="random", order="arrival", trials=8)
    search(tmp_path, InlinePool(partial(keep, tmp_path)), settings)
    assert jobs_issued(tmp_path) == [(trial, 9) for trial in range(8)]


def test_snapshots_count_what_happens(tmp_path: Path) -> None:
    seen: list[Snapshot] = []
    pool = ShuffledPool(partial(keep, tmp_path), 3, 0)
    last = search(tmp_path, pool, watch=seen.append)
    assert last == seen[-1]
    assert sum(len(s.finished) for s in seen) == last.jobs == len(pool.jobs)
    assert last.members == len(members(tmp_path))
    assert last.failures == last.jobs - last.members
    assert max(len(s.running) for s in seen) == 3
    losses = sorted(m.losses["valid_cross_entropy"] for m in Library(tmp_path).members())
    assert last.best_loss == losses[0]
    assert last.best is not None
    assert Library(tmp_path).member(last.best).losses["valid_cross_entropy"] == losses[0]
    trials: dict[int, float] = {}
    for member in Library(tmp_path).members():
        trials[member.trial] = min(trials.get(member.trial, 9.0), member.losses["valid_cross_entropy"])
    assert last.top_loss == pytest.approx(sum(sorted(trials.values())[:10]) / 10)


def test_a_second_driver_on_the_same_run_is_refused(tmp_path: Path) -> None:
    with files.locked(tmp_path / "lock", "a test"), pytest.raises(RipienoError, match="in use by another search"):
        search(tmp_path)


def test_the_lock_is_of_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = "import sys,time\nfrom pathlib import Path\nfrom ripieno import files\n" + (
        "with files.locked(Path(sys.argv[1]), 'x'):\n print('held', flush=True)\n time.sleep(60)"
    )
    held = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert held.stdout is not None
    with held.stdout:
        held.stdout.readline()
        with pytest.raises(RipienoError, match=f"process {held.pid}"):
            search(tmp_path)
        held.kill()
        held.wait()
    assert search(tmp_path).ended == "trials"


def broken(run: Path, job: Job) -> JobResult:
    message = "no module named torchvision" if job.trial % 3 else "too wide"
    return JobResult(job, failure=Failure("error", message, log="logs/slot-0.log"))


def test_many_early_failures_stop_the_search_with_the_likely_cause_and_once_fixed_all_trials_run(
    tmp_path: Path, quiet: Path
) -> None:
    with pytest.raises(SearchError) as error:
        search(tmp_path, ShuffledPool(partial(broken, tmp_path), 3, 0))
    assert "11 of the first 11 jobs failed, " in str(error.value)
    assert "of them with: no module named torchvision (see logs/slot-0.log): fix the cause" in str(error.value)
    fixed = ShuffledPool(partial(keep, tmp_path), 3, 0)
    assert search(tmp_path, fixed).trials == 30
    assert {job.trial for job in fixed.jobs} == set(range(30))
    assert members(tmp_path) == members(quiet)


@pytest.mark.parametrize("order", ["virtual", "arrival"])
def test_what_failed_early_runs_again_and_what_did_not_stays(tmp_path: Path, order: OrderName) -> None:
    def some(job: Job) -> JobResult:
        return keep(tmp_path, job) if job.trial % 4 == 1 else broken(tmp_path, job)

    settings = replace(SETTINGS, order=order)
    for _ in range(2):  # it stops again until the cause is fixed
        with pytest.raises(SearchError, match="jobs failed"):
            search(tmp_path, ShuffledPool(some, 3, 0), settings)
    there = members(tmp_path)
    assert there
    mended = ShuffledPool(partial(keep, tmp_path), 3, 0)
    assert search(tmp_path, mended, settings).trials == 30
    assert {m.trial for m in Library(tmp_path).members()} == {n for n in range(30) if n % 7 != 5}
    assert there.items() <= members(tmp_path).items()
    issued = jobs_issued(tmp_path)
    assert len(set(issued)) == len(issued)


def test_a_search_of_one_trial_that_failed_runs_it_again(tmp_path: Path) -> None:
    one = replace(SETTINGS, trials=1)
    for _ in range(2):
        with pytest.raises(SearchError, match="1 of the first 1 jobs failed"):
            search(tmp_path, ShuffledPool(partial(broken, tmp_path), 3, 0), one)
    search(tmp_path, settings=one)
    assert {m.trial for m in Library(tmp_path).members()} == {0}


def test_trials_that_diverged_are_not_run_again_after_an_early_stop(tmp_path: Path) -> None:
    def diverging(job: Job) -> JobResult:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"))

    first, again = ShuffledPool(diverging, 3, 0), ShuffledPool(partial(keep, tmp_path), 3, 0)
    with pytest.raises(SearchError, match="11 of the first 11 jobs failed"):
        search(tmp_path, first)
    assert search(tmp_path, again).trials == 30
    assert len({job.trial for job in again.jobs} & {job.trial for job in first.jobs}) < 11


def test_failures_that_come_later_do_not_stop_the_search(tmp_path: Path) -> None:
    def later(job: Job) -> JobResult:
        return keep(tmp_path, job) if job.trial < 18 and job.trial % 7 != 5 else broken(tmp_path, job)

    last = search(tmp_path, ShuffledPool(later, 3, 0))
    assert last.ended == "trials"
    assert last.failures > 11


@pytest.mark.parametrize(
    ("number", "action"),
    [
        (errno.ENOSPC, "free the disk"),
        (errno.EDQUOT, "free the disk"),
        (errno.EROFS, "mount it for writing"),
        (errno.EIO, "check the disk"),
    ],
)
def test_a_disk_that_is_full_or_fails_stops_the_search_and_the_job_is_run_again(
    tmp_path: Path, number: int, action: str
) -> None:
    reason = os.strerror(number)

    def full(job: Job) -> JobResult:
        if job.trial == 4:
            return JobResult(job, failure=Failure("error", f"RipienoError: cannot write x: {reason}: do something"))
        return keep(tmp_path, job)

    with pytest.raises(SearchError, match=f"cannot write x: {reason}: {action} and start the search again"):
        search(tmp_path, ShuffledPool(full, 3, 0))
    pool = ShuffledPool(partial(keep, tmp_path), 3, 0)
    search(tmp_path, pool)
    assert 4 in {job.trial for job in pool.jobs}


def test_a_loss_that_is_not_a_number_is_a_failure_and_a_missing_one_an_error(tmp_path: Path) -> None:
    def odd(job: Job) -> JobResult:
        member = member_of(job)
        return JobResult(
            job, replace(member, losses={"valid_cross_entropy": float("nan")}) if job.trial == 1 else member
        )

    assert search(tmp_path / "a", ShuffledPool(odd, 3, 0)).failures == 1
    with pytest.raises(SearchError, match="no loss 'f1' to rank by; use one of: valid_cross_entropy"):
        search(tmp_path / "b", settings=replace(SETTINGS, metric="f1"))


# the deadline


class Clock:
    """Clock that advances in jobs only."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def timed(run: Path, clock: Clock, deadline: float, job: Job) -> JobResult:
    """Take two seconds per epoch; like real training, start none that would end after the deadline but the first."""
    started, epoch = clock.now, job.start
    while epoch < job.stop and (epoch == 0 or clock.now + 2.0 <= deadline):
        clock.now += 2.0
        epoch += 1
    member = member_of(job, epoch)
    Library(run).add(member, np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member, started=started, finished=clock.now)


def test_a_search_whose_time_is_up_starts_nothing(tmp_path: Path) -> None:
    summary = search(tmp_path, deadline=time.time() - 1)
    assert (summary.jobs, summary.ended) == (0, "deadline")


def test_setting_the_systems_clock_ends_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, jobs = time.time, []
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * (len(jobs) > 2))

    def counted(job: Job) -> JobResult:
        jobs.append(job)
        return keep(tmp_path, job)

    settings = replace(SETTINGS, algorithm="random", trials=8)
    seen: list[Snapshot] = []
    summary = search(tmp_path, InlinePool(counted), settings, deadline=unix_now() + 60, watch=seen.append)
    assert (summary.jobs, summary.ended) == (8, "trials")
    assert all(s.left is not None and 0 < s.left <= 60 and s.seconds < 60 for s in seen)


def test_a_search_reads_the_clock_that_cannot_be_set() -> None:
    assert signature(run_search).parameters["clock"].default is unix_now


def test_a_job_the_deadline_cut_short_goes_on_in_a_later_start(tmp_path: Path) -> None:
    settings = replace(SETTINGS, algorithm="random", trials=2)
    clock, deadline = Clock(), 9.0
    pool = ShuffledPool(partial(timed, tmp_path, clock, deadline), 1, 0)
    summary = run_search(Library(tmp_path), settings, pool, deadline=deadline, clock=clock)  # type: ignore[arg-type]
    assert summary.ended == "deadline"
    (cut,) = Library(tmp_path).members()
    assert cut.epoch == 4
    later = ShuffledPool(partial(keep, tmp_path), 1, 0)
    assert search(tmp_path, later, settings).ended == "trials"
    assert later.jobs[0] == Job(0, cut.configuration, 0, 9)
    assert {"00000-e009", "00001-e009"} < set(members(tmp_path))


@pytest.mark.parametrize("has_member", [True, False])
def test_jobs_that_run_on_after_the_deadline_are_ended_once_there_is_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_member: bool
) -> None:
    monkeypatch.setattr(driver, "OVERTIME", 0.2)
    if has_member:
        keep(tmp_path, Job(9, {"rate": 0.1, "width": 8}, 0, 1))
    settings, seen = replace(SETTINGS, algorithm="random", trials=2), list[Snapshot]()
    with LocalPool(partial(synthetic.work, tmp_path, 600.0 if has_member else 2.0)) as pool:
        started = time.monotonic()
        summary = search(tmp_path, pool, settings, deadline=unix_now() + 0.5, watch=seen.append)
    assert time.monotonic() - started < 30
    assert (summary.ended, summary.failures, summary.running) == ("deadline", 0, ())
    assert not any(outcome.failure for snapshot in seen for outcome in snapshot.finished)
    assert len(members(tmp_path)) == 1
    later = ShuffledPool(partial(keep, tmp_path), 1, 0)
    assert search(tmp_path, later, settings).ended == "trials"
    assert later.jobs[0].trial == (0 if has_member else 1)


def test_a_job_without_an_epoch_at_the_deadline_is_no_failure(tmp_path: Path) -> None:
    def late(job: Job) -> JobResult:
        return JobResult(job, failure=Failure("time", "the search ended before its first epoch"))

    settings, seen = replace(SETTINGS, algorithm="random", trials=1), list[Snapshot]()
    summary = search(tmp_path, ShuffledPool(late, 1, 0), settings, deadline=unix_now() + 60, watch=seen.append)
    assert (summary.ended, summary.failures, summary.jobs) == ("deadline", 0, 0)
    assert not any(snapshot.finished for snapshot in seen)
    assert search(tmp_path, ShuffledPool(partial(keep, tmp_path), 1, 0), settings).ended == "trials"


def slow_curve(configuration: Configuration, epochs: int) -> tuple[float, float]:
    return synthetic.loss_of(configuration, epochs), 10.0 * epochs


def watched_search(run: Path, settings: Settings, seconds: float | None = None) -> list[Snapshot]:
    """Return the snapshots of a search in virtual time, in which an epoch takes ten seconds."""
    seen = list[Snapshot]()
    pool = SimulatedPool(slow_curve, 2, deadline=seconds)
    run_search(Library(run), settings, pool, deadline=seconds, watch=seen.append, clock=pool.clock)
    return seen


def test_a_promotion_says_its_rank_and_the_journal_keeps_it(tmp_path: Path) -> None:
    seen = watched_search(tmp_path, Settings(synthetic.SPACE, "asha", trials=12, epochs=9))
    promoted = {(job.trial, job.start): snap.ranks.get(job.trial) for snap in seen for job in snap.started if job.start}
    assert promoted
    for (trial, start), rank in promoted.items():
        assert rank is not None, (trial, start)
        assert 1 <= rank[0] <= rank[1] / 3
    events = Journal(Library(tmp_path).journal_path, synthetic.SPACE, "random", 0).events()
    kept = {(e.trial, e.start): (e.rank, e.ranked) for e in events if isinstance(e, JobSubmitted)}
    assert {step: rank for step, rank in kept.items() if rank != (0, 0)} == promoted
    assert all(rank == (0, 0) for (_, start), rank in kept.items() if not start)
    assert not any(snap.skipped for snap in seen)


def test_what_would_not_end_before_the_deadline_is_said_once(tmp_path: Path) -> None:
    seen = watched_search(tmp_path, Settings(synthetic.SPACE, trials=None, epochs=27), 150.0)
    skipped = [step for snap in seen for step in snap.skipped]
    assert skipped
    assert len({(step.trial, step.start, step.stop) for step in skipped}) == len(skipped)
    assert all(step.seconds > step.left >= 0 for step in skipped)
    started = {(job.start, job.stop) for snap in seen for job in snap.started}
    new = [step for step in skipped if step.trial is None]
    assert (0, 27) in {(step.start, step.stop) for step in new} - started


def test_a_search_bounded_by_trials_estimates_its_end(tmp_path: Path) -> None:
    settings = Settings(synthetic.SPACE, "random", trials=20, epochs=3, order="arrival")
    seen = watched_search(tmp_path, settings)
    assert {snap.expected_epochs for snap in seen} == {60}
    first = next(snap for snap in seen if snap.jobs)
    left = seconds_left(first, {})
    assert left is not None
    assert first.seconds + left == pytest.approx(seen[-1].seconds, rel=0.15)
    assert seconds_left(seen[-1], {}) == 0.0
