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
from ripieno.engine.layout import memory_limit_of
from ripieno.engine.memory_limit import explain_oom, is_exceeded, resident
from ripieno.errors import EngineError
from ripieno.profiles import profile
from ripieno.types import Allocation, Bundle, Device, Ensemble, Member, Placement
from tests.onnx_networks import write_network

MIB = 1 << 20
QUICK = RestartPolicy(check=0.05, back_off=0.01, longest_back_off=0.02, deaths=2)
CPU = Device("cpu:0", "cpu-1-core", 2000 * MIB, (min(os.sched_getaffinity(0)),))
BATCH = 64
"""in which the network's maps take 24 MiB"""


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
    return Bundle(ensemble, allocation, (member,), member.input, member.classes, "onnx", folder)


def images(member: Member) -> np.ndarray:
    return np.zeros((BATCH, *member.input.shape), np.uint8)


def planned_bytes(network: tuple[Path, Member]) -> int:
    folder, member = network
    path = folder / "members" / member.id / "model.onnx"
    found = profile(path, member, CPU, batch_sizes=(BATCH,), window=0.01, max_seconds=0.5)
    return found.base + found.points[0].bytes


def test_a_lane_that_takes_what_was_measured_runs_within_its_cap(network: tuple[Path, Member]) -> None:
    planned = planned_bytes(network)
    made = bundle(network, {"cpu:0/0": planned}, planned)
    with Engine(made, isolation="process", patience=QUICK) as engine:
        for _ in range(3):
            assert engine.predict(images(network[1])).shape == (BATCH, 4)
        lane = engine.stats().lanes[0]
        assert lane.restarts == 0
        assert resident(lane.process) <= planned
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit, _ = resource.prlimit(lane.process, resource.RLIMIT_DATA)
        assert limit != hard
        assert limit < planned * 3


def test_a_lane_that_needs_more_than_its_cap_fails_with_one_line(network: tuple[Path, Member]) -> None:
    # enough to load it, and so much too little for the batch, whose maps take 384 MiB, that the kernel refuses them at
    # the first try: the watch, which looks now and then, is not needed
    small = 150 * MIB
    made = bundle(network, {"cpu:0/0": small}, small)
    many = tuple(dataclasses.replace(p, batch_size=1024) for p in made.allocation.placements)
    made = dataclasses.replace(made, allocation=dataclasses.replace(made.allocation, placements=many))
    with Engine(made, isolation="process", patience=QUICK) as engine:
        with pytest.raises(EngineError, match=r"memory.* its 150 MiB: measure and allocate again") as failure:
            engine.predict(np.concatenate([images(network[1])] * 16))
        assert "\n" not in str(failure.value)
        assert engine.stats().lanes[0].restarts >= 1


def test_a_cap_below_the_runtimes_own_share_is_refused_at_the_start(network: tuple[Path, Member]) -> None:
    slow = dataclasses.replace(QUICK, check=10.0)  # or the watch sees it first
    with pytest.raises(EngineError, match="before it holds a member, of 10 MiB"):
        Engine(bundle(network, {"cpu:0/0": 10 * MIB}, 10 * MIB), isolation="process", patience=slow)


def test_a_plan_over_its_devices_memory_is_not_loaded(network: tuple[Path, Member]) -> None:
    with pytest.raises(EngineError, match="300 MiB are planned on cpu:0, which has 200 MiB: allocate again"):
        Engine(bundle(network, {"cpu:0/0": 300 * MIB}, 200 * MIB))


def test_a_plan_over_what_is_free_is_not_loaded(network: tuple[Path, Member]) -> None:
    with pytest.raises(EngineError, match=r"are planned to take .* MiB are free"):
        Engine(bundle(network, {"cpu:0/0": 1 << 50}, 1 << 51), isolation="thread")


def test_caps_of_a_devices_lanes_add_up_to_its_memory(network: tuple[Path, Member]) -> None:
    made = bundle(network, {"cpu:0/0": 100, "cpu:0/1": 300}, 1000)
    two = tuple(Placement("00000-e001", "cpu:0", 8, lane) for lane in (0, 1))
    made = dataclasses.replace(made, allocation=dataclasses.replace(made.allocation, placements=two))
    device = made.allocation.devices[0]
    assert [memory_limit_of(made, device, lane) for lane in (0, 1)] == [400, 600]


def test_nothing_is_enforced_where_nothing_was_planned(network: tuple[Path, Member]) -> None:
    made = bundle(network, {}, 1)
    assert memory_limit_of(made, made.allocation.devices[0], 0) == 0


def test_a_process_over_its_cap_is_noticed_and_one_below_is_not() -> None:
    call = "import sys; held = bytearray(60 << 20); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", call], stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        assert "over its 50 MiB" in is_exceeded(50 * MIB, process.pid)
        assert is_exceeded(500 * MIB, process.pid) == ""
        assert is_exceeded(0, process.pid) == ""
        process.kill()
    assert is_exceeded(MIB, process.pid) == ""


def test_the_watch_ends_a_lane_over_its_cap_however_little_the_kernel_refused(network: tuple[Path, Member]) -> None:
    small = bundle(network, {"cpu:0/0": 150 * MIB}, 150 * MIB)
    with Engine(small, isolation="process", patience=QUICK) as engine:
        first = engine.stats().lanes[0].process
        engine._watch._caps = (MIB,)  # as if it had grown
        for _ in range(1000):
            if engine.stats().lanes[0].restarts:
                break
            time.sleep(0.02)
        assert engine.stats().lanes[0].restarts >= 1
        assert is_exceeded(MIB, first) == ""  # it is gone


def test_only_want_of_memory_is_called_so() -> None:
    assert "more memory than its 1 MiB" in explain_oom(MemoryError(), MIB)
    assert "more memory" in explain_oom(RuntimeError("Failed to allocate memory for requested buffer"), MIB)
    assert explain_oom(ValueError("a bad pixel"), MIB) == ""
    assert explain_oom(MemoryError(), 0) == ""
