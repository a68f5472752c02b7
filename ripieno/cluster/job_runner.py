"""Execution of one job in a slot: it never raises and always returns a result."""

from __future__ import annotations

import traceback
from dataclasses import replace
from typing import Literal

from ripieno import clock
from ripieno.cluster.pool import Function
from ripieno.errors import error_summary
from ripieno.types import Failure, Job, JobResult


def noop(function: Function) -> None:
    """Do nothing; a call checks that the worker process started and could import `function`."""


def run_job(function: Function, job: Job) -> JobResult:
    """Run `job` and time it; an exception becomes its failure, with the traceback."""
    started = clock.now()
    try:
        outcome = function(job)
    except MemoryError as error:
        outcome = JobResult(job, failure=failure("memory", error))
    except (Exception, SystemExit) as error:
        outcome = JobResult(job, failure=failure("error", error))
    return replace(outcome, started=started, finished=clock.now())


def failure(reason: Literal["memory", "error"], error: BaseException) -> Failure:
    """Return `error` as a failure: its first line as the message, its traceback as the detail."""
    return Failure(reason, error_summary(error, named=True), "".join(traceback.format_exception(error)))
