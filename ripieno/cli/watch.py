"""A search as it runs: a live view on a terminal, a line per event without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ripieno.cli.console import log
from ripieno.search.progress import Snapshot
from ripieno.types import Outcome

RUNNING_SHOWN = 12
"""How many running jobs a terminal shows."""


@contextmanager
def watching() -> Iterator[Callable[[Snapshot], None]]:
    """A callback for `tune(..., watch=...)`."""
    if not log.is_terminal:
        yield _say
        return
    with Live(console=log, refresh_per_second=4, transient=True) as live:
        yield lambda snapshot: live.update(_view(snapshot))


def _say(snapshot: Snapshot) -> None:
    for outcome in snapshot.finished:
        log.print(f"{_progress(snapshot)}  {_ended(outcome)}")


def _ended(outcome: Outcome) -> str:
    job = outcome.job
    if outcome.failure is not None:
        return (
            f"trial {job.trial} epochs {job.start} to {job.stop}: {outcome.failure.reason}: {outcome.failure.message}"
        )
    assert outcome.member is not None
    loss = outcome.member.losses["valid_cross_entropy"]
    return f"{outcome.member.id}  cross-entropy {loss:.4f}  {outcome.finished - outcome.started:.1f} s"


def _progress(snapshot: Snapshot) -> str:
    most = f"/{snapshot.most_trials}" if snapshot.most_trials else ""
    return f"trial {snapshot.trials}{most}, {snapshot.members} members"


def _view(snapshot: Snapshot) -> Group:
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        _fact("trials", f"{snapshot.trials}" + (f" of {snapshot.most_trials}" if snapshot.most_trials else "")),
        _fact("members", str(snapshot.members)),
        _fact("failed", str(snapshot.failures)),
        _fact("best", "-" if snapshot.best_loss is None else f"{snapshot.best_loss:.4f}  {snapshot.best}"),
        _fact("best ten", "-" if snapshot.top_loss is None else f"{snapshot.top_loss:.4f}"),
        _fact("slots busy", f"{100 * snapshot.occupancy:.0f} %"),
        _fact("left", "-" if snapshot.left is None else f"{snapshot.left / 60:.1f} min"),
    )
    running = Table.grid(padding=(0, 3))
    for job in snapshot.running[:RUNNING_SHOWN]:
        running.add_row(Text(f"trial {job.trial}", style="cyan"), f"epochs {job.start} to {job.stop}")
    shown: list[Table | ProgressBar] = [facts, running]
    if snapshot.most_trials:
        shown.insert(1, ProgressBar(total=snapshot.most_trials, completed=snapshot.trials, width=60))
    return Group(*shown)


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), value)
