"""Worker processes with a GPU of their own, on this machine and on a Ray cluster."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gpu_work
import pytest

import ripieno
from ripieno.cluster import LocalPool, gpu_slots
from ripieno.types import Dataset, Job, JobResult


def finished(pool: LocalPool, jobs: list[Job]) -> list[JobResult]:
    for job in jobs:
        pool.submit(job)
    outcomes: list[JobResult] = []
    while len(outcomes) < len(jobs):
        outcomes += pool.wait()
    return sorted(outcomes, key=lambda outcome: outcome.job.trial)


def test_a_slot_sees_its_own_gpu_alone(tmp_path: Path) -> None:
    jobs = [Job(trial, {"do": "work"}, 0, 1) for trial in range(2)]
    with LocalPool(partial(gpu_work.work, str(tmp_path)), gpu_slots(["0"], 2), logs=tmp_path / "logs") as pool:
        outcomes = finished(pool, jobs)
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert {(tmp_path / str(job.trial)).read_text().split()[1] for job in jobs} == {"1"}


def test_a_worker_that_lost_its_gpu_is_replaced_before_the_next_job(tmp_path: Path) -> None:
    with LocalPool(partial(gpu_work.work, str(tmp_path)), gpu_slots(["0"]), logs=tmp_path / "logs") as pool:
        lost, good = finished(pool, [Job(0, {"do": "lose"}, 0, 1), Job(1, {"do": "work"}, 0, 1)])
    assert lost.failure is not None
    assert "CUDA" in lost.failure.message
    assert good.failure is None, good.failure
    first, second = ((tmp_path / str(trial)).read_text().split()[2] for trial in range(2))
    assert first != second


def test_a_ray_cluster_gives_each_trial_its_share_of_the_gpu(digits: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'ripieno[cluster]'")
    options = {
        "trials": 2,
        "epochs": 1,
        "space": "resnet-tiny",
        "free": "off",
        "pool": "ray",
        "device": "cuda",
        "per_device": 2,
    }
    library = ripieno.tune(digits.path, tmp_path / "run", **options)
    assert {m.trial for m in library.members()} == {0, 1}
