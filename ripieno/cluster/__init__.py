"""Pools of workers that run jobs and survive worker crashes.

Names are imported on first use: a starting worker imports this package before its number of threads is set, and NumPy,
which the pools import, reads that number as it loads.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripieno.cluster.inline_pool import InlinePool as InlinePool
    from ripieno.cluster.local_pool import LocalPool as LocalPool
    from ripieno.cluster.pool import Pool as Pool
    from ripieno.cluster.ray_pool import RayPool as RayPool
    from ripieno.cluster.simulated_pool import SimulatedPool as SimulatedPool
    from ripieno.cluster.slots import cpu_slots as cpu_slots
    from ripieno.cluster.slots import gpu_slots as gpu_slots

_MODULES = {
    "InlinePool": "inline_pool",
    "LocalPool": "local_pool",
    "Pool": "pool",
    "RayPool": "ray_pool",
    "SimulatedPool": "simulated_pool",
    "cpu_slots": "slots",
    "gpu_slots": "slots",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"ripieno.cluster.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'ripieno.cluster' has no attribute {name!r}")
