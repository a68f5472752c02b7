"""What pools with threads of their own share: outcomes on their way to the owner, and jobs that do not end."""

from __future__ import annotations

import queue
from dataclasses import replace

from ripieno.durations import LONGEST
from ripieno.errors import SearchError
from ripieno.types import Failure, Job, JobResult


class Results:
    """Outcomes put by any thread, taken by the pool's owner; `wait` is that of `Pool`."""

    def __init__(self) -> None:
        self._outcomes: queue.SimpleQueue[JobResult | None] = queue.SimpleQueue()
        self._outstanding = 0
        self._ended = ""

    def expect(self) -> None:
        """One more job was submitted."""
        self._outstanding += 1

    def put(self, outcome: JobResult) -> None:
        """A job ended."""
        self._outcomes.put(outcome)

    def end(self, why: str) -> None:
        """Nothing more comes, though jobs be outstanding: whoever waits for them is told `why`."""
        self._ended = why
        self._outcomes.put(None)

    def wait(self, timeout: float | None) -> list[JobResult]:
        """Outcomes since the last call; see `Pool.wait`. Raises SearchError where nothing more comes."""
        outcomes: list[JobResult] = []
        try:
            while len(outcomes) < self._outstanding:
                outcome = self._outcomes.get_nowait() if outcomes else self._outcomes.get(timeout=timeout)
                if outcome is None:
                    self._outcomes.put(None)  # for the next call
                    if not outcomes:
                        raise SearchError(self._ended)
                    break
                outcomes.append(outcome)
        except queue.Empty:
            pass
        self._outstanding -= len(outcomes)
        return outcomes

    def forget(self) -> None:
        """Nothing is outstanding any more."""
        self._outstanding = 0


def out_of_memory(outcome: JobResult) -> bool:
    """Whether a job failed for want of memory: others may have taken it, so the job is run again."""
    return outcome.failure is not None and outcome.failure.reason == "memory"


def must_restart_worker(outcome: JobResult) -> bool:
    """Whether the process must run no other job: it may hold the memory that is missing, or have lost its GPU.

    After most CUDA errors every later call fails in that process, whoever makes it. A plain mistake of the user's does
    no such harm, and need not cost a new process a trial.
    """
    why = outcome.failure
    if why is None:
        return False
    return why.reason == "memory" or any(word in why.message + why.detail for word in ("CUDA", "CUDNN", "HIP error"))


def with_slot(outcome: JobResult, slot: int, log: str) -> JobResult:
    """`outcome` as that of a `slot`, whose `log` tells more of a failure that has none of its own."""
    why = outcome.failure
    return replace(outcome, slot=slot, failure=why and replace(why, log=why.log or log))


def seconds_of(job: Job, limit: float | None) -> float | None:
    """How long `job` may take at `limit` seconds an epoch."""
    return None if limit is None else min(limit * (job.stop - job.start), LONGEST)


def timeout_failure(job: Job, limit: float, log: str = "") -> Failure:
    """The failure of a job that took longer."""
    epochs = job.stop - job.start
    message = f"did not end within {limit * epochs:g} s, {limit:g} for each of {epochs} epochs: it was ended as hung"
    return Failure("crash", message, log=log)
