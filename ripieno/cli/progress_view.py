"""Live view of a search: running jobs, progress, best losses and last events.

The view draws the last snapshot and advances its clock, so that the seconds of running jobs are right between
snapshots. It fits the terminal: rows that do not fit are counted by rung, cells that do not fit are cut.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ripieno.clock import now as unix_now
from ripieno.search.progress import RunningJob, Snapshot
from ripieno.types import Configuration, Value

EVENTS = 4
"""Number of last events shown."""
GAP = 3
"""Blanks between figures."""
AROUND = 4
"""Lines other than figures, running trials and events: two bars (data, search), the table's header, the cursor."""

BRIEF = {
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
    "max_channel_shift": "colour",
}
"""Short names of hyperparameters, the most informative first; empty if the value needs no name."""


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


def format_duration(seconds: float) -> str:
    """Return a duration as `4.2 s`, `3:07` or `1:02:45`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def loss(value: float | None) -> str:
    """Return a loss with four decimals, a dash for None."""
    return "-" if value is None else f"{value:.4f}"


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
        for name in ("trial", "epochs", "runs", "loss"):
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
                loss(entry.loss),
                Text(self._configs.describe(job.configuration), style="dim"),
            )
        if hidden := running[len(shown) :]:
            table.add_row("…", "", "", "", Text(_count_by_rung(hidden), style="dim"))
        return table


def _count_by_rung(hidden: Sequence[RunningJob]) -> str:
    """Return the number of jobs without a row, by rung."""
    rungs = sorted(Counter(entry.job.stop for entry in hidden).items())
    return f"{len(hidden)} more: " + ", ".join(f"{count} to epoch {stop}" for stop, count in rungs)


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
    """Return the line `trial 12 of 30 ━━━━━──── 4:10, 55:50 left`."""
    share = fraction_done(snapshot, later)
    most = f" of {snapshot.most_trials}" if snapshot.most_trials else ""
    times = format_duration(snapshot.seconds + later)
    if snapshot.left is not None:
        times += f", {format_duration(max(0.0, snapshot.left - later))} left"
    grid = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=1.0, completed=share or 0.0, pulse=share is None, width=max(10, min(60, width - 44)))
    grid.add_row(Text(f"trial {snapshot.trials}{most}", style="bold"), bar, times)
    return grid


def _figures(snapshot: Snapshot, width: int) -> Table:
    """Return the figures of the search in the fewest rows that `width` allows."""
    busy = f"{len(snapshot.running)} of {snapshot.slots} ({100 * snapshot.occupancy:.0f} %)"
    figures = (
        ("members", str(snapshot.members), ""),
        ("best", loss(snapshot.best_loss) + (f" {snapshot.best}" if snapshot.best else ""), "bold green"),
        ("best ten", loss(snapshot.top_loss), ""),
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
