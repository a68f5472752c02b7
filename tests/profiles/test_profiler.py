from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from ripieno.errors import EngineError, RipienoError
from ripieno.library import Library
from ripieno.profiles import local_devices, measure_library, profile
from ripieno.types import BatchProfile, Device, Member, Profile
from tests.onnx_networks import write_network

QUICK = {"window": 0.003, "spread": 10.0}
CPU = Device("cpu:0", "test-1-core", 1 << 34, local_devices("cpu")[0].cores[:1])


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, Member]:
    return tmp_path / "model.onnx", write_network(tmp_path / "model.onnx")


def test_every_batch_size_is_measured_once_ascending(network: tuple[Path, Member]) -> None:
    reports: list[BatchProfile] = []
    found = profile(*network, CPU, batch_sizes=(16, 1, 16), progress=reports.append, **QUICK)
    assert [p.batch_size for p in found.points] == [1, 16]
    assert found.tried == (1, 16)
    assert list(found.points) == reports
    assert (found.member, found.device, found.backend) == ("00000-e001", "test-1-core", "onnx")
    assert all(p.seconds > 0 for p in found.points)


@pytest.mark.alone
def test_a_larger_batch_of_a_larger_network_takes_longer_and_more(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    member = write_network(path, shape=(32, 32, 3), filters=64, layers=4)
    small, large = profile(path, member, CPU, batch_sizes=(1, 32), **QUICK).points
    assert large.seconds > 5 * small.seconds
    # a map of 32 x 32 x 64 floats is 256 KiB a sample; at least two are alive at once
    assert large.bytes - small.bytes > 31 * 2 * 32 * 32 * 64 * 4 * 0.9


def test_the_base_is_a_runtime_and_not_in_the_members_bytes(network: tuple[Path, Member]) -> None:
    found = profile(*network, CPU, batch_sizes=(1,), **QUICK)
    assert 20 << 20 < found.base < 400 << 20
    assert found.points[0].bytes < found.base


def test_weights_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    member = write_network(path, filters=512, layers=3)
    found = profile(path, member, CPU, batch_sizes=(1,), **QUICK)
    assert found.points[0].bytes >= found.load > 4 * member.parameters


def test_given_samples_are_repeated_to_fill_a_batch(network: tuple[Path, Member]) -> None:
    samples = np.zeros((3, 8, 8, 3), np.uint8)
    assert profile(*network, CPU, batch_sizes=(8,), samples=samples, **QUICK).at(8).seconds > 0


@pytest.mark.parametrize("samples", [np.zeros((3, 8, 8, 1), np.uint8), np.zeros((3, 8, 8, 3)), np.zeros((0, 8, 8, 3))])
def test_samples_of_another_kind_are_refused(network: tuple[Path, Member], samples: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"needs \(n, 8, 8, 3\) uint8"):
        profile(*network, CPU, samples=samples)


def test_no_batch_size_is_refused(network: tuple[Path, Member]) -> None:
    with pytest.raises(EngineError, match="batch sizes"):
        profile(*network, CPU, batch_sizes=())


def test_a_broken_file_is_one_line_naming_the_member(tmp_path: Path, network: tuple[Path, Member]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(EngineError, match=r"cannot measure 00000-e001 on cpu:0 with onnx") as caught:
        profile(tmp_path / "broken.onnx", network[1], CPU)
    assert "\n" not in str(caught.value)


def test_a_member_whose_predictions_are_not_finite_is_not_measured(tmp_path: Path) -> None:
    member = write_network(tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    bias = next(w for w in model.graph.initializer if w.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(EngineError, match=r"cannot measure 00000-e001 .* not finite"):
        profile(tmp_path / "model.onnx", member, CPU, batch_sizes=(1,), **QUICK)


def test_no_process_is_left_behind(network: tuple[Path, Member]) -> None:
    import psutil

    before = {p.pid for p in psutil.Process().children()}
    profile(*network, CPU, batch_sizes=(1,), **QUICK)
    assert {p.pid for p in psutil.Process().children()} <= before


def test_the_process_exits_with_its_parent() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ripieno.profiles.profiler_process"], stdin=subprocess.PIPE, stderr=-3
    )
    assert child.stdin is not None
    child.stdin.close()
    started = time.monotonic()
    child.wait(10)
    assert time.monotonic() - started < 10


class MemoryStore(Library):
    """A library in memory; every member has an ONNX file."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder)
        self.folder = folder
        self.all = {
            f"{i:05d}-e001": write_network(self.onnx_path(f"{i:05d}-e001"), name=f"{i:05d}-e001") for i in range(count)
        }
        self.kept: dict[tuple[str, str], Profile] = {}

    def ids(self) -> list[str]:
        return sorted(self.all)

    def member(self, member: str) -> Member:
        return self.all[member]

    def weights_path(self, member: str) -> Path:
        raise AssertionError("there is an ONNX file")

    def onnx_path(self, member: str) -> Path:
        return self.folder / f"{member}.onnx"

    def profiles(self, device: str, backend: str | None = None) -> dict[str, Profile]:
        return {m: p for (m, by), p in self.kept.items() if by == backend}

    def write_profiles(self, device: str, profiles: list[Profile]) -> Path:
        self.kept.update({(p.member, p.backend): p for p in profiles})
        return self.folder


def test_a_library_is_measured_once_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 3)
    reports: list[tuple[str, int, int]] = []

    def report(found: Profile, done: int, count: int) -> None:
        reports.append((found.member, done, count))

    first = measure_library(store, CPU, store.ids()[:1], batch_sizes=(1,), **QUICK)
    found = measure_library(store, CPU, batch_sizes=(1,), progress=report, **QUICK)
    assert list(found) == store.ids()
    assert found[store.ids()[0]] == first[store.ids()[0]]
    assert reports == [(m, i, 3) for i, m in enumerate(store.ids(), 1)]
    assert store.profiles(CPU.kind, "onnx") == found


def test_a_batch_size_not_measured_yet_is_measured(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 1)
    measure_library(store, CPU, batch_sizes=(1,), **QUICK)
    found = measure_library(store, CPU, batch_sizes=(1, 2), **QUICK)
    assert [p.batch_size for p in found["00000-e001"].points] == [1, 2]


def test_a_batch_size_that_did_not_fit_is_not_tried_again_unless_asked_for(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 1)
    kept = Profile("00000-e001", CPU.kind, "onnx", (BatchProfile(1, 1.0, 0.0, 1),), tried=(1, 4))
    store.write_profiles(CPU.kind, [kept])
    assert measure_library(store, CPU, batch_sizes=(1, 4), **QUICK) == {"00000-e001": kept}
    again = measure_library(store, CPU, batch_sizes=(1, 4), again=True, **QUICK)["00000-e001"]
    assert [p.batch_size for p in again.points] == [1, 4]
    larger = measure_library(store, CPU, batch_sizes=(1, 8), **QUICK)["00000-e001"]
    assert [p.batch_size for p in larger.points] == [1, 8]


def test_a_profile_with_another_backend_is_not_reused(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 1)
    store.write_profiles(CPU.kind, [Profile("00000-e001", CPU.kind, "torch", (BatchProfile(1, 1.0, 0.0, 1),))])
    assert measure_library(store, CPU, batch_sizes=(1,), **QUICK)["00000-e001"].backend == "onnx"


def test_a_member_that_fails_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path, 2)
    store.onnx_path("00000-e001").write_bytes(b"broken")
    failures: list[str] = []

    def fail(member: str, error: RipienoError) -> None:
        failures.append(member)

    found = measure_library(store, CPU, batch_sizes=(1,), failed=fail, **QUICK)
    assert (failures, list(found)) == (["00000-e001"], ["00001-e001"])
    with pytest.raises(EngineError, match="00000-e001"):
        measure_library(store, CPU, batch_sizes=(1,), **QUICK)


def test_the_real_library_is_a_profile_store(tmp_path: Path) -> None:
    assert measure_library(Library(tmp_path), CPU) == {}
