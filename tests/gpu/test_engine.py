"""The engine with workers on a GPU, in threads and in processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import gpu_work
import numpy as np
import pytest

from ripieno import backends, files
from ripieno.engine import Engine, bench
from ripieno.engine.worker_config import worker_config, workers_of
from ripieno.types import Allocation, Bundle, Device, Ensemble, Placement
from tests.backends.made import CPU, Made

MIB = 1 << 20


def bundle_of(made: Made, folder: Path, device: Device, backend: str = "torch", lanes: int = 2) -> Bundle:
    """Two members of the same weights, each with a worker of its own."""
    members = tuple(dataclasses.replace(made.member, id=f"0000{i}-e001", trial=i) for i in range(2))
    for member in members:
        weights = made.path("torch").read_bytes()
        files.write_bytes(folder / "members" / member.id / "weights.safetensors", weights)
    ids = tuple(m.id for m in members)
    places = tuple(Placement(name, device.name, 8, i % lanes) for i, name in enumerate(ids))
    ensemble = Ensemble("two", ids, (0.5, 0.5), "hand", {}, {}, {})
    allocation = Allocation("here", "two", (device,), places)
    return Bundle(ensemble, allocation, members, made.member.input, made.member.task, backend, folder)


def expected_of(made: Made) -> np.ndarray:
    return backends.load("torch", made.path("torch"), made.member, CPU, 1).infer(made.images)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("backend", ["torch", "torch-graphs", "torch-graphs:bf16"])
def test_answers_are_those_of_the_members_on_the_cpu(
    made: Made, device: Device, tmp_path: Path, backend: str, isolation: str
) -> None:
    bundle = bundle_of(made, tmp_path, device, backend)
    with Engine(bundle, isolation=isolation) as engine:
        found = engine.predict(made.images)
        np.testing.assert_allclose(found, expected_of(made), atol=0.1 if "bf16" in backend else 1e-4)
        assert bench(bundle, engine=engine, seconds=0.3, batch=16).throughput > 0


def test_auto_runs_gpu_workers_in_threads(made: Made, device: Device, tmp_path: Path) -> None:
    with Engine(bundle_of(made, tmp_path, device)) as engine:
        assert engine.isolation == "thread"


def test_members_are_divided_between_a_gpu_and_the_cpu(made: Made, device: Device, tmp_path: Path) -> None:
    bundle = bundle_of(made, tmp_path, device)
    first, second = bundle.allocation.placements
    places = (first, dataclasses.replace(second, device="cpu:0", lane=0))
    both = dataclasses.replace(bundle.allocation, devices=(device, CPU), placements=places)
    with Engine(dataclasses.replace(bundle, allocation=both)) as engine:
        np.testing.assert_allclose(engine.predict(made.images), expected_of(made), atol=1e-4)


def test_a_killed_worker_starts_again_on_the_gpu(made: Made, device: Device, tmp_path: Path) -> None:
    with Engine(bundle_of(made, tmp_path, device), isolation="process") as engine:
        os.kill(engine.stats().lanes[0].process, signal.SIGKILL)
        np.testing.assert_allclose(engine.predict(made.images), expected_of(made), atol=1e-4)
        until = time.monotonic() + 60
        while not (engine.stats().lanes[0].restarts and engine.stats().lanes[0].up):
            assert time.monotonic() < until, "the worker did not start again"
            time.sleep(0.05)


def test_a_worker_that_lost_its_gpu_is_replaced_by_a_new_process(made: Made, device: Device, tmp_path: Path) -> None:
    bundle = bundle_of(made, tmp_path, device)
    with Engine(bundle, isolation="process", load=gpu_work.load) as engine:
        before = engine.stats().lanes[0].process
        np.testing.assert_allclose(engine.predict(made.images), expected_of(made), atol=1e-4)
        assert engine.stats().lanes[0].restarts == 0
        assert before == engine.stats().lanes[0].process
    for member in bundle.members:
        (tmp_path / "members" / member.id / "armed").touch()
    # the warm-up runs whole batches too: the loss may come there or later
    with Engine(bundle, isolation="process", load=gpu_work.load) as engine:
        np.testing.assert_allclose(engine.predict(made.images), expected_of(made), atol=1e-4)
        assert sum(worker.restarts for worker in engine.stats().lanes) >= 1


def test_a_planned_worker_is_told_its_share_of_the_gpus_memory(made: Made, device: Device, tmp_path: Path) -> None:
    bundle = bundle_of(made, tmp_path, dataclasses.replace(device, memory=1000 * MIB))
    planned = {f"{device.name}/0": 300 * MIB, f"{device.name}/1": 500 * MIB}
    bundle = dataclasses.replace(bundle, allocation=dataclasses.replace(bundle.allocation, planned=planned))
    groups = workers_of(bundle)
    assert [worker_config(bundle, group, groups).device.memory for group in groups] == [400 * MIB, 600 * MIB]
