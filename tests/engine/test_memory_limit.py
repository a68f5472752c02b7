from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ripieno.engine import Engine, RestartPolicy
from ripieno.engine.memory_limit import explain_oom, is_exceeded, resident
from ripieno.engine.worker_config import memory_limit_of
from ripieno.errors import EngineError
from ripieno.profiles import profile
from ripieno.types import Allocation, Bundle, Device, Ensemble, Member, Placement
from tests.onnx_networks import write_network

MIB = 1 << 20
QUICK = RestartPolicy(check=0.05, back_off=0.01, longest_back_off=0.02, deaths=2)
CPU = Device("cpu:0", "cpu-1-core", 2000 * MIB, (min(os.sched_getaffinity(0)),))
BATCH = 64
"""batch size at which the network's maps take 24 MiB"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Member]:
    folder = tmp_path_factory.mktemp("bundle")
    shape, name = (64, 64, 3), "00000-e001"
    path = folder / "members" / name / "model.onnx"
    return folder, write_network(path, name=name, shape=shape, filters=24, layers=2)


def bundle(network: tuple[Path, Member], planned: dict[str, int], memory: int) -> Bundle:
    folder, member = network
    ensemble = Ensemble("one", (member.id,), (1.0,), "hand", {}, {}, {})
    device = dataclasses.replace(CPU, memory=memory)
    allocation = Allocation("one", "one", (device,), (Placement(member.id, "cpu:0", BATCH),), planned=planned)
    return Bundle(ensemble, allocation, (member,), member.input, member.task, "onnx", folder)


def images(member: Member) -> np.ndarray:
    return np.zeros((BATCH, *member.input.shape), np.uint8)


def planned_bytes(network: tuple[Path, Member]) -> int:
    folder, member = network
    path = folder / "members" / member.id / "model.onnx"
    found = profile(path, member, CPU, batch_sizes=(BATCH,), window=0.01, max_seconds=0.5)
    return found.base + found.points[0].bytes


def test_a_worker_that_takes_what_was_measured_runs_within_its_memory_limit(network: tuple[Path, Member]) -> None:
    planned = planned_bytes(network)
    made = bundle(network, {"cpu:0/0": planned}, planned)
    with Engine(made, isolation="process", patience=QUICK) as engine:
        for _ in range(3):
            assert engine.predict(images(network[1])).shape == (BATCH, 4)
        worker = engine.stats().lanes[0]
        assert worker.restarts == 0
        assert resident(worker.process) <= planned
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit, _ = resource.prlimit(worker.process, resource.RLIMIT_DATA)
        assert limit != hard
        assert limit < planned * 3


def test_a_worker_that_needs_more_than_its_memory_limit_fails_with_one_line(network: tuple[Path, Member]) -> None:
    # enough to load the network, but far too little for the maps of the batch (384 MiB): the kernel refuses them at the
    # first attempt, before the periodic check of the health monitor
    small = 150 * MIB
    made = bundle(network, {"cpu:0/0": small}, small)
    many = tuple(dataclasses.replace(p, batch_size=1024) for p in made.allocation.placements)
    made = dataclasses.replace(made, allocation=dataclasses.replace(made.allocation, placements=many))
    with Engine(made, isolation="process", patience=QUICK) as engine:
        with pytest.raises(EngineError, match=r"memory.* its limit of 150 MiB\. Measure and allocate again") as failure:
            engine.predict(np.concatenate([images(network[1])] * 16))
        assert "\n" not in str(failure.value)
        assert engine.stats().lanes[0].restarts >= 1


def test_a_memory_limit_below_the_runtimes_own_share_is_refused_at_the_start(network: tuple[Path, Member]) -> None:
    slow = dataclasses.replace(QUICK, check=10.0)  # else the health monitor detects it first
    with pytest.raises(EngineError, match="before it loads a member; its limit is 10 MiB"):
        Engine(bundle(network, {"cpu:0/0": 10 * MIB}, 10 * MIB), isolation="process", patience=slow)


def test_a_plan_over_its_devices_memory_is_not_loaded(network: tuple[Path, Member]) -> None:
    with pytest.raises(EngineError, match=r"cpu:0 needs 300 MiB, but the device has 200 MiB\. Allocate again"):
        Engine(bundle(network, {"cpu:0/0": 300 * MIB}, 200 * MIB))


def test_a_plan_over_what_is_free_is_not_loaded(network: tuple[Path, Member]) -> None:
    with pytest.raises(EngineError, match=r"The members need .* MiB are free"):
        Engine(bundle(network, {"cpu:0/0": 1 << 50}, 1 << 51), isolation="thread")


def test_memory_limits_of_a_devices_workers_add_up_to_its_memory(network: tuple[Path, Member]) -> None:
    made = bundle(network, {"cpu:0/0": 100, "cpu:0/1": 300}, 1000)
    two = tuple(Placement("00000-e001", "cpu:0", 8, worker) for worker in (0, 1))
    made = dataclasses.replace(made, allocation=dataclasses.replace(made.allocation, placements=two))
    device = made.allocation.devices[0]
    assert [memory_limit_of(made, device, worker) for worker in (0, 1)] == [400, 600]


def test_nothing_is_enforced_where_nothing_was_planned(network: tuple[Path, Member]) -> None:
    made = bundle(network, {}, 1)
    assert memory_limit_of(made, made.allocation.devices[0], 0) == 0


def test_a_process_over_its_memory_limit_is_noticed_and_one_below_is_not() -> None:
    call = "import sys; held = bytearray(60 << 20); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", call], stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        assert "over its limit of 50 MiB" in is_exceeded(50 * MIB, process.pid)
        assert is_exceeded(500 * MIB, process.pid) == ""
        assert is_exceeded(0, process.pid) == ""
        process.kill()
    assert is_exceeded(MIB, process.pid) == ""


def test_the_health_monitor_ends_a_worker_that_the_kernel_did_not_stop(network: tuple[Path, Member]) -> None:
    small = bundle(network, {"cpu:0/0": 150 * MIB}, 150 * MIB)
    with Engine(small, isolation="process", patience=QUICK) as engine:
        first = engine.stats().lanes[0].process
        engine._health._memory_limits = (MIB,)  # as if it had grown
        for _ in range(1000):
            if engine.stats().lanes[0].restarts:
                break
            time.sleep(0.02)
        assert engine.stats().lanes[0].restarts >= 1
        assert is_exceeded(MIB, first) == ""  # the process has ended


def test_only_a_lack_of_memory_is_reported_as_one() -> None:
    assert "more memory than its limit of 1 MiB" in explain_oom(MemoryError(), MIB)
    assert "more memory" in explain_oom(RuntimeError("Failed to allocate memory for requested buffer"), MIB)
    assert explain_oom(ValueError("a bad pixel"), MIB) == ""
    assert explain_oom(MemoryError(), 0) == ""
