"""Progress of a search: a live view on a terminal, a line per event without one, and a summary at the end.

The view draws the last snapshot and advances its clock, so that the seconds of running jobs are right between
snapshots. It fits the terminal: rows that do not fit are counted by rung, cells that do not fit are cut.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ripieno.cli import console
from ripieno.clock import now as unix_now
from ripieno.search.callbacks import Watcher, logger
from ripieno.search.progress import TOP, RunningJob, Snapshot, describe_top
from ripieno.tasks.display import loss_title
from ripieno.types import Configuration, Failure, Job, JobResult, Value

ENDINGS = {"": "stopped", "trials": "all trials are done", "deadline": "the time is up"}
EVENTS = 4
"""Number of last events shown."""
GAP = 3
"""Blanks between figures."""
AROUND = 4
"""Lines other than figures, running trials and events: two bars (data, search), the table's header, the cursor."""

BRIEF = {
    "backbone": "",
    "resolution": "px",
    "learning_rate": "lr",
    "batch_size": "batch",
    "weight_decay": "decay",
    "optimizer": "",
    "activation": "",
    "convolution": "conv",
    "stem_filters": "stem",
    "label_smoothing": "smooth",
    "max_zoom": "zoom",
    "max_translation": "shift",
    "max_shear": "shear",
    "max_rotation": "turn",
    "max_channel_shift": "channels",
    "min_crop": "crop",
}
"""Short names of hyperparameters, the most informative first; empty if the value needs no name."""


class ProgressCallback:
    """Callback for `tune(..., watch=...)` that shows snapshots and keeps the last."""

    def __init__(self, view: SearchView | None, configs: ConfigSummary) -> None:
        self.last: Snapshot | None = None
        self.failures: list[Failure] = []
        """failures since this process started the search"""
        self.loss_title = "loss"
        """title of the loss by which members are ranked, once there is one"""
        self._view = view
        self._configs = configs

    def __call__(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""
        self.last = snapshot
        self.failures += [outcome.failure for outcome in snapshot.finished if outcome.failure is not None]
        for outcome in snapshot.finished:
            if outcome.member is not None:
                self.loss_title = loss_title(outcome.member.task)
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
    configs = ConfigSummary()
    if not console.is_interactive():
        yield ProgressCallback(None, configs)
        return
    view = SearchView(configs)
    with Live(view, console=console.log, refresh_per_second=4, transient=True):
        yield ProgressCallback(view, configs)


def logging_callbacks(names: Sequence[str], run: Path) -> tuple[list[Watcher], list[str]]:
    """Return the callbacks of `--log` and the commands that show their logs."""
    loggers = [logger(name, run) for name in dict.fromkeys(names)]
    return [watcher for watcher, _ in loggers], [command for _, command in loggers]


def progress_of(snapshot: Snapshot) -> str:
    """Return `4:10  37 %  trial 12 of 30  15 members`."""
    share = fraction_done(snapshot)
    percent = "" if share is None else f"{100 * share:3.0f} %  "
    return f"{format_duration(snapshot.seconds):>7}  {percent}{_trials(snapshot)}  {snapshot.members} members"


def _trials(snapshot: Snapshot) -> str:
    return f"trial {snapshot.trials}" + (f" of {snapshot.most_trials}" if snapshot.most_trials else "")


def start_of(job: Job, configs: ConfigSummary) -> Text:
    """Return one line for a trial that started or was promoted."""
    line = Text.assemble((f"{'promoted' if job.start else 'started':8}", "cyan"))
    return line.append(
        f"  trial {job.trial}, {job.unit} {job.start} to {job.stop}  {configs.describe(job.configuration)}"
    )


def end_of(outcome: JobResult) -> Text:
    """Return one line for a job that ended with a member or failed."""
    job, failure, member = outcome.job, outcome.failure, outcome.member
    seconds = format_duration(outcome.finished - outcome.started)
    if failure is not None:
        log = f" (see {failure.log})" if failure.log else ""
        text = f"  trial {job.trial}, {job.unit} {job.start} to {job.stop}  {failure.reason}: {failure.message}{log}"
        return Text.assemble((f"{'failed':8}", "bold red"), text)
    assert member is not None
    value = f"{loss_title(member.task)} {_loss(member.loss)}"
    return Text.assemble((f"{'ended':8}", "green"), f"  {member.id}  {value}  {seconds}")


def summary(watch: ProgressCallback, run: Path) -> Table:
    """Return the result of a search as a table."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    last = watch.last
    if last is None:
        return grid
    grid.add_row("search", f"{ENDINGS[last.ended]} after {format_duration(last.seconds)}")
    grid.add_row(
        "best",
        f"{last.best or '-'}, {watch.loss_title} {_loss(last.best_loss)}; "
        f"mean of {describe_top(last.top_trials)} {_loss(last.top_loss)}",
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
    names = "ended", "seconds", "trials", "jobs", "members", "failures", "best", "best_loss", "top_loss", "top_trials"
    return {**{name: getattr(last, name) for name in names}, "occupancy": last.occupancy, "slots": last.slots}


class ConfigSummary:
    """Short descriptions of configurations: the values that differ between those seen."""

    def __init__(self) -> None:
        self._seen: dict[str, set[Value]] = {}

    def see(self, configuration: Configuration) -> None:
        """Record the values of a configuration."""
        for name, value in configuration.items():
            values = self._seen.setdefault(name, set())
            if len(values) < 2:  # two values are enough to differ
                values.add(value)

    def describe(self, configuration: Configuration) -> str:
        """Return a description such as `lr 0.0031 batch 64 adam`."""
        first = len(self._seen) and all(len(values) < 2 for values in self._seen.values())
        names = [name for name in (*BRIEF, *configuration) if name in configuration]
        varying = [name for name in dict.fromkeys(names) if first or len(self._seen.get(name, ())) > 1]
        return " ".join(f"{BRIEF.get(name, name)} {_short(configuration[name])}".strip() for name in varying)


def _short(value: Value) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _loss(value: float | None) -> str:
    return console.number(value, ".4f")


def format_duration(seconds: float) -> str:
    """Return a duration as `4.2 s`, `3:07` or `1:02:45`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class SearchView:
    """View of a search for `rich.live.Live`; `now` returns Unix seconds."""

    def __init__(self, configs: ConfigSummary, now: Callable[[], float] = unix_now) -> None:
        self._configs = configs
        self._now = now
        self._snapshot: Snapshot | None = None
        self._events: deque[Text] = deque(maxlen=EVENTS)

    def update(self, snapshot: Snapshot, events: Sequence[Text]) -> None:
        """Set the snapshot and add the events since the last one."""
        self._snapshot = snapshot
        self._events.extend(events)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._snapshot is None:
            yield Text("the search is starting", style="dim")
            return
        snapshot, later = self._snapshot, max(0.0, self._now() - self._snapshot.now)
        figures = _figures(snapshot, options.max_width)
        room = console.size.height - AROUND - figures.row_count
        events = max(0, min(EVENTS, room - 2))
        yield Group(
            _bar(snapshot, later, options.max_width),
            figures,
            self._running(snapshot, later, max(1, room - events)),
            *list(self._events)[len(self._events) - min(events, len(self._events)) :],
        )

    def _running(self, snapshot: Snapshot, later: float, rows: int) -> Table:
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 2, 0, 0))
        unit = next((entry.job.unit for entry in snapshot.running), "epochs")
        for name in ("trial", unit, "runs", "loss"):
            table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
        table.add_column("configuration", ratio=1, no_wrap=True, overflow="ellipsis")
        running = snapshot.running
        shown = running if len(running) <= rows else running[: rows - 1]
        for entry in shown:
            job = entry.job
            table.add_row(
                Text(str(job.trial), style="cyan"),
                f"{job.start} → {job.stop}",
                format_duration(snapshot.now + later - entry.since),
                _loss(entry.loss),
                Text(self._configs.describe(job.configuration), style="dim"),
            )
        if hidden := running[len(shown) :]:
            table.add_row("…", "", "", "", Text(_count_by_rung(hidden), style="dim"))
        return table


def _count_by_rung(hidden: Sequence[RunningJob]) -> str:
    rungs = sorted(Counter(entry.job.stop for entry in hidden).items())
    unit = hidden[0].job.unit.removesuffix("s")
    return f"{len(hidden)} more: " + ", ".join(f"{count} to {unit} {stop}" for stop, count in rungs)


def fraction_done(snapshot: Snapshot, later: float = 0.0) -> float | None:
    """Return the share done, by time or by trials, whichever ends first; None if the search has no bound."""
    shares = []
    if snapshot.left is not None:
        spent = snapshot.seconds + later
        shares.append(spent / max(1e-9, snapshot.seconds + snapshot.left))
    if snapshot.most_trials:
        ended = snapshot.trials - len({r.job.trial for r in snapshot.running if r.job.start == 0})
        shares.append(ended / snapshot.most_trials)
    return min(1.0, max(shares)) if shares else None


def _bar(snapshot: Snapshot, later: float, width: int) -> Table:
    share = fraction_done(snapshot, later)
    times = format_duration(snapshot.seconds + later)
    if snapshot.left is not None:
        times += f", {format_duration(max(0.0, snapshot.left - later))} left"
    grid = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=1.0, completed=share or 0.0, pulse=share is None, width=max(10, min(60, width - 44)))
    grid.add_row(Text(_trials(snapshot), style="bold"), bar, times)
    return grid


def _figures(snapshot: Snapshot, width: int) -> Table:
    """Return the figures of the search in the fewest rows that `width` allows."""
    busy = f"{len(snapshot.running)} of {snapshot.slots} ({100 * snapshot.occupancy:.0f} %)"
    figures = (
        ("members", str(snapshot.members), ""),
        ("best", _loss(snapshot.best_loss) + (f" {snapshot.best}" if snapshot.best else ""), "bold green"),
        (f"best {snapshot.top_trials or TOP} trials", _loss(snapshot.top_loss), ""),
        ("slots busy", busy, ""),
        ("queue", str(snapshot.queued), ""),
        ("failed", str(snapshot.failures), "bold red" if snapshot.failures else ""),
    )
    cells = [Text.assemble((f"{name} ", "dim"), (value, style)) for name, value, style in figures]
    columns = next((n for n in (6, 3, 2) if _width(cells, n) <= width), 1)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(columns):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    for first in range(0, len(cells), columns):
        grid.add_row(*cells[first : first + columns])
    return grid


def _width(cells: Sequence[Text], columns: int) -> int:
    return sum(GAP + max(cell.cell_len for cell in cells[n::columns]) for n in range(columns)) - GAP
