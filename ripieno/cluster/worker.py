"""What a slot does with one job: never raise, always answer."""

from __future__ import annotations

import traceback
from dataclasses import replace

from ripieno import clock
from ripieno.cluster.pool import Function
from ripieno.types import Failure, Job, JobResult


def noop(function: Function) -> None:
    """Nothing: who gets here has imported what `function` needs."""


def run_job(function: Function, job: Job) -> JobResult:
    """Run `job` and time it; what it raises becomes its failure, with the traceback."""
    started = clock.now()
    try:
        outcome = function(job)
    except MemoryError as error:
        outcome = JobResult(job, failure=failure("memory", error))
    except (Exception, SystemExit) as error:
        outcome = JobResult(job, failure=failure("error", error))
    return replace(outcome, started=started, finished=clock.now())


def failure(reason: str, error: BaseException) -> Failure:
    """`error` as a failure: its first line, and its traceback for those who look deeper."""
    line = (str(error).strip().splitlines() or [""])[0]
    message = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return Failure("memory" if reason == "memory" else "error", message, "".join(traceback.format_exception(error)))
