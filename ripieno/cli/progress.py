"""Progress of a search: a live view on a terminal, a line per event without one, and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from ripieno.cli import console, progress_view
from ripieno.search.callbacks import Watcher, logger
from ripieno.search.progress import Snapshot
from ripieno.types import Failure, Job, JobResult

ENDINGS = {"": "stopped", "trials": "all trials are done", "deadline": "the time is up"}


class ProgressCallback:
    """Callback for `tune(..., watch=...)` that shows snapshots and keeps the last."""

    def __init__(self, view: progress_view.SearchView | None, configs: progress_view.ConfigSummary) -> None:
        self.last: Snapshot | None = None
        self.failures: list[Failure] = []
        """failures since this process started the search"""
        self._view = view
        self._configs = configs

    def __call__(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self.last = snapshot
        self.failures += [outcome.failure for outcome in snapshot.finished if outcome.failure is not None]
        for job in snapshot.started:
            self._configs.see(job.configuration)
        ended = [end_of(outcome) for outcome in snapshot.finished]
        if self._view is not None:  # it shows started jobs itself
            self._view.update(snapshot, ended)
            return
        for event in (*ended, *(start_of(job, self._configs) for job in snapshot.started)):
            console.log.print(Text(f"{progress_of(snapshot)}  ").append(event), soft_wrap=True)


@contextmanager
def progress_callback() -> Iterator[ProgressCallback]:
    """Yield a callback that shows a search on standard error while the block runs."""
    configs = progress_view.ConfigSummary()
    if not console.is_interactive():
        yield ProgressCallback(None, configs)
        return
    view = progress_view.SearchView(configs)
    with Live(view, console=console.log, refresh_per_second=4, transient=True):
        yield ProgressCallback(view, configs)


def logging_callbacks(names: Sequence[str], run: Path) -> tuple[list[Watcher], list[str]]:
    """Return the callbacks of `--log` and the commands that show their logs."""
    loggers = [logger(name, run) for name in dict.fromkeys(names)]
    return [watcher for watcher, _ in loggers], [command for _, command in loggers]


def progress_of(snapshot: Snapshot) -> str:
    """Return `4:10  37 %  trial 12 of 30  15 members`."""
    share = progress_view.fraction_done(snapshot)
    most = f" of {snapshot.most_trials}" if snapshot.most_trials else ""
    percent = "" if share is None else f"{100 * share:3.0f} %  "
    elapsed = progress_view.format_duration(snapshot.seconds)
    return f"{elapsed:>7}  {percent}trial {snapshot.trials}{most}  {snapshot.members} members"


def start_of(job: Job, configs: progress_view.ConfigSummary) -> Text:
    """Return one line for a trial that started or was promoted."""
    line = Text.assemble((f"{'promoted' if job.start else 'started':8}", "cyan"))
    return line.append(f"  trial {job.trial}, epochs {job.start} to {job.stop}  {configs.describe(job.configuration)}")


def end_of(outcome: JobResult) -> Text:
    """Return one line for a job that ended with a member or failed."""
    job, failure, member = outcome.job, outcome.failure, outcome.member
    seconds = progress_view.format_duration(outcome.finished - outcome.started)
    if failure is not None:
        log = f" (see {failure.log})" if failure.log else ""
        text = f"  trial {job.trial}, epochs {job.start} to {job.stop}  {failure.reason}: {failure.message}{log}"
        return Text.assemble((f"{'failed':8}", "bold red"), text)
    assert member is not None
    value = progress_view.loss(member.losses["valid_cross_entropy"])
    return Text.assemble((f"{'ended':8}", "green"), f"  {member.id}  cross-entropy {value}  {seconds}")


def summary(watch: ProgressCallback, run: Path) -> Table:
    """Return the result of a search as a table."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    last = watch.last
    if last is None:
        return grid
    grid.add_row("search", f"{ENDINGS[last.ended]} after {progress_view.format_duration(last.seconds)}")
    grid.add_row(
        "best",
        f"{last.best or '-'}, cross-entropy {progress_view.loss(last.best_loss)}; "
        f"mean of the best ten {progress_view.loss(last.top_loss)}",
    )
    grid.add_row("library", f"{last.members} members of {last.trials} trials")
    grid.add_row("slots", f"{last.slots}, {100 * last.occupancy:.0f} % of their time spent training")
    if last.failures:
        last_error = f", last error: {watch.failures[-1].message}" if watch.failures else ""
        grid.add_row(Text("failed", style="bold red"), Text(f"{last.failures} jobs{last_error}; logs in {run}/logs"))
    return grid


def to_dict(watch: ProgressCallback) -> dict[str, object]:
    """Return the result of a search for `--json`."""
    if (last := watch.last) is None:
        return {}
    names = ("ended", "seconds", "trials", "jobs", "members", "failures", "best", "best_loss", "top_loss", "occupancy")
    return {**{name: getattr(last, name) for name in names}, "slots": last.slots}
