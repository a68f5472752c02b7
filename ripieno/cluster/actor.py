"""What a slot of a Ray cluster is made of."""

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
    """What runs in a slot: the function, and jobs handed to it one by one."""

    def __init__(self, paths: Sequence[str], function: Sequence[Any], log: str) -> None:
        import ray

        sleep_while_waiting()
        if log:
            write_to(log)
        faulthandler.enable(2)
        sys.path += [path for path in paths if path not in sys.path]
        self._function: Function = ray.get(function[0])

    def ready(self) -> bool:
        """Answered when the slot is up."""
        return True

    def run(self, job: Job, now: float) -> JobResult:
        """Run `job`; what it raises is its failure. `now` is the time of the pool's clock."""
        clock.follow(now - time.monotonic())
        return run_job(self._function, job)


@dataclass(eq=False)
class RaySlot:
    """A slot as the pool sees it."""

    number: int
    node: str
    actor: Any
    log: str
    state: Literal["starting", "idle", "busy", "gone"] = "starting"
    job: Job | None = None
    since: float = 0.0


def start(ray: Any, node: str, needs: Mapping[str, float], function: Any, log: str) -> Any:
    """An actor on `node` that takes of it what it `needs`; `function` is a reference to what it runs."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {
        "num_cpus": needs["CPU"],
        "num_gpus": needs["GPU"],
        "memory": needs["memory"] or None,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    return ray.remote(Actor).options(**options).remote(sys.path, [function], log)


def exit_reason(why: BaseException) -> str:
    """What an actor died of, in one line: what it raised as it started, else how its process ended."""
    lines = [line.strip() for line in str(why).strip().splitlines()] or [type(why).__name__]
    if getattr(why, "actor_init_failed", False):  # a traceback, which ends in the error
        return lines[-1]
    return next((line for line in lines if "exit" in line.lower()), lines[0])
