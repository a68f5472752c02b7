"""Settings of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ripieno.config import Count, CountOrZero, Seconds, SecondsOrZero, check_fields
from ripieno.errors import EngineError

Isolation = Literal["auto", "thread", "process"]


@dataclass(frozen=True)
class RestartPolicy:
    """Limits after which workers are killed and restarted."""

    ping: Seconds = 10.0
    """longest unanswered ping of a worker process, seconds"""
    stall: Seconds = 60.0
    """longest duration of a task, seconds; 20 times its expected duration if more"""
    loading: Seconds = 300.0
    """longest time in which a worker loads its members, seconds"""
    check: Seconds = 1.0
    """time between two checks of the workers, seconds"""
    deaths: Count = 3
    """deaths on the same samples, or before a start, after which requests fail"""
    back_off: SecondsOrZero = 0.1
    """seconds before the second restart in a row; doubles while the worker fails"""
    longest_back_off: SecondsOrZero = 5.0
    """longest wait before a restart, seconds"""

    def __post_init__(self) -> None:
        check_fields(self, EngineError)


@dataclass(frozen=True)
class EngineConfig:
    """Settings of an engine."""

    isolation: Isolation = "auto"
    """run workers in threads or processes: auto, thread or process"""
    capacity: Count | None = None
    """samples in the ring buffer; by default from the batch sizes"""
    max_delay: SecondsOrZero = 0.0
    """seconds that a batch waits to fill; 0: workers take the waiting samples"""
    min_members: CountOrZero | None = None
    """members that suffice for an answer when others keep dying; by default all"""
    patience: RestartPolicy = RestartPolicy()
    """when workers are killed and restarted"""

    def __post_init__(self) -> None:
        check_fields(self, EngineError)
