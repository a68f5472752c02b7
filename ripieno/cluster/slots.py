"""Slots of this machine: the environment variables of each worker process. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ripieno.errors import SearchError
from ripieno.resources import thread_variables, usable_cores

SlotEnv = Mapping[str, str]
"""Environment variables of one worker."""


def cpu_slots(count: int | None = None, threads: int | None = None) -> tuple[SlotEnv, ...]:
    """Return `count` slots of `threads` threads each.

    Default: one slot per core that this process may use, and the cores divided between the slots, so that there are
    never more threads than cores. Raises SearchError when `count` or `threads` is below one.
    """
    cores = len(usable_cores())
    count = cores if count is None else count
    if count < 1 or (threads is not None and threads < 1):
        raise SearchError(f"{count} slots of {threads} threads: both must be at least 1")
    return (thread_variables(threads or max(1, cores // count)),) * count


def gpu_slots(devices: Sequence[int | str], per_device: int = 1, threads: int | None = None) -> tuple[SlotEnv, ...]:
    """Return `per_device` slots on each of `devices`; each slot sees its own device as `cuda:0`.

    Devices are UUIDs, or numbers among the devices visible to this process, which its own `CUDA_VISIBLE_DEVICES` may
    limit. The first slots are on different devices. Raises SearchError without a device or with `per_device` below one.
    """
    if not devices or per_device < 1:
        raise SearchError(f"{per_device} slots on each of {len(devices)} devices: there must be at least 1 of both")
    share = threads or max(1, len(usable_cores()) // (len(devices) * per_device))
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    # the worker's variable replaces this process's: a number among the visible devices becomes that device's name
    names = [visible[int(d)] if d.isdecimal() and int(d) < len(visible) else d for d in map(str, devices)]
    return tuple({**thread_variables(share), "CUDA_VISIBLE_DEVICES": name} for _ in range(per_device) for name in names)
