"""The ensemble inference engine: batching, prediction and combination over lanes.

Names are looked up on first use: a lane's process imports from this package and must stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer as Answer
    from ripieno.engine.answer import Stats as Stats
    from ripieno.engine.cascade import judge_cascade as judge_cascade
    from ripieno.engine.cascade import plan_cascade as plan_cascade
    from ripieno.engine.engine import Engine as Engine
    from ripieno.engine.stopwatch import AllocationBench as AllocationBench
    from ripieno.engine.stopwatch import BenchResult as BenchResult
    from ripieno.engine.stopwatch import bench as bench
    from ripieno.engine.watch import Patience as Patience
    from ripieno.turns import Cascade as Cascade

_HOMES = {
    "AllocationBench": "stopwatch",
    "Answer": "answer",
    "BenchResult": "stopwatch",
    "Cascade": "cascade",
    "Engine": "engine",
    "Patience": "watch",
    "Stats": "answer",
    "bench": "stopwatch",
    "judge_cascade": "cascade",
    "plan_cascade": "cascade",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ripieno.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ripieno.engine' has no attribute {name!r}")
