"""Joules by energy counters: those of the processor (Linux powercap) and of NVIDIA GPUs (NVML).

Theory of operation. A counter counts what a whole processor package or GPU has used since some time in the past, by all
programs. The joules of a call are therefore those of a machine that repeats it for two seconds and more, less those of
the same machine that does nothing. A counter of the processor wraps around, at a range that the kernel states, after
minutes under load: every reading adds the difference to the one before, so readings must not be further apart
(`EnergyMeter`).
Counters move in steps, those of GPUs every 20 to 100 ms: a measurement begins and ends at a step.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ripieno.errors import EngineError, system_error
from ripieno.types import Device

POWERCAP = Path("/sys/class/powercap")
POWERCAP_VARIABLE = "RIPIENO_POWERCAP"
"""Environment variable with the folder of the processor's counters, where a container has them elsewhere."""
NVML = "libnvidia-ml.so.1"
UUID_BYTES = 96
LEAST_SECONDS = 2.0
"""Least seconds of a measurement, and of the idle time before it."""
STEP_SECONDS = 0.3
"""Longest wait for the next step of a counter."""
READ_SECONDS = 20.0
"""Interval of the readings of a meter: no counter wraps around twice in it."""


class EnergyCounter(Protocol):
    """Counter of the energy that a device uses."""

    def joules(self) -> float:
        """Return the joules since the counter was opened or, of a GPU, since its driver was loaded."""


class ProcessorCounter:
    """Joules of all processor packages of this machine, in the folder of Linux's powercap.

    Each package counts once, whatever interfaces list it. Parts of a package (cores, memory) are not added: most are in
    its sum. Raises EngineError where no package can be read.
    """

    def __init__(self, root: Path | None = None) -> None:
        root = root or Path(os.environ.get(POWERCAP_VARIABLE, POWERCAP))
        packages: dict[str, Path] = {}
        # `intel-rapl-mmio:0` sorts before `intel-rapl:0`, the same package, which therefore replaces it
        for zone in sorted(root.glob("*:*")):
            if (name := _read(zone / "name")).startswith("package"):
                packages[name] = zone
        if not packages:
            raise EngineError(f"{root} has no counter of a processor package")
        self._counters = [_WrappingCounter(zone) for zone in packages.values()]

    def joules(self) -> float:
        """Return the joules since the counter was opened. Raises EngineError where it cannot be read any more."""
        return sum(counter.joules() for counter in self._counters)


class _WrappingCounter:
    """Counter in one folder of powercap, in microjoules, that starts again at 0 above its range."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = _number(zone / "max_energy_range_uj")
        self._last, self._total = _number(self._file), 0

    def joules(self) -> float:
        """Return the joules since the counter was opened."""
        now = _number(self._file)
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise EngineError(system_error(error, "read")) from None


def _number(path: Path) -> int:
    text = _read(path)
    if not text.isdecimal():
        raise EngineError(f"{path} is {text!r}: expected a whole number of microjoules")
    return int(text)


class GPUCounter:
    """Joules of one GPU by NVML (libnvidia-ml), through ctypes: no package is needed.

    `uuid` names the GPU as torch and nvidia-smi do, since NVML numbers all GPUs of the machine, and a process may see
    only some of them. Raises EngineError where there is no such counter.
    """

    def __init__(self, uuid: str, library: str = NVML) -> None:
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError as error:
            raise EngineError(f"{error}: NVIDIA's driver is not installed") from None
        self._call("nvmlInit_v2")
        self._device = ctypes.c_void_p()
        name = (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}").encode()
        if len(name) >= UUID_BYTES:
            raise EngineError(f"{uuid!r} is not the UUID of a GPU: expected at most {UUID_BYTES - 1} characters")
        self._call("nvmlDeviceGetHandleByUUID", name, ctypes.byref(self._device))
        self.joules()

    def joules(self) -> float:
        """Return the joules since the driver was loaded."""
        value = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._device, ctypes.byref(value))
        return value.value / 1000

    def watts(self) -> float:
        """Return the power that NVML reports now, a second reading."""
        value = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", self._device, ctypes.byref(value))
        return value.value / 1000

    def _call(self, function: str, *arguments: object) -> None:
        if code := getattr(self._nvml, function)(*arguments):
            raise EngineError(f"{function} of {NVML} failed with code {code}: this GPU or driver has no energy counter")


def open_counter(device: Device) -> EnergyCounter:
    """Return the energy counter of `device`: of its GPU, or of all processor packages of this machine.

    Raises EngineError, in one line that says how to give joules without a counter.
    """
    try:
        if device.type != "cuda":
            return ProcessorCounter()
        from ripieno.profiles.devices import gpu_uuid

        return GPUCounter(gpu_uuid(device.name))
    except EngineError as error:
        raise EngineError(
            f"cannot measure joules on {device.name}: {error}; import your own joules with --costs costs.csv, "
            "or leave joules out"
        ) from None


class EnergyMeter:
    """Joules of a device between two laps, times the `share` of the device that the caller has."""

    def __init__(self, counter: EnergyCounter, share: float = 1.0) -> None:
        self._counter, self._share = counter, share
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._last = counter.joules()
        threading.Thread(target=self._keep_reading, name="energy-meter", daemon=True).start()

    def lap(self) -> float | None:
        """Return the joules since the last lap, at first since the start; None where the counter cannot be read."""
        try:
            with self._lock:
                now = self._counter.joules()
        except EngineError:
            return None
        last, self._last = self._last, now
        return (now - last) * self._share

    def close(self) -> None:
        """Stop reading."""
        self._closed.set()

    def _keep_reading(self) -> None:
        while not self._closed.wait(READ_SECONDS):
            with suppress(EngineError), self._lock:
                self._counter.joules()


def settle(counter: EnergyCounter, seconds: float = STEP_SECONDS) -> float:
    """Wait for the next step of `counter`, at most `seconds`; return its joules."""
    before, until = counter.joules(), time.monotonic() + seconds
    while time.monotonic() < until:
        if (now := counter.joules()) != before:
            return now
        time.sleep(0.001)  # reading without a rest would use energy itself
    return before


def joules_of(call: Callable[[], object], counter: EnergyCounter, seconds: float = LEAST_SECONDS) -> float:
    """Return the joules of one `call()` above those of the idle machine, both measured for at least `seconds`.

    Raises EngineError where the counter shows no more than on the idle machine: it does not count this work, or other
    programs keep the machine busy.
    """
    idle, rested, _ = _spent(lambda: time.sleep(min(seconds, 0.1)), counter, seconds)
    used, took, calls = _spent(call, counter, seconds)
    above = used - idle * took / rested
    if above <= 0:
        raise EngineError(
            f"the energy counter showed {used:.3g} J in {took:.3g} s of predictions and {idle:.3g} J in {rested:.3g} s "
            "without: measure again on an idle machine"
        )
    return above / calls


def _spent(call: Callable[[], object], counter: EnergyCounter, seconds: float) -> tuple[float, float, int]:
    """Repeat `call()` for `seconds`; return joules, seconds and the number of calls."""
    before, began, calls = settle(counter), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        calls += 1
    after = settle(counter)
    return after - before, time.perf_counter() - began, calls
