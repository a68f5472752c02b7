"""A search seen: a picture on a terminal, a line an event without one, and a word at its end."""

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
    """A callback for `tune(..., watch=...)` that remembers the end."""

    def __init__(self, picture: progress_view.SearchView | None, brief: progress_view.ConfigSummary) -> None:
        self.last: Snapshot | None = None
        self.failures: list[Failure] = []
        """of this start"""
        self._picture = picture
        self._brief = brief

    def __call__(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self.last = snapshot
        self.failures += [outcome.failure for outcome in snapshot.finished if outcome.failure is not None]
        for job in snapshot.started:
            self._brief.see(job.configuration)
        ended = [end_of(outcome) for outcome in snapshot.finished]
        if self._picture is not None:  # which shows what has started
            self._picture.update(snapshot, ended)
            return
        for event in (*ended, *(start_of(job, self._brief) for job in snapshot.started)):
            console.log.print(Text(f"{progress_of(snapshot)}  ").append(event), soft_wrap=True)


@contextmanager
def progress_callback() -> Iterator[ProgressCallback]:
    """A watcher that shows a search on standard error while the block runs."""
    brief = progress_view.ConfigSummary()
    if not console.is_interactive():
        yield ProgressCallback(None, brief)
        return
    picture = progress_view.SearchView(brief)
    with Live(picture, console=console.log, refresh_per_second=4, transient=True):
        yield ProgressCallback(picture, brief)


def logging_callbacks(names: Sequence[str], run: Path) -> tuple[list[Watcher], list[str]]:
    """The watchers that `--log` names, and the commands that show what they wrote."""
    found = [logger(name, run) for name in dict.fromkeys(names)]
    return [watcher for watcher, _ in found], [command for _, command in found]


def progress_of(snapshot: Snapshot) -> str:
    """`4:10  37 %  trial 12 of 30  15 members`."""
    share = progress_view.fraction_done(snapshot)
    most = f" of {snapshot.most_trials}" if snapshot.most_trials else ""
    far = "" if share is None else f"{100 * share:3.0f} %  "
    elapsed = progress_view.format_duration(snapshot.seconds)
    return f"{elapsed:>7}  {far}trial {snapshot.trials}{most}  {snapshot.members} members"


def start_of(job: Job, brief: progress_view.ConfigSummary) -> Text:
    """One line: a trial started or was promoted."""
    word = Text.assemble((f"{'promoted' if job.start else 'started':8}", "cyan"))
    return word.append(f"  trial {job.trial}, epochs {job.start} to {job.stop}  {brief.words(job.configuration)}")


def end_of(outcome: JobResult) -> Text:
    """One line: a job ended in a member, or failed."""
    job, failure, member = outcome.job, outcome.failure, outcome.member
    seconds = progress_view.format_duration(outcome.finished - outcome.started)
    if failure is not None:
        see = f" (see {failure.log})" if failure.log else ""
        text = f"  trial {job.trial}, epochs {job.start} to {job.stop}  {failure.reason}: {failure.message}{see}"
        return Text.assemble((f"{'failed':8}", "bold red"), text)
    assert member is not None
    value = progress_view.loss(member.losses["valid_cross_entropy"])
    return Text.assemble((f"{'ended':8}", "green"), f"  {member.id}  cross-entropy {value}  {seconds}")


def summary(watch: ProgressCallback, run: Path) -> Table:
    """What a search came to."""
    made = Table.grid(padding=(0, 3, 0, 0))
    last = watch.last
    if last is None:
        return made
    made.add_row("search", f"{ENDINGS[last.ended]} after {progress_view.format_duration(last.seconds)}")
    made.add_row(
        "best",
        f"{last.best or '-'}, cross-entropy {progress_view.loss(last.best_loss)}; "
        f"of the best ten {progress_view.loss(last.top_loss)}",
    )
    made.add_row("library", f"{last.members} members of {last.trials} trials")
    made.add_row("slots", f"{last.slots}, {100 * last.occupancy:.0f} % of their time spent training")
    if last.failures:
        why = f": the last by {watch.failures[-1].message}" if watch.failures else ""
        made.add_row(Text("failed", style="bold red"), Text(f"{last.failures} jobs{why}; logs in {run}/logs"))
    return made


def to_dict(watch: ProgressCallback) -> dict[str, object]:
    """The same for scripts."""
    if (last := watch.last) is None:
        return {}
    names = ("ended", "seconds", "trials", "jobs", "members", "failures", "best", "best_loss", "top_loss", "occupancy")
    return {**{name: getattr(last, name) for name in names}, "slots": last.slots}
