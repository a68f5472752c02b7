"""The ensemble inference engine: batching, prediction and combination over lanes.

Names are looked up on first use: a lane's process imports from this package and must stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer as Answer
    from ripieno.engine.answer import Stats as Stats
    from ripieno.engine.dispatch import Patience as Patience
    from ripieno.engine.engine import Engine as Engine
    from ripieno.engine.stopwatch import AllocationBench as AllocationBench
    from ripieno.engine.stopwatch import BenchResult as BenchResult
    from ripieno.engine.stopwatch import bench as bench

_HOMES = {
    "AllocationBench": "stopwatch",
    "Answer": "answer",
    "BenchResult": "stopwatch",
    "Engine": "engine",
    "Patience": "dispatch",
    "Stats": "answer",
    "bench": "stopwatch",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ripieno.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ripieno.engine' has no attribute {name!r}")
