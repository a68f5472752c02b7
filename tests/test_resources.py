"""Resources of a process are limited by the tightest of its control groups."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ripieno.resources import free_memory, sleep_while_waiting, thread_variables, usable_cores


def test_memory_heeds_the_tightest_control_group(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    group.write_text("0::/job/task\n")
    for folder, most, used in (("job", "9000", "4000"), ("job/task", "max", "1000")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(most)
        (tmp_path / folder / "memory.current").write_text(used)
    assert free_memory(group, tmp_path) == 5000
    (tmp_path / "job" / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    assert free_memory(group, tmp_path) == 6000


def test_memory_heeds_the_older_names_of_control_groups(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    group.write_text("4:cpu,cpuacct:/x\n5:memory:/job\n")
    (tmp_path / "memory" / "job").mkdir(parents=True)
    (tmp_path / "memory" / "job" / "memory.limit_in_bytes").write_text("700")
    (tmp_path / "memory" / "job" / "memory.usage_in_bytes").write_text("100")
    assert free_memory(group, tmp_path) == 600


def test_without_control_groups_the_machine_sets_the_limit(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "absent") > 0


def test_cores_heed_the_tightest_quota(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    group.write_text("0::/job/task\n")
    (tmp_path / "job" / "task").mkdir(parents=True)
    every = tuple(sorted(os.sched_getaffinity(0)))
    assert usable_cores(group, tmp_path) == every
    (tmp_path / "job" / "task" / "cpu.max").write_text("max 100000\n")
    assert usable_cores(group, tmp_path) == every
    (tmp_path / "job" / "cpu.max").write_text("190000 100000\n")
    assert usable_cores(group, tmp_path) == every[:1]
    (tmp_path / "job" / "task" / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(group, tmp_path) == every[:1]


def test_cores_heed_the_older_names_of_control_groups(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    group.write_text("5:memory:/job\n4:cpu,cpuacct:/job\n")
    folder = tmp_path / "cpu,cpuacct"  # as in a container, which sees its own group as the root
    folder.mkdir()
    (folder / "cpu.cfs_period_us").write_text("50000\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    every = tuple(sorted(os.sched_getaffinity(0)))
    assert usable_cores(group, tmp_path) == every
    (folder / "cpu.cfs_quota_us").write_text("60000\n")
    assert usable_cores(group, tmp_path) == every[:1]


def test_a_quota_above_the_cores_there_are_leaves_them_all(tmp_path: Path) -> None:
    group = tmp_path / "cgroup"
    group.write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("99900000 100000\n")
    assert usable_cores(group, tmp_path) == tuple(sorted(os.sched_getaffinity(0)))


def test_threads_sleep_while_they_wait_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert thread_variables(3)["OMP_WAIT_POLICY"] == "passive"
    assert thread_variables(3)["OMP_NUM_THREADS"] == "3"
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == thread_variables(3)["OMP_WAIT_POLICY"] == "active"


@pytest.mark.parametrize("chosen", [None, "active"])
def test_every_process_that_computes_gets_the_wait_policy(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers, profiles and the command line; trainers: `tests/cluster`."""
    from ripieno.engine import Engine
    from ripieno.profiles import profiler
    from ripieno.profiles.profiler_process import ProfileRequest
    from ripieno.types import Device
    from tests.engine import fake_members as fake
    from tests.server.wire import soon

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    due = f"OMP_WAIT_POLICY={chosen or 'passive'}".encode()

    def has_policy(process: int) -> bool:
        # a process shows no environment for a moment after its program was loaded
        return soon(lambda: due in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"))

    bundle = fake.bundle()
    with Engine(bundle, isolation="process", load=fake.load) as engine:
        assert has_policy(engine.stats().lanes[0].process)
    request = ProfileRequest(
        tmp_path, bundle.members[0], Device("cpu:0", "cpu", 1), "torch", 1, (1,), None, 0.1, 0.1, 1.0
    )
    given: list[dict[str, str]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, env: dict[str, str], **options: Any) -> None:
            given.append(env)
            super().__init__(*arguments, env=env, **options)

    monkeypatch.setattr(profiler.subprocess, "Popen", Recorded)
    assert list(profiler._replies(request))[-1].error, "there is no file to measure"
    assert [env["OMP_WAIT_POLICY"] for env in given] == [chosen or "passive"]
