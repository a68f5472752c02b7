"""A search as a picture that renews itself: what runs, how far it is, how good it is, what happened last.

It draws from the last snapshot, and lets time go on from there: the seconds that jobs run for are right also while
nothing happens. It fits the terminal: rows that do not fit are counted by rung, cells that do not fit are cut.
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
"""How many of the last events are shown."""
GAP = 3
"""Blanks between facts."""
AROUND = 4
"""Lines beside facts, running trials and events: bars of the data and of the search, the table's head, the cursor's."""

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
"""Short names of hyperparameters, the most telling first; empty: the value says which it is."""


class ConfigSummary:
    """Configurations in few words: the values that differ between those seen."""

    def __init__(self) -> None:
        self._seen: dict[str, set[Value]] = {}

    def see(self, configuration: Configuration) -> None:
        """Take note of its values."""
        for name, value in configuration.items():
            values = self._seen.setdefault(name, set())
            if len(values) < 2:  # more need not be known
                values.add(value)

    def words(self, configuration: Configuration) -> str:
        """`lr 0.0031 batch 64 adam`."""
        first = len(self._seen) and all(len(values) < 2 for values in self._seen.values())
        names = [name for name in (*BRIEF, *configuration) if name in configuration]
        told = [name for name in dict.fromkeys(names) if first or len(self._seen.get(name, ())) > 1]
        return " ".join(f"{BRIEF.get(name, name)} {_short(configuration[name])}".strip() for name in told)


def _short(value: Value) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def format_duration(seconds: float) -> str:
    """`4.2 s`, `3:07`, `1:02:45`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def loss(value: float | None) -> str:
    """Four digits, or a dash."""
    return "-" if value is None else f"{value:.4f}"


class SearchView:
    """What `rich.live.Live` shows of a search; `now` tells Unix seconds."""

    def __init__(self, brief: ConfigSummary, now: Callable[[], float] = unix_now) -> None:
        self._brief = brief
        self._now = now
        self._snapshot: Snapshot | None = None
        self._events: deque[Text] = deque(maxlen=EVENTS)

    def update(self, snapshot: Snapshot, events: Sequence[Text]) -> None:
        """What is so now, and what has happened since the last time."""
        self._snapshot = snapshot
        self._events.extend(events)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._snapshot is None:
            yield Text("the search is starting", style="dim")
            return
        snapshot, later = self._snapshot, max(0.0, self._now() - self._snapshot.now)
        facts = _facts(snapshot, options.max_width)
        room = console.size.height - AROUND - facts.row_count
        events = max(0, min(EVENTS, room - 2))
        yield Group(
            _bar(snapshot, later, options.max_width),
            facts,
            self._running(snapshot, later, max(1, room - events)),
            *list(self._events)[len(self._events) - min(events, len(self._events)) :],
        )

    def _running(self, snapshot: Snapshot, later: float, rows: int) -> Table:
        made = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 2, 0, 0))
        for name in ("trial", "epochs", "runs", "loss"):
            made.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
        made.add_column("configuration", ratio=1, no_wrap=True, overflow="ellipsis")
        running = snapshot.running
        shown = running if len(running) <= rows else running[: rows - 1]
        for one in shown:
            job = one.job
            made.add_row(
                Text(str(job.trial), style="cyan"),
                f"{job.start} → {job.stop}",
                format_duration(snapshot.now + later - one.since),
                loss(one.loss),
                Text(self._brief.words(job.configuration), style="dim"),
            )
        if hidden := running[len(shown) :]:
            made.add_row("…", "", "", "", Text(_counted(hidden), style="dim"))
        return made


def _counted(hidden: Sequence[RunningJob]) -> str:
    """Jobs without a row, by rung."""
    rungs = sorted(Counter(one.job.stop for one in hidden).items())
    return f"{len(hidden)} more: " + ", ".join(f"{count} to epoch {stop}" for stop, count in rungs)


def fraction_done(snapshot: Snapshot, later: float = 0.0) -> float | None:
    """Share of the search that is behind us, by time or by trials, whichever ends it first; None: nobody knows."""
    shares = []
    if snapshot.left is not None:
        spent = snapshot.seconds + later
        shares.append(spent / max(1e-9, snapshot.seconds + snapshot.left))
    if snapshot.most_trials:
        ended = snapshot.trials - len({r.job.trial for r in snapshot.running if r.job.start == 0})
        shares.append(ended / snapshot.most_trials)
    return min(1.0, max(shares)) if shares else None


def _bar(snapshot: Snapshot, later: float, width: int) -> Table:
    """`trial 12 of 30 ━━━━━──── 4:10, 55:50 left`."""
    share = fraction_done(snapshot, later)
    most = f" of {snapshot.most_trials}" if snapshot.most_trials else ""
    times = format_duration(snapshot.seconds + later)
    if snapshot.left is not None:
        times += f", {format_duration(max(0.0, snapshot.left - later))} left"
    made = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=1.0, completed=share or 0.0, pulse=share is None, width=max(10, min(60, width - 44)))
    made.add_row(Text(f"trial {snapshot.trials}{most}", style="bold"), bar, times)
    return made


def _facts(snapshot: Snapshot, width: int) -> Table:
    """What the search has come to, in as few rows as there is room for."""
    busy = f"{len(snapshot.running)} of {snapshot.slots} ({100 * snapshot.occupancy:.0f} %)"
    facts = (
        ("members", str(snapshot.members), ""),
        ("best", loss(snapshot.best_loss) + (f" {snapshot.best}" if snapshot.best else ""), "bold green"),
        ("best ten", loss(snapshot.top_loss), ""),
        ("slots busy", busy, ""),
        ("queue", str(snapshot.queued), ""),
        ("failed", str(snapshot.failures), "bold red" if snapshot.failures else ""),
    )
    cells = [Text.assemble((f"{name} ", "dim"), (value, style)) for name, value, style in facts]
    columns = next((n for n in (6, 3, 2) if _width(cells, n) <= width), 1)
    made = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(columns):
        made.add_column(no_wrap=True, overflow="ellipsis")
    for first in range(0, len(cells), columns):
        made.add_row(*cells[first : first + columns])
    return made


def _width(cells: Sequence[Text], columns: int) -> int:
    return sum(GAP + max(cell.cell_len for cell in cells[n::columns]) for n in range(columns)) - GAP
