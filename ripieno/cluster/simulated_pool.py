"""Pool in virtual time: any number of slots; a table or surrogate of learning curves gives each job's end.

The search on it is the real one except for its clock: it shows how an algorithm would perform on a cluster that is not
available. A job takes the seconds of its epochs. The search's own decisions take none, or the time that they really
take, during which the simulated workers train on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush

from ripieno.cluster.job_runner import failure
from ripieno.cluster.pool import Pool
from ripieno.errors import SearchError
from ripieno.types import Configuration, Input, Job, JobResult, Member, classification

Curve = Callable[[Configuration, int], tuple[float, float] | tuple[float, float, Mapping[str, float]]]
"""Function of a configuration and a number of epochs: the loss after them, their total seconds, and, where a search
reads them, other numbers of the result by name."""


class SimulatedPool(Pool):
    """Simulated pool of `slots` slots; `clock` returns the virtual time, which advances in `wait` only.

    A member's loss is called `metric`. `overhead` is the seconds per job in addition to its epochs: to load a
    checkpoint, to write one. Like a real job, one starts no epoch after its first that, in the time of the one before
    it, would end after the `deadline`. An exception in `curve` is the job's failure, which takes no time.
    `decision_clock` returns the seconds that the process has computed, such as `time.process_time`: all but those of
    `curve` pass in virtual time too. Without it decisions take no time. Raises SearchError without a slot.
    """

    def __init__(
        self,
        curve: Curve,
        slots: int = 1,
        *,
        metric: str = "valid_cross_entropy",
        overhead: float = 0.0,
        deadline: float | None = None,
        decision_clock: Callable[[], float] | None = None,
    ) -> None:
        if slots < 1:
            raise SearchError(f"{slots} simulated slots requested: there must be at least 1")
        self._slots, self._curve, self._metric = slots, curve, metric
        self._overhead, self._deadline = overhead, deadline
        self._decision_clock = decision_clock or (lambda: 0.0)
        self._counted = self._decision_clock()  # reading of the decision clock up to which `_now` counts
        self._now = 0.0
        self._queue: deque[Job] = deque()
        self._free = list(range(slots))
        heapify(self._free)
        self._running: list[tuple[float, int, JobResult]] = []  # a heap by the time they end
        self._submitted = 0

    @property
    def slots(self) -> int:
        """Number of simulated slots."""
        return self._slots

    def clock(self) -> float:
        """Return the virtual seconds since the pool was made."""
        self._count_decisions()
        return self._now

    def submit(self, job: Job) -> None:
        """Start `job` on a free slot, or queue it."""
        self._count_decisions()
        self._queue.append(job)
        self._fill()

    def wait(self, timeout: float | None = None) -> list[JobResult]:  # noqa: ARG002
        """Advance the time to the next end of a job; return all jobs that end at that moment."""
        if not self._running:
            return []
        self._count_decisions()
        self._now, ended = max(self._now, self._running[0][0]), []
        while self._running and self._running[0][0] <= self._now:
            outcome = heappop(self._running)[2]
            heappush(self._free, outcome.slot)
            ended.append(outcome)
        self._fill()
        return ended

    def close(self, cancel: bool = False) -> None:  # noqa: ARG002
        """Discard all jobs."""
        self._queue.clear()
        self._running.clear()

    def _count_decisions(self) -> None:
        """Advance the time by that of the decisions since the last call."""
        computed = self._decision_clock()
        self._now += computed - self._counted
        self._counted = computed

    def _fill(self) -> None:
        while self._queue and self._free:
            outcome = self._run(self._queue.popleft(), heappop(self._free))
            heappush(self._running, (outcome.finished, self._submitted, outcome))
            self._submitted += 1
        self._counted = self._decision_clock()  # curves are no decisions

    def _run(self, job: Job, slot: int) -> JobResult:
        try:
            before = self._curve(job.configuration, job.start)[1] if job.start else 0.0
            epoch = self._last_epoch(job, before)
            found = self._curve(job.configuration, epoch)
        except Exception as error:
            return JobResult(job, failure=failure("error", error), slot=slot, started=self._now, finished=self._now)
        loss, seconds, values = found if len(found) == 3 else (*found, {})
        name = f"{job.trial:05d}-e{epoch:03d}"
        task, losses, configuration = classification(()), {self._metric: float(loss)}, job.configuration
        member = Member(name, job.trial, epoch, "simulated", configuration, Input(()), task, losses, 0, float(seconds))
        end = self._now + self._overhead + max(0.0, float(seconds) - before)
        return JobResult(job, member, slot=slot, started=self._now, finished=end, values=dict(values))

    def _last_epoch(self, job: Job, before: float) -> int:
        """Return the last epoch of `job`: its stop, or the last one that the deadline lets start."""
        if self._deadline is None:
            return job.stop

        def seconds(epoch: int) -> float:
            return self._curve(job.configuration, epoch)[1] if epoch else 0.0

        left = self._deadline - self._now - self._overhead + before
        if seconds(job.stop) <= left:
            return job.stop
        epochs = range(max(1, job.start), job.stop)
        return next((e for e in epochs if 2 * seconds(e) - seconds(e - 1) > left), job.stop)
