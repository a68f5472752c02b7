"""The driver of a search: fold the journal, then fill, wait, tell, again and again.

Theory of operation. The state (scheduler, order, results) is a fold over the journal's events. `_replay` applies those
an earlier start left: before each job it issued, the scheduler is told as many results as it had been told then, so the
state is the same whenever the earlier driver died. Jobs without a result are run again before anything new (a worker
that finished after its driver died has left its member: that is the result). Then the loop: as long as there is room,
issue the scheduler's most urgent job; else tell it the result that is due; else wait. An event is on disk before what
follows from it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ripieno import clock
from ripieno.cluster.pool import Pool
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.search.duration_model import DurationPredictor
from ripieno.search.failure_policy import FailurePolicy
from ripieno.search.job_queue import JobQueue
from ripieno.search.journal import JobFinished, JobSubmitted, Journal
from ripieno.search.progress import Ending, RunningJob, SearchStats, Snapshot, Summary
from ripieno.search.result_order import ArrivalOrder, ResultOrder, make_order
from ripieno.search.scheduler import Decision, Scheduler
from ripieno.search.settings import Settings
from ripieno.types import Configuration, Failure, Job, JobResult

Weight = Callable[[Configuration], float]
"""What an epoch of a configuration costs, in any unit; deterministic."""

HOLD_SECONDS = 0.02
"""How long jobs issued are held back to be journalled and submitted together."""
TICK_SECONDS = 1.0
"""How often the watcher is called when nothing happens."""


class Driver:
    """One start of a search on a run whose lock the caller holds."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        scheduler: Scheduler,
        pool: Pool,
        journal: Journal,
        weight: Weight,
        deadline: float | None,
        watch: Callable[[Snapshot], None],
        clock: Callable[[], float] = clock.now,
    ) -> None:
        self._library = library
        self._settings = settings
        self._pool = pool
        self._journal = journal
        self._weight = weight
        self._deadline = deadline
        self._watch = watch
        self._clock = clock
        self._scheduler = scheduler
        self._order: ResultOrder = make_order(settings.order or "arrival", settings.window or pool.slots)
        self._weights: dict[int, float] = {}  # of each trial
        self._jobs: dict[Decision, Job] = {}  # issued, without a result
        self._cut: set[Decision] = set()  # of these, stopped by the deadline
        self._queue = JobQueue()  # the others
        self._seats: dict[Decision, RunningJob] = {}  # of these, what the watcher was told runs
        self._results: dict[Decision, JobFinished] = {}  # not told yet
        self._last: dict[int, JobFinished] = {}  # the last result told of each trial
        self._tally = SearchStats()
        self._pace = DurationPredictor()
        self._trouble = FailurePolicy(settings.trials)
        self._new: list[Job] = []  # issued, not submitted yet
        self._held = 0.0  # since when, in real seconds
        self._slow = False  # whether the sampler is
        self._started = self._looked = clock()
        self._capacity = 0.0  # seconds of all slots since the start

    def run(self) -> Summary:
        """Replay, then fill, wait and tell until nothing is left."""
        try:
            return self._run()
        finally:
            self._journal.sync()

    def _run(self) -> Summary:
        self._replay()
        self._resubmit_pending()
        self._queue.started = list(self._queue.running)  # of what ran before, what runs again
        while True:
            self._decide()
            if not self._queue:
                break
            self._prefetch_configuration()
            if self._queue.started:
                self._watch(self._snapshot(()))
            outcomes = self._pool.wait(TICK_SECONDS)
            for outcome in outcomes:
                self._on_outcome(outcome)
            self._watch(self._snapshot(tuple(outcomes)))
        self._end_trials()
        last = self._snapshot((), "deadline" if self._cut or any(self._scheduler.options()) else "trials")
        self._watch(last)
        return last

    # what was

    def _replay(self) -> None:
        """Apply the events of earlier starts."""
        open_jobs: dict[tuple[int, int], Decision] = {}
        for event in self._journal.events():
            if isinstance(event, JobSubmitted):
                while self._order.told < event.told:
                    self._tell(self._order.due())
                decision = Decision(event.trial, event.start, event.stop)
                open_jobs[event.trial, event.stop] = decision
                self._apply(decision, event.cost)
            else:
                self._record_result(open_jobs.pop((event.trial, event.stop)), event)

    def _resubmit_pending(self) -> None:
        """Issued jobs without a result run first, but for those whose member is there: these have one now."""
        for job in list(self._jobs.values()):
            if (member := self._library.find_job_member(job)) is not None:
                self._on_outcome(JobResult(job, member))
        self._new = list(self._jobs.values())
        self._submit()

    # what is decided

    def _decide(self) -> None:
        """Issue and tell until the next thing to do is to wait, and submit what was issued."""
        if isinstance(self._order, ArrivalOrder):  # slots may come and go
            self._order.window = self._pool.slots
        self._held = time.monotonic()
        while True:
            while self._order.room and (decision := self._choose()) is not None:
                self._new.append(self._issue(decision))
                if time.monotonic() - self._held > HOLD_SECONDS:  # a slow sampler: let workers have what there is
                    self._submit()
            if (due := self._order.due()) is None:
                return self._submit()
            self._prefetch_configuration()
            self._tell(due)

    def _prefetch_configuration(self) -> None:
        """Choose the next trial's configuration while workers train: they must not wait for a slow sampler.

        Before the next result is told, whether that is here or not: the configuration rests on those told when the
        trial before it was issued. The virtual order needs no such thing, it has jobs in the queue; that of arrival
        decides when a slot is free.
        """
        if not isinstance(self._order, ArrivalOrder):
            return
        new = next((decision for decision in self._scheduler.options() if decision.start == 0), None)
        if new is not None and new.trial not in self._weights:
            if self._slow:
                self._submit()
            started = time.monotonic()
            self._cost(new)
            self._slow = time.monotonic() - started > HOLD_SECONDS

    def _submit(self) -> None:
        """Hand the jobs issued to the pool, once the journal that says so is on disk."""
        self._journal.sync()
        for job in self._new:
            self._pool.submit(job)
        self._new = []
        self._held = time.monotonic()

    def _choose(self) -> Decision | None:
        if self._deadline is None:
            return next(self._scheduler.options(), None)
        now, slots = self._clock(), self._pool.slots
        if now >= self._deadline:
            return None
        left = self._deadline - self._queue.free(self._seconds, slots, now)
        return next((d for d in self._scheduler.options() if self._seconds(d) <= left), None)

    def _seconds(self, decision: Decision) -> float:
        """Predicted duration of a job."""
        return self._pace.seconds(decision, self._cost(decision))

    def _cost(self, decision: Decision) -> float:
        """Virtual duration of a job."""
        if decision.trial not in self._weights:
            self._weights[decision.trial] = self._weight(self._journal.configuration(decision.trial))
        return (decision.stop - decision.start) * self._weights[decision.trial]

    def _issue(self, decision: Decision) -> Job:
        cost = self._cost(decision)
        self._journal.append(JobSubmitted(decision.trial, decision.start, decision.stop, cost, self._order.told))
        return self._apply(decision, cost)

    def _apply(self, decision: Decision, cost: float) -> Job:
        self._scheduler.issue(decision)
        self._order.issued(decision, cost)
        self._queue.add(decision, self._pool.slots, self._clock())
        self._jobs[decision] = self._job(decision)
        return self._jobs[decision]

    def _job(self, decision: Decision) -> Job:
        configuration = self._journal.configuration(decision.trial)
        return Job(decision.trial, configuration, decision.start, decision.stop)

    def _tell(self, decision: Decision | None) -> None:
        assert decision is not None, "the journal issues a job before the result it rests on"
        result = self._results.pop(decision)
        self._scheduler.tell(decision, result.loss)
        self._last[decision.trial] = result
        self._journal.tell(decision.trial, decision.stop, result.loss, decision.stop == self._settings.epochs)

    # what comes in

    def _on_outcome(self, outcome: JobResult) -> None:
        """Journal the result of a job."""
        job, member, failure = outcome.job, outcome.member, outcome.failure
        decision = Decision(job.trial, job.start, job.stop)
        self._tally.busy += outcome.finished - outcome.started
        if member is not None and member.epoch < job.stop:  # the deadline cut it short: a later start goes on with it
            self._cut.add(decision)
            self._seats.pop(decision, None)
            self._queue.remove(decision, self._pool.slots, self._clock())
            return
        loss = self._loss(outcome)
        seconds = outcome.finished - outcome.started
        if loss is None and failure is None:
            failure = Failure("diverged", f"{self._settings.metric} of {job.member} is not a finite number")
        self._trouble.check_disk(failure)
        event = JobFinished(job.trial, job.stop, loss, seconds, failure)
        number = self._journal.append(event)
        self._record_result(decision, event)
        if why := self._trouble.early(failure, number):
            self._journal.truncate(self._trouble.since)  # what failed runs anew, once the cause is mended
            raise SearchError(why)

    def _loss(self, outcome: JobResult) -> float | None:
        if outcome.member is None:
            return None
        metric = self._settings.metric
        if metric not in outcome.member.losses:
            known = ", ".join(outcome.member.losses)
            raise SearchError(f"members have no loss {metric!r} to rank by; they have: {known}")
        loss = outcome.member.losses[metric]
        return loss if abs(loss) < float("inf") else None

    def _record_result(self, decision: Decision, result: JobFinished) -> None:
        job = self._jobs.pop(decision)
        self._results[decision] = result
        self._seats.pop(decision, None)
        self._queue.remove(decision, self._pool.slots, self._clock())
        self._order.arrived(decision)
        self._tally.add(job, result.loss)
        self._pace.add(decision, self._cost(decision), result.seconds if result.loss is not None else 0.0)

    # what is said

    def _end_trials(self) -> None:
        """Tell Optuna how the trials ended; trials the deadline cut stay running."""
        cut = {decision.trial for decision in self._cut}
        self._journal.end(
            {
                trial: "FAIL" if r.loss is None else "COMPLETE" if r.stop == self._settings.epochs else "PRUNED"
                for trial, r in self._last.items()
                if trial not in cut
            }
        )
        self._journal.sync()

    def _snapshot(self, finished: tuple[JobResult, ...], ended: Ending = "") -> Snapshot:
        now, slots = self._clock(), self._pool.slots
        self._capacity += slots * (now - self._looked)
        self._looked = now
        loss, best = self._tally.best
        started, self._queue.started = self._queue.started, []
        running = self._queue.running
        for decision in started:
            if decision in running:
                self._seats[decision] = RunningJob(
                    self._jobs[decision], running[decision], self._tally.loss(decision.trial)
                )
        busy = self._tally.busy + len(running) * now - sum(running.values())
        return Snapshot(
            running=tuple(self._seats.values()),
            queued=len(self._queue.waiting),
            slots=slots,
            trials=self._scheduler.started - sum(decision.start == 0 for decision in self._queue.waiting),
            most_trials=self._settings.trials,
            jobs=self._tally.jobs,
            members=self._tally.members,
            failures=self._tally.failures,
            best=best,
            best_loss=loss,
            top_loss=self._tally.top,
            now=now,
            seconds=now - self._started,
            left=None if self._deadline is None else max(0.0, self._deadline - now),
            occupancy=min(1.0, busy / max(1e-9, self._capacity)),
            started=tuple(self._job(decision) for decision in started),
            finished=finished,
            ended=ended,
        )
