"""Driver of a search: replay the journal, then submit jobs, wait, and report results in a loop.

Theory of operation. The state (scheduler, order, results) is a fold over the journal's events. `_replay` applies the
events of earlier starts: before each job it submits, it reports to the scheduler as many results as had been reported
at that point. The state is therefore the same at whatever moment the earlier driver died. Jobs without a result run
again before anything new (a worker that finished after its driver died left its member: that is the result). Then the
loop: while there is room, submit the scheduler's most urgent job; otherwise report the result that is due; otherwise
wait. An event is on disk before anything that depends on it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, isfinite

from ripieno.cluster.pool import Pool
from ripieno.deprecation import warn_renamed
from ripieno.errors import SearchError
from ripieno.library import Library
from ripieno.search.algorithms import find_algorithm, make_scheduler
from ripieno.search.constraints import Constraint, KnownCosts, penalised, read_value
from ripieno.search.duration_model import DurationPredictor
from ripieno.search.encoding import Encoding
from ripieno.search.failure_policy import FailurePolicy
from ripieno.search.forecast import expected_epochs
from ripieno.search.job_queue import JobQueue
from ripieno.search.journal import JobFinished, JobSubmitted, Journal
from ripieno.search.objectives import KEPT, LOSS, find_objectives, missing_values
from ripieno.search.predictions import PredictionChecks
from ripieno.search.progress import (
    Ending,
    FrontSource,
    RunningJob,
    SearchStats,
    SkippedStep,
    Snapshot,
    Summary,
)
from ripieno.search.result_order import ArrivalOrder, ResultOrder, make_order
from ripieno.search.scheduler import TrialStep
from ripieno.search.settings import Settings
from ripieno.search.space import distributions
from ripieno.tasks.metrics import metric_key
from ripieno.types import Configuration, Failure, Job, JobResult

Weight = Callable[[Configuration], float]
"""Cost of an epoch of a configuration, in any unit; deterministic."""
HOLD_SECONDS = 0.02
"""Longest time that issued jobs are held back to be journalled and submitted together."""
OVERTIME = 5.0
"""Seconds after the deadline in which running jobs keep what they trained; then their processes are ended."""
TICK_SECONDS = 1.0
"""Interval at which the watcher is called when no job ends."""


class Driver:
    """One start of a search on a run; the caller holds the run's lock."""

    def __init__(
        self,
        library: Library,
        settings: Settings,
        pool: Pool,
        journal: Journal,
        weight: Weight | None,
        deadline: float | None,
        watch: Callable[[Snapshot], None] | None,
        clock: Callable[[], float],
        fronts: FrontSource | None = None,
        constraints: Sequence[Constraint] = (),
        costs: KnownCosts | None = None,
        overtime: float = inf,
    ) -> None:
        self._overtime = overtime
        self._library, self._settings, self._pool, self._journal = library, settings, pool, journal
        self._deadline, self._clock = deadline, clock
        self._constraints = constraints  # those that are measured
        self._weight = weight or (lambda _: 1.0)
        self._costs = costs or (lambda _: {})
        self._objectives = find_objectives(settings.objective)
        self._watch = watch or (lambda _: None)
        self._fronts = fronts
        self._kept_front = fronts.latest() if fronts else None  # the last one in the journal
        is_favoured = journal.is_of_portfolio if journal.has_portfolio else None
        self._scheduler = make_scheduler(
            find_algorithm(settings.algorithm), settings.epochs, settings.trials, is_favoured
        )
        for old, new in (("options", "candidates"), ("issue", "start")):
            if not hasattr(self._scheduler, new):  # a user's own scheduler, written for the former names
                warn_renamed(f"Scheduler.{old}", new)
                setattr(self._scheduler, new, getattr(self._scheduler, old))
        self._order: ResultOrder = make_order(settings.order or "arrival", settings.window or pool.slots)
        self._weights: dict[int, float] = {}  # cost of an epoch, by trial
        self._jobs: dict[TrialStep, Job] = {}  # issued, without a result
        self._cut: set[TrialStep] = set()  # jobs of `_jobs` that the deadline stopped
        self._queue = JobQueue()  # the other jobs of `_jobs`
        self._running: dict[TrialStep, RunningJob] = {}  # jobs of `_queue` that the watcher knows as running
        self._results: dict[TrialStep, JobFinished] = {}  # not reported to the scheduler yet
        self._last: dict[int, JobFinished] = {}  # last reported result, by trial
        self._stats = SearchStats(self._objectives)
        self._checks = PredictionChecks(journal.predictions)
        self._measured: dict[int, dict[str, float]] = {}  # costs that are measured after the first rung, by trial
        encoding = Encoding(distributions(settings.space))
        self._durations = DurationPredictor(
            lambda trial: encoding.features(encoding.rows([self._journal.configuration(trial)]))[0]
        )
        self._ranks: dict[int, tuple[int, int]] = {}  # of the last promotion of a trial
        self._left_out: dict[tuple[int | None, int, int], SkippedStep] = {}
        self._skipped: list[SkippedStep] = []  # those of `_left_out` that the watcher does not know yet
        self._expected_epochs: int | None = None
        if settings.trials is not None and hasattr(type(self._scheduler), "candidates"):
            algorithm = find_algorithm(settings.algorithm)
            make = partial(make_scheduler, algorithm, settings.epochs)
            self._expected_epochs = expected_epochs(make, settings.trials)
        self._failures = FailurePolicy(settings.trials)
        self._new: list[Job] = []  # issued, not submitted yet
        self._held = 0.0  # monotonic time since which `_new` is held back
        self._slow = False  # True if the sampler is slow
        self._started = self._last_snapshot = clock()
        self._capacity = 0.0  # seconds of all slots since the start

    def run(self) -> Summary:
        """Run the search to its end and return the last snapshot."""
        try:
            self._replay()
            self._resubmit_pending()
            self._queue.started = list(self._queue.running)  # report only the jobs that run again
            while True:
                self._decide()
                if not self._queue:
                    break
                self._prefetch_configuration()
                if self._deadline is not None:
                    self._durations.learn()
                if self._queue.started:
                    self._watch(self._snapshot(()))
                outcomes = self._pool.wait(TICK_SECONDS)
                for outcome in outcomes:
                    self._on_outcome(outcome)
                self._watch(self._snapshot(tuple(outcome for outcome in outcomes if not _ran_out_of_time(outcome))))
                if self._is_over():
                    self._stop_jobs()
                    break
            if self._fronts is not None:
                self._fronts.finish()
                self._keep_fronts()
            self._end_trials()
            last = self._snapshot((), "deadline" if self._cut or any(self._scheduler.candidates()) else "trials")
            self._watch(last)
            return last
        finally:
            self._journal.sync()

    def _is_over(self) -> bool:
        """Return True when the running jobs have to be ended: after the deadline, once there is a member."""
        late = self._deadline is not None and self._clock() > self._deadline + self._overtime
        return late and bool(self._queue) and bool(self._library.ids())

    def _stop_jobs(self) -> None:
        """End the running jobs; a later start of the search continues them from their last finished epochs."""
        self._pool.close(cancel=True)
        self._cut |= self._jobs.keys()
        self._running.clear()
        self._queue = JobQueue()

    def _cut_short(self, step: TrialStep) -> None:
        """Take a job that the deadline stopped from those that run; the journal keeps it as one without a result."""
        self._cut.add(step)
        self._running.pop(step, None)
        self._queue.remove(step, self._pool.slots, self._clock())

    def _replay(self) -> None:
        """Apply the events of earlier starts."""
        open_jobs: dict[tuple[int, int], TrialStep] = {}
        for event in self._journal.events():
            if isinstance(event, JobSubmitted):
                while self._order.told < event.told:
                    self._tell(self._order.due())
                step = TrialStep(event.trial, event.start, event.stop)
                open_jobs[event.trial, event.stop] = step
                self._apply(step, event.cost)
            else:
                self._record_result(open_jobs.pop((event.trial, event.stop)), event)

    def _resubmit_pending(self) -> None:
        """Submit the issued jobs that have no result; record a result where the job's member exists."""
        for job in list(self._jobs.values()):
            if (member := self._library.find_job_member(job)) is None:
                continue
            found = JobResult(job, member)
            # what is measured is not in the library: the job, which finds its member, measures it again
            if not self._constraints and not missing_values(self._objectives, self._values(found)):
                self._on_outcome(found)
        self._new = list(self._jobs.values())
        self._submit()

    def _decide(self) -> None:
        """Issue jobs and report results until the next step is to wait; submit the issued jobs."""
        if isinstance(self._order, ArrivalOrder):  # the number of slots may change
            self._order.window = self._pool.slots + len(self._cut)  # a job that was cut short has no slot any more
        self._held = time.monotonic()
        while True:
            while self._order.room and (step := self._choose()) is not None:
                cost, told = self._cost(step), self._order.told
                rank = self._rank(step)
                self._journal.append(JobSubmitted(step.trial, step.start, step.stop, cost, told, *rank))
                self._new.append(self._apply(step, cost))
                if time.monotonic() - self._held > HOLD_SECONDS:  # the sampler is slow: do not let workers wait for it
                    self._submit()
            if (due := self._order.due()) is None:
                return self._submit()
            self._prefetch_configuration()
            self._tell(due)

    def _prefetch_configuration(self) -> None:
        """Choose the next trial's configuration while workers train, so that they never wait for a slow sampler.

        This happens before the next result is reported, whether it has arrived or not: the configuration depends on
        the results reported when the previous trial was issued. Only the arrival order needs it, as it decides when a
        slot is free; the virtual order has jobs in the queue.
        """
        if not isinstance(self._order, ArrivalOrder):
            return
        new = next((step for step in self._scheduler.candidates() if step.start == 0), None)
        if new is not None and new.trial not in self._weights:
            if self._slow:
                self._submit()
            started = time.monotonic()
            self._cost(new)
            self._slow = time.monotonic() - started > HOLD_SECONDS

    def _submit(self) -> None:
        """Submit the issued jobs to the pool, once the journal is on disk."""
        self._journal.sync()
        for job in self._new:
            self._pool.submit(job)
        self._new = []
        self._held = time.monotonic()

    def _choose(self) -> TrialStep | None:
        if self._deadline is None:
            return next(self._scheduler.candidates(), None)
        now, slots = self._clock(), self._pool.slots
        if now >= self._deadline:
            return None
        left = self._deadline - self._queue.free(self._seconds, slots, now)
        for step in self._scheduler.candidates():
            seconds = self._seconds(step)
            if seconds <= left:
                return step
            if (key := (step.trial if step.start else None, step.start, step.stop)) not in self._left_out:
                self._left_out[key] = SkippedStep(*key, seconds, max(0.0, left))
                self._skipped.append(self._left_out[key])
        return None

    def _rank(self, step: TrialStep) -> tuple[int, int]:
        """Return the rank of a promoted trial and the number of results there; zeros where it is not known."""
        rank: tuple[int, int] | None = self._scheduler.rank(step) if hasattr(self._scheduler, "rank") else None
        if rank is None:
            return 0, 0
        self._ranks[step.trial] = rank
        return rank

    def _seconds(self, step: TrialStep) -> float:
        """Predict the duration of a job, in seconds."""
        return self._durations.seconds(step, self._cost(step))

    def _cost(self, step: TrialStep) -> float:
        """Return the virtual duration of a job."""
        if step.trial not in self._weights:
            self._weights[step.trial] = self._weight(self._journal.configuration(step.trial))
        return (step.stop - step.start) * self._weights[step.trial]

    def _apply(self, step: TrialStep, cost: float) -> Job:
        self._scheduler.start(step)
        self._order.issued(step, cost)
        self._queue.add(step, self._pool.slots, self._clock())
        self._jobs[step] = self._job(step)
        return self._jobs[step]

    def _job(self, step: TrialStep) -> Job:
        configuration = self._journal.configuration(step.trial)
        return Job(step.trial, configuration, step.start, step.stop, unit=self._settings.unit)

    def _tell(self, step: TrialStep | None) -> None:
        assert step is not None, "the journal issues a job before the result it depends on"
        result = self._results.pop(step)
        self._last[step.trial] = result
        # samplers must not see measured times where the order is virtual: the configurations would depend on them
        seconds = result.seconds if isinstance(self._order, ArrivalOrder) else self._cost(step) / 1000
        last = step.stop == self._settings.epochs
        priorities = self._journal.tell(step.trial, step.stop, result.loss, last, seconds, result.values)
        priorities = {t: penalised(priority, self._journal.violation(t)) for t, priority in priorities.items()}
        if len(self._objectives) > 1 and hasattr(self._scheduler, "set_priorities"):
            self._scheduler.set_priorities(step.stop, priorities)
        self._scheduler.tell(step, priorities.get(step.trial))

    def _on_outcome(self, outcome: JobResult) -> None:
        """Journal the result of a job."""
        job, member, failure = outcome.job, outcome.member, outcome.failure
        if member is not None and self._fronts is not None:
            self._fronts.add(member)
        step = TrialStep(job.trial, job.start, job.stop)
        seconds = outcome.finished - outcome.started
        self._stats.busy += seconds
        if _ran_out_of_time(outcome):
            self._cut_short(step)
            return
        if member is not None and seconds > 0:
            self._stats.timed_epochs += member.epoch - job.start
        if member is not None and member.epoch < job.stop:  # the deadline cut it short: a later start continues it
            part = TrialStep(job.trial, job.start, member.epoch)
            self._durations.add(part, self._cost(part), _duration(outcome))  # its slot takes what fits the time left
            self._cut_short(step)
            return
        loss = self._loss(outcome)
        if loss is None and failure is None:
            failure = Failure("diverged", f"{self._settings.metric} of {job.member} is not a finite number")
        self._failures.check_disk(failure)
        values = self._values(outcome)
        if loss is not None and (missing := missing_values(self._objectives, values)):
            known = ", ".join((LOSS, *values))
            loss, failure = None, Failure("error", f"{', '.join(missing)} of {job.member} is not known, but {known}")
        event = JobFinished(job.trial, job.stop, loss, _duration(outcome), failure, values)
        number = self._journal.append(event)
        self._record_result(step, event)
        if why := self._failures.early(failure, number):
            self._journal.truncate(self._failures.since)  # the failed jobs run again once the cause is fixed
            raise SearchError(why)

    def _values(self, outcome: JobResult) -> dict[str, float]:
        """Return the numbers of a result by name: those that came with it, and those that are objectives."""
        member, found = outcome.member, dict(outcome.values)
        names = [o.name for o in self._objectives if o.name != LOSS and o.name not in found]
        if names and member is not None:
            step = TrialStep(member.trial, 0, member.epoch)
            # in the virtual order no decision may depend on the clock: the estimate of the search takes its place
            timed = isinstance(self._order, ArrivalOrder)
            known = {"train_seconds": member.seconds if timed else self._cost(step) / 1000}
            known |= {"parameters": float(member.parameters)} | dict(self._costs(member.configuration))
            known |= dict(member.costs)
            known |= self._measured.get(member.trial, {})
            for name in names:
                value = known.get(name, member.losses.get(f"valid_{metric_key(name)}"))
                found |= {} if value is None else {name: value}
        if member is not None:
            others = {c.name: read_value(c.name, member) for c in self._constraints if c.name not in found}
            found |= {name: value for name, value in others.items() if value is not None}
        # a number that is not finite was not measured, and JSON has none
        return {name: float(value) for name, value in found.items() if isfinite(value)}

    def _loss(self, outcome: JobResult) -> float | None:
        if outcome.member is None:
            return None
        metric = self._settings.metric
        if metric not in outcome.member.losses:
            known = ", ".join(outcome.member.losses)
            raise SearchError(f"members have no loss {metric!r} to rank by; use one of: {known}")
        loss = outcome.member.losses[metric]
        return loss if abs(loss) < float("inf") else None

    def _record_result(self, step: TrialStep, result: JobFinished) -> None:
        job = self._jobs.pop(step)
        self._results[step] = result
        self._running.pop(step, None)
        self._queue.remove(step, self._pool.slots, self._clock())
        self._order.arrived(step)
        self._stats.add(job, result.loss, result.values)
        self._checks.add(step.trial, step.stop, result.loss, result.seconds)
        measured = {name: value for name, value in result.values.items() if name in KEPT}
        self._measured.setdefault(step.trial, {}).update(measured)
        self._durations.add(step, self._cost(step), result.seconds if result.loss is not None else 0.0)

    def _end_trials(self) -> None:
        """Report the final state of the trials to Optuna; trials cut by the deadline stay running."""
        cut = {step.trial for step in self._cut}
        self._journal.end(
            {
                trial: "FAIL" if r.loss is None else "COMPLETE" if r.stop == self._settings.epochs else "PRUNED"
                for trial, r in self._last.items()
                if trial not in cut
            }
        )
        self._journal.sync()

    def _keep_fronts(self) -> None:
        """Journal the fronts since the last call."""
        for front in self._fronts.take() if self._fronts else ():
            self._journal.append_front(front, self._kept_front)
            self._kept_front = front

    def _snapshot(self, finished: tuple[JobResult, ...], ended: Ending = "") -> Snapshot:
        self._keep_fronts()
        now, slots = self._clock(), self._pool.slots
        self._capacity += slots * (now - self._last_snapshot)
        self._last_snapshot = now
        loss, best = self._stats.best
        started, self._queue.started = self._queue.started, []
        running = self._queue.running
        for step in started:
            if step in running:
                self._running[step] = RunningJob(self._jobs[step], running[step], self._stats.losses.get(step.trial))
        skipped, self._skipped = tuple(self._skipped), []
        busy = self._stats.busy + len(running) * now - sum(running.values())
        return Snapshot(
            running=tuple(self._running.values()),
            queued=len(self._queue.waiting),
            slots=slots,
            trials=self._scheduler.started - sum(step.start == 0 for step in self._queue.waiting),
            most_trials=self._settings.trials,
            jobs=self._stats.jobs,
            members=self._stats.members,
            failures=self._stats.failures,
            best=best,
            best_loss=loss,
            top_loss=self._stats.top,
            now=now,
            seconds=now - self._started,
            left=None if self._deadline is None else max(0.0, self._deadline - now),
            occupancy=min(1.0, busy / max(1e-9, self._capacity)),
            started=tuple(self._job(step) for step in started),
            finished=finished,
            ended=ended,
            top_trials=self._stats.top_trials,
            ranks={s.trial: self._ranks[s.trial] for s in started if s.start and s.trial in self._ranks},
            skipped=skipped,
            epochs=self._stats.epochs,
            expected_epochs=self._expected_epochs,
            timed_epochs=self._stats.timed_epochs,
            timed_seconds=self._stats.busy,
            lowest=self._stats.lowest,
            front=self._fronts.latest() if self._fronts else None,
            redrawn=self._journal.redrawn,
            infeasible=sum(self._journal.violation(trial) > 0 for trial in self._last) if self._constraints else None,
            trial_front=self._stats.trial_front(),
            trial_volume=self._stats.trial_volume,
            correlations=self._checks.correlations(),
        )


def _ran_out_of_time(outcome: JobResult) -> bool:
    return outcome.failure is not None and outcome.failure.reason == "time"


def _duration(outcome: JobResult) -> float:
    """Return the seconds of a job, with its epochs that an earlier worker trained before it was killed or cut short."""
    member = outcome.member
    curve = () if member is None else member.curve
    return max(outcome.finished - outcome.started, sum(e.seconds for e in curve if e.epoch > outcome.job.start))
