"""The ensemble inference engine: batching, prediction and combination over workers.

Names are imported on first use, because worker processes import from this package and must stay small.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ripieno.deprecation import warn_renamed

if TYPE_CHECKING:
    from ripieno.engine.benchmark import AllocationBenchmark as AllocationBenchmark
    from ripieno.engine.benchmark import BenchResult as BenchResult
    from ripieno.engine.benchmark import bench as bench
    from ripieno.engine.cascade import judge_cascade as judge_cascade
    from ripieno.engine.cascade import plan_cascade as plan_cascade
    from ripieno.engine.config import EngineConfig as EngineConfig
    from ripieno.engine.config import RestartPolicy as RestartPolicy
    from ripieno.engine.engine import Engine as Engine
    from ripieno.engine.inference_result import Answer as Answer
    from ripieno.engine.inference_result import Stats as Stats
    from ripieno.types import Cascade as Cascade

_HOMES = {
    "AllocationBenchmark": "benchmark",
    "Answer": "inference_result",
    "BenchResult": "benchmark",
    "Cascade": "cascade",
    "Engine": "engine",
    "EngineConfig": "config",
    "RestartPolicy": "config",
    "Stats": "inference_result",
    "bench": "benchmark",
    "judge_cascade": "cascade",
    "plan_cascade": "cascade",
}

_RENAMED = {"AllocationBench": "AllocationBenchmark", "Patience": "RestartPolicy"}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warn_renamed(f"ripieno.engine.{name}", name := _RENAMED[name])
    if name in _HOMES:
        return getattr(importlib.import_module(f"ripieno.engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ripieno.engine' has no attribute {name!r}")
