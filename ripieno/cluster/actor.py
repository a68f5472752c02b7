"""Ray actor that runs jobs, and the pool's record of it."""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ripieno import clock
from ripieno.cluster.bootstrap import write_to
from ripieno.cluster.pool import Function
from ripieno.cluster.worker import run_job
from ripieno.resources import sleep_while_waiting
from ripieno.types import Job, JobResult


class Actor:
    """Ray actor of one slot: holds the function and runs jobs one by one."""

    def __init__(self, paths: Sequence[str], function: Sequence[Any], log: str) -> None:
        import ray

        sleep_while_waiting()
        if log:
            write_to(log)
        faulthandler.enable(2)
        sys.path += [path for path in paths if path not in sys.path]
        self._function: Function = ray.get(function[0])

    def ready(self) -> bool:
        """Return True; the reply shows that the slot has started."""
        return True

    def run(self, job: Job, now: float) -> JobResult:
        """Run `job`; an exception becomes its failure. `now` is the time of the pool's clock."""
        clock.follow(now - time.monotonic())
        return run_job(self._function, job)


@dataclass(eq=False)
class RaySlot:
    """The pool's record of a slot."""

    number: int
    node: str
    actor: Any
    log: str
    state: Literal["starting", "idle", "busy", "gone"] = "starting"
    job: Job | None = None
    since: float = 0.0


def start(ray: Any, node: str, needs: Mapping[str, float], function: Any, log: str) -> Any:
    """Start an actor on `node` with the resources `needs`; `function` is an object reference to the job function."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {
        "num_cpus": needs["CPU"],
        "num_gpus": needs["GPU"],
        "memory": needs["memory"] or None,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(Actor).options(**options).remote(sys.path, [function], log)


def exit_reason(error: BaseException) -> str:
    """Return in one line why an actor died: the error it raised as it started, otherwise how its process ended."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    if getattr(error, "actor_init_failed", False):  # a traceback, which ends in the error
        return lines[-1]
    return next((line for line in lines if "exit" in line.lower()), lines[0])
