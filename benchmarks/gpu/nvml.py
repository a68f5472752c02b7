"""Energy counter of a GPU by NVML (libnvidia-ml), through ctypes: no package is needed."""

from __future__ import annotations

import ctypes
import time

LIBRARY = "libnvidia-ml.so.1"
UUID_BYTES = 96


class EnergyCounter:
    """Joules that a GPU has used since its driver was loaded. Raises OSError where there is no such counter.

    `uuid` names the GPU as torch does (`torch.cuda.get_device_properties(0).uuid`), since NVML numbers all GPUs of the
    machine and a process may see only some of them.
    """

    def __init__(self, uuid: str, library: str = LIBRARY) -> None:
        self._nvml = ctypes.CDLL(library)
        self._check(self._nvml.nvmlInit_v2(), "nvmlInit")
        self._device = ctypes.c_void_p()
        name = (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}").encode()
        if len(name) >= UUID_BYTES:
            raise OSError(f"{uuid!r} is not the UUID of a GPU: expected at most {UUID_BYTES - 1} characters")
        self._check(self._nvml.nvmlDeviceGetHandleByUUID(name, ctypes.byref(self._device)), "nvmlDeviceGetHandleByUUID")
        self.joules()

    def joules(self) -> float:
        """Return the counter."""
        value = ctypes.c_ulonglong()
        function = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        self._check(function(self._device, ctypes.byref(value)), "nvmlDeviceGetTotalEnergyConsumption")
        return value.value / 1000

    def watts(self) -> float:
        """Return the power that NVML reports now."""
        value = ctypes.c_uint()
        self._check(self._nvml.nvmlDeviceGetPowerUsage(self._device, ctypes.byref(value)), "nvmlDeviceGetPowerUsage")
        return value.value / 1000

    def settle(self, seconds: float = 0.3) -> float:
        """Wait for the counter's next step, at most `seconds`; return the joules: it is updated every 20 to 100 ms."""
        before, until = self.joules(), time.monotonic() + seconds
        while time.monotonic() < until:
            if (now := self.joules()) != before:
                return now
        return before

    def _check(self, code: int, function: str) -> None:
        if code:
            raise OSError(f"{function} of {LIBRARY} failed with code {code}: this GPU or driver has no energy counter")
