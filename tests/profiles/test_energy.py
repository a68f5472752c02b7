from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from ripieno.errors import EngineError
from ripieno.library import Library
from ripieno.library.cost_table import own_cost
from ripieno.profiles import local_devices, measure_library, profile
from ripieno.profiles.energy import (
    POWERCAP_VARIABLE,
    EnergyMeter,
    GPUCounter,
    ProcessorCounter,
    joules_of,
    open_counter,
    settle,
)
from ripieno.types import BatchProfile, Device, Member, Profile
from tests.onnx_networks import write_network

QUICK = {"window": 0.003, "spread": 10.0}
RANGE = 1_000_000
WIDE = 1_000_000_000  # wide enough for the seconds between two readings
CPU = Device("cpu:0", "test-1-core", 1 << 34, local_devices("cpu")[0].cores[-1:])


def write_zone(root: Path, zone: str, name: str, microjoules: int = 0, microjoules_range: int = RANGE) -> Path:
    folder = root / zone
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{microjoules_range}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_differences_are_added_across_the_end_of_the_range(tmp_path: Path) -> None:
    file = write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    counter = ProcessorCounter(tmp_path)
    readings = []
    for value in (950_000, 50_000, 50_000, 999_999, 0):
        file.write_text(f"{value}\n")
        readings.append(counter.joules())
    assert readings == pytest.approx([0.05, 0.15, 0.15, 1.099999, 1.1])


def test_each_package_counts_once_and_parts_and_platforms_do_not(tmp_path: Path) -> None:
    files = [
        write_zone(tmp_path, *zone)
        for zone in (
            ("intel-rapl-mmio:0", "package-0"),
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
        )
    ]
    counter = ProcessorCounter(tmp_path)
    for file, value in zip(files, (1, 10, 100, 1_000, 10_000, 100_000), strict=True):
        file.write_text(str(value))
    assert counter.joules() == pytest.approx(10_010e-6)


def without_counters(root: Path) -> None:
    write_zone(root, "intel-rapl:2", "psys")


def without_folder(root: Path) -> None:
    root.rmdir()


def with_words(root: Path) -> None:
    write_zone(root, "intel-rapl:0", "package-0").write_text("many")


def with_a_folder_for_the_counter(root: Path) -> None:
    file = write_zone(root, "intel-rapl:0", "package-0")
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_folder, "has no counter of a processor package"),
        (without_counters, "has no counter of a processor package"),
        (with_words, "'many': expected a whole number of microjoules"),
        (with_a_folder_for_the_counter, "cannot read"),
    ],
)
def test_a_counter_that_cannot_be_read_is_refused_in_one_line_that_names_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], words: str
) -> None:
    monkeypatch.setenv(POWERCAP_VARIABLE, str(tmp_path))
    spoil(tmp_path)
    with pytest.raises(EngineError) as error:
        open_counter(CPU)
    assert words in str(error.value)
    assert "--costs" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gpu_without_a_driver_is_refused() -> None:
    with pytest.raises(EngineError, match=r"driver is not installed"):
        GPUCounter("GPU-1", library="libnothing.so.1")


def test_the_counter_of_a_gpu_reads_what_nvml_returns(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = tmp_path / "nvml.c"
    source.write_text(
        "#include <string.h>\n"
        "static unsigned long long used = 1500;\n"
        "int nvmlInit_v2(void) { return 0; }\n"
        "int nvmlDeviceGetHandleByUUID(const char *name, void **device)\n"
        '{ *device = (void *)1; return strcmp(name, "GPU-12-ab") ? 6 : 0; }\n'
        "int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *value)\n"
        "{ *value = used += 500; return device != (void *)1; }\n"
        "int nvmlDeviceGetPowerUsage(void *device, unsigned int *value) { *value = 70250; return 0; }\n"
    )
    library = tmp_path / "libnvml.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    counter = GPUCounter("12-ab", str(library))
    assert counter.joules() == 2.5  # each reading adds half a joule
    assert settle(counter) == 3.5
    assert counter.watts() == 70.25
    with pytest.raises(EngineError, match=r"nvmlDeviceGetHandleByUUID of .* failed with code 6"):
        GPUCounter("another", str(library))


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], float]], None]]:
    """Start a counter that wraps around, of a machine of 20 W and of the watts that a function says."""
    root = tmp_path / "powercap"
    file = write_zone(root, "intel-rapl:0", "package-0", microjoules_range=WIDE)
    monkeypatch.setenv(POWERCAP_VARIABLE, str(root))
    ended, threads = threading.Event(), []

    def tick(joules: Callable[[], float]) -> None:
        began = time.perf_counter()
        while not ended.wait(0.005):
            new = file.with_name("new")
            new.write_text(str(int(1e6 * (20 * (time.perf_counter() - began) + joules())) % WIDE))
            new.replace(file)  # a kernel's file is never half written

    def start(joules: Callable[[], float]) -> None:
        threads.append(threading.Thread(target=tick, args=(joules,)))
        threads[0].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def test_joules_of_a_call_are_those_above_the_idle_machine(power: Callable[[Callable[[], float]], None]) -> None:
    calls: list[None] = []
    power(lambda: 0.5 * len(calls))

    def call() -> None:
        time.sleep(0.01)
        calls.append(None)

    assert joules_of(call, ProcessorCounter(), seconds=0.15) == pytest.approx(0.5, rel=0.2)


def test_work_that_the_counter_does_not_show_is_no_energy_but_an_error(
    power: Callable[[Callable[[], float]], None],
) -> None:
    stopped: list[float] = []
    power(lambda: 100 * (stopped[0] if stopped else time.perf_counter()))

    def call() -> None:
        stopped.append(time.perf_counter())
        time.sleep(0.01)

    with pytest.raises(EngineError, match=r"measure again on an idle machine"):
        joules_of(call, ProcessorCounter(), seconds=0.1)


def test_a_member_has_the_joules_of_its_processor_time(
    tmp_path: Path, power: Callable[[Callable[[], float]], None]
) -> None:
    me, spent = psutil.Process(), dict[int, float]()

    def joules() -> float:
        """100 W of the processor that the measuring process uses."""
        for child in me.children():
            with contextlib.suppress(psutil.Error):
                spent[child.pid] = sum(child.cpu_times()[:2])
        return 100 * sum(spent.values())

    power(joules)
    member = write_network(tmp_path / "model.onnx", filters=32, layers=4)
    found = profile(tmp_path / "model.onnx", member, CPU, batch_sizes=(8,), energy=True, **QUICK)
    # a core at work uses 100 W above the idle machine; the clock of a busy machine says more
    assert found.joules == pytest.approx(100 * found.cost, rel=0.5)


def test_joules_are_measured_once_and_where_they_are_asked_for(
    tmp_path: Path, power: Callable[[Callable[[], float]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(tmp_path / "run")
    member = write_network(tmp_path / "model.onnx")
    targets = np.arange(20) % 4
    answers = np.full((20, 4), 0.25, np.float32)
    library.add(
        replace(member, losses={"valid_cross_entropy": 1.0}), answers, targets, (tmp_path / "model.onnx").read_bytes()
    )
    asked: list[bool] = []

    def measured(path: Path, member: Member, device: Device, backend: str, *, energy: bool, **_: object) -> Profile:
        asked.append(energy)
        return Profile(member.id, device.kind, backend, (BatchProfile(1, 0.1, 0, 1),), joules=5.0 if energy else None)

    monkeypatch.setattr("ripieno.profiles.profiler.profile", measured)
    for energy, expected in ((False, [False]), (True, [False, True]), (True, [False, True]), (False, [False, True])):
        measure_library(library, CPU, batch_sizes=(1,), energy=energy)
        assert asked == expected
    assert library.profiles(CPU.kind)[member.id].joules == 5.0
    assert own_cost(library, member, library.profiles(CPU.kind)[member.id], "joules") == 5.0


def test_a_meter_gives_the_share_of_each_lap(tmp_path: Path) -> None:
    file = write_zone(tmp_path, "intel-rapl:0", "package-0")
    meter = EnergyMeter(ProcessorCounter(tmp_path), 0.5)
    file.write_text("400000")
    assert meter.lap() == pytest.approx(0.2)
    assert meter.lap() == 0
    file.unlink()
    assert meter.lap() is None
    meter.close()
