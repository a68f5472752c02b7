"""Progress of a search: a live view on a terminal, a line per event without one, and a summary at the end.

The view draws the last snapshot and advances its clock, so that the seconds of running jobs are right between
snapshots. It fits the terminal: rows that do not fit are counted by rung, cells that do not fit are cut.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import inf
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ripieno.cli import console
from ripieno.cli.front_view import front_line
from ripieno.clock import now as unix_now
from ripieno.library import Library
from ripieno.library.trial_progress import TrialProgress, read_progress
from ripieno.models.cell_config import name_cell
from ripieno.reports.predictions import describe_correlation
from ripieno.search.callbacks import Watcher, logger
from ripieno.search.progress import (
    TOP,
    FrontTrial,
    RunningJob,
    SkippedStep,
    Snapshot,
    describe_top,
    predicted_best,
    seconds_left,
)
from ripieno.tasks.display import loss_title
from ripieno.types import Configuration, Failure, Job, JobResult, Value

ENDINGS = {"": "stopped", "trials": "all trials are done", "deadline": "the time is up"}
EVENTS = 4
"""Number of last events shown."""
FRONT_GROWTH = 0.05
"""Relative growth of the front's hypervolume after which a log without a terminal has a line of it."""
GAP = 3
"""Blanks between figures."""
SILENCE, LONGEST_SILENCE = 5.0, 300.0
"""Seconds without an event after which a log without a terminal says what trains; each time they double."""
LISTED = 4
"""Number of trials that such a line lists."""
READ = 64
"""Number of running trials of which the progress is read."""
AROUND = 4
"""Lines other than figures, running trials and events: two bars (data, search), the table's header, the cursor."""

BRIEF = {
    "backbone": "",
    "cell": "",
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

    def __init__(self, view: SearchView | None, configs: ConfigSummary, progress: ProgressReader | None = None) -> None:
        self.last: Snapshot | None = None
        self.failures: list[Failure] = []
        """failures since this process started the search"""
        self.loss_title = "loss"
        """title of the loss by which members are ranked, once there is one"""
        self._view = view
        self._configs = configs
        self._progress = progress or ProgressReader(None)
        self._silence = SILENCE
        self._spoken = 0.0  # seconds of the search at the last line
        self._spoken_volume: float | None = None  # hypervolume of the front at its last line

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
        events = [*ended, *(start_of(job, self._configs, snapshot.ranks.get(job.trial)) for job in snapshot.started)]
        events += map(skipped_step, snapshot.skipped)
        events += self._front_event(snapshot)
        if not events and snapshot.seconds - self._spoken >= self._silence:
            self._silence = min(2 * self._silence, LONGEST_SILENCE)
            events = [training_jobs(snapshot, self._progress(snapshot.running))]
        if events:
            self._spoken = snapshot.seconds
            known = self._progress(snapshot.running)
            left = seconds_left(snapshot, trained_epochs(snapshot.running, known))
            head = progress_of(snapshot, left)
            for event in events:
                console.log.print(Text(f"{head}  ").append(event), soft_wrap=True)

    def _front_event(self, snapshot: Snapshot) -> list[Text]:
        """Return a line for a front that is better by enough than that of the last such line."""
        front, before = snapshot.front, self._spoken_volume
        if front is None or (before is not None and front.hypervolume <= before * (1 + FRONT_GROWTH)):
            return []
        self._spoken_volume = front.hypervolume
        return [Text.assemble((f"{'front':8}", "cyan"), "  ", front_line(front))]


class ProgressReader:
    """Reader of what running trials have trained, from the files of a run, at most once a second."""

    def __init__(self, run: Path | None, now: Callable[[], float] = unix_now) -> None:
        self._library = None if run is None else Library(run)
        self._now = now
        self._read_at = -inf
        self._known: dict[int, TrialProgress] = {}
        self._jobs: tuple[Job, ...] = ()

    def __call__(self, running: Sequence[RunningJob]) -> Mapping[int, TrialProgress]:
        """Return the progress of each running trial of which it is known, of the first `READ` ones."""
        jobs, now = tuple(entry.job for entry in running[:READ]), self._now()
        if self._library is not None and (now - self._read_at >= 1 or jobs != self._jobs):
            found = {job.trial: read_progress(self._library.progress_path(job.trial), job) for job in jobs}
            self._known = {trial: progress for trial, progress in found.items() if progress is not None}
            self._read_at, self._jobs = now, jobs
        return self._known


def trained_epochs(running: Sequence[RunningJob], known: Mapping[int, TrialProgress]) -> dict[int, float]:
    """Return the epochs that running jobs have trained since their start, by trial, where that is known."""
    starts = {entry.job.trial: entry.job.start for entry in running}
    return {trial: max(0.0, p.epochs - starts[trial]) for trial, p in known.items() if trial in starts}


@contextmanager
def progress_callback(run: Path | None = None) -> Iterator[ProgressCallback]:
    """Yield a callback that shows the search of a run on standard error while the block runs."""
    configs, reader = ConfigSummary(), ProgressReader(run)
    if not console.is_interactive():
        yield ProgressCallback(None, configs, reader)
        return
    view = SearchView(configs, progress=reader)
    with Live(view, console=console.log, refresh_per_second=4, transient=True):
        yield ProgressCallback(view, configs, reader)


def logging_callbacks(names: Sequence[str], run: Path) -> tuple[list[Watcher], list[str]]:
    """Return the callbacks of `--log` and the commands that show their logs."""
    loggers = [logger(name, run) for name in dict.fromkeys(names)]
    return [watcher for watcher, _ in loggers], [command for _, command in loggers]


def progress_of(snapshot: Snapshot, left: float | None = None) -> str:
    """Return `4:10  37 %  trial 12 of 30  15 members`, with the estimate of the seconds `left` where there is one."""
    share = fraction_done(snapshot)
    percent = "" if share is None else f"{100 * share:3.0f} %  "
    line = f"{format_duration(snapshot.seconds):>7}  {percent}{_trials(snapshot)}  {snapshot.members} members"
    return line if left is None else f"{line}  {_time_left(snapshot, left)}"


def _time_left(snapshot: Snapshot, left: float) -> str:
    """Return `1:30 left`, or `about 1:30 left` where that is an estimate and not the deadline."""
    return f"{'about ' * (left != snapshot.left)}{format_duration(left)} left"


def _trials(snapshot: Snapshot) -> str:
    return f"trial {snapshot.trials}" + (f" of {snapshot.most_trials}" if snapshot.most_trials else "")


def start_of(job: Job, configs: ConfigSummary, rank: tuple[int, int] | None = None) -> Text:
    """Return one line for a trial that started or was promoted, with its `rank` among the results of its rung."""
    line = Text.assemble((f"{'promoted' if job.start else 'started':8}", "cyan"))
    line.append(f"  trial {job.trial}, {job.unit} {job.start} to {job.stop}")
    if rank is not None:
        line.append(f", rank {rank[0]} of {rank[1]} at {job.unit.removesuffix('s')} {job.start}")
    return line.append(f"  {configs.describe(job.configuration)}")


def skipped_step(step: SkippedStep) -> Text:
    """Return one line for a step that would not end before the deadline."""
    subject = "new trials" if step.trial is None else f"trial {step.trial}"
    took, left = format_duration(step.seconds), format_duration(step.left)
    text = f"  {subject}, {step.start} to {step.stop}  would take {took}, {left} are left"
    return Text.assemble((f"{'skipped':8}", "yellow"), text)


def training_jobs(snapshot: Snapshot, known: Mapping[int, TrialProgress]) -> Text:
    """Return one line for the trials that are training, with epoch and batch where they are known."""
    parts = [f"trial {e.job.trial}, {_position(e.job, known.get(e.job.trial))}" for e in snapshot.running[:LISTED]]
    if hidden := len(snapshot.running) - LISTED:
        parts += [f"{hidden} more"] * (hidden > 0)
    if (predicted := predicted_best(snapshot)) is not None:
        parts.append(f"best loss at the end: about {_loss(predicted)}")
    return Text.assemble((f"{'training':8}", "cyan"), f"  {'; '.join(parts) or 'no trial: the workers are starting'}")


def _position(job: Job, progress: TrialProgress | None) -> str:
    """Return `epoch 2 of 9, batch 12 of 40`."""
    unit = job.unit.removesuffix("s")
    if progress is None:
        return f"{job.unit} {job.start} to {job.stop}, starting"
    batches = f", batch {progress.batch} of {progress.batches}" if progress.batches else ""
    return f"{unit} {progress.epoch} of {job.stop}{batches}"


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


def summary(watch: ProgressCallback, run: Path, *, has_library: bool = True) -> Table:
    """Return the result of a search as a table."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    last = watch.last
    if last is None:
        return grid
    grid.add_row("search", f"{ENDINGS[last.ended]} after {format_duration(last.seconds)}")
    if has_library:
        grid.add_row(
            "best",
            f"{last.best or '-'}, {watch.loss_title} {_loss(last.best_loss)}; "
            f"mean of {describe_top(last.top_trials)} {_loss(last.top_loss)}",
        )
        grid.add_row("library", f"{last.members} members of {last.trials} trials")
    if last.correlations:
        grid.add_row("predicted", describe_correlation(last.correlations[-1]))
    if last.trial_front:
        grid.add_row("trials", trial_front_line(last.trial_front))
    spent = "training" if has_library else "running"
    grid.add_row("slots", f"{last.slots}, {100 * last.occupancy:.0f} % of their time spent {spent}")
    parts = [f"{last.redrawn:,} configurations drawn again"] if last.redrawn else []
    if last.infeasible is not None:
        parts.append(f"{last.infeasible} of {last.trials} trials break a measured one")
    if parts:
        grid.add_row("constraints", ", ".join(parts))
    if last.failures:
        last_error = f", last error: {watch.failures[-1].message}" if watch.failures else ""
        grid.add_row(Text("failed", style="bold red"), Text(f"{last.failures} jobs{last_error}; logs in {run}/logs"))
    return grid


def trial_front_line(front: Sequence[FrontTrial]) -> str:
    """Return `12 on the front: loss 0.31 to 0.9, flops 1.2e+05 to 3e+06`."""
    ranges = []
    for name in front[0].values:
        values = [trial.values[name] for trial in front]
        ranges.append(f"{name} {min(values):.4g} to {max(values):.4g}")
    return f"{len(front)} on the front: {', '.join(ranges)}"


def to_dict(watch: ProgressCallback) -> dict[str, object]:
    """Return the result of a search for `--json`."""
    if (last := watch.last) is None:
        return {}
    names = "ended", "seconds", "trials", "jobs", "members", "failures", "best", "best_loss", "top_loss", "top_trials"
    figures = {name: getattr(last, name) for name in names}
    figures |= {"occupancy": last.occupancy, "slots": last.slots, "front": last.front}
    figures |= {"redrawn": last.redrawn, "infeasible": last.infeasible}
    if last.correlations:
        figures["correlations"] = [asdict(step) for step in last.correlations]
    if last.trial_front:
        figures["trial_front"] = [{"member": trial.member, **trial.values} for trial in last.trial_front]
    return figures


class ConfigSummary:
    """Short descriptions of configurations: the values that differ between those seen."""

    def __init__(self) -> None:
        self._seen: dict[str, set[Value]] = {}

    def see(self, configuration: Configuration) -> None:
        """Record the values of a configuration."""
        for name, value in name_cell(configuration).items():
            values = self._seen.setdefault(name, set())
            if len(values) < 2:  # two values are enough to differ
                values.add(value)

    def describe(self, configuration: Configuration) -> str:
        """Return a description such as `lr 0.0031 batch 64 adam`."""
        configuration = name_cell(configuration)
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

    def __init__(
        self,
        configs: ConfigSummary,
        now: Callable[[], float] = unix_now,
        progress: Callable[[Sequence[RunningJob]], Mapping[int, TrialProgress]] | None = None,
    ) -> None:
        self._configs = configs
        self._progress = progress or ProgressReader(None)
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
        known = self._progress(snapshot.running)
        figures = _figures(snapshot, options.max_width)
        front = [] if snapshot.front is None else [_row("front", front_line(snapshot.front))]
        front += [_row("predicted", describe_correlation(step)) for step in snapshot.correlations[-1:]]
        room = console.size.height - AROUND - figures.row_count - len(front)
        events = max(0, min(EVENTS, room - 2))
        yield Group(
            _bar(_advanced(snapshot, later), known, options.max_width),
            figures,
            *front,
            self._running(snapshot, known, later, max(1, room - events)),
            *list(self._events)[len(self._events) - min(events, len(self._events)) :],
        )

    def _running(self, snapshot: Snapshot, known: Mapping[int, TrialProgress], later: float, rows: int) -> Table:
        table = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 2, 0, 0))
        unit = next((entry.job.unit for entry in snapshot.running), "epochs")
        for name in ("trial", unit, "batch", "runs", "loss"):
            table.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
        table.add_column("configuration", ratio=1, no_wrap=True, overflow="ellipsis")
        running = snapshot.running
        shown = running if len(running) <= rows else running[: rows - 1]
        for entry in shown:
            job = entry.job
            table.add_row(
                Text(str(job.trial), style="cyan"),
                *_columns(job, known.get(job.trial)),
                format_duration(snapshot.now + later - entry.since),
                _loss(entry.loss),
                Text(self._configs.describe(job.configuration), style="dim"),
            )
        if hidden := running[len(shown) :]:
            table.add_row("…", "", "", "", "", Text(_count_by_rung(hidden), style="dim"))
        return table


def _columns(job: Job, progress: TrialProgress | None) -> tuple[str, str]:
    """Return `2: 0 → 3`, with the current epoch where it is known, and `12/40`, the batches."""
    if progress is None:
        return f"{job.start} → {job.stop}", ""
    batches = f"{progress.batch}/{progress.batches}" if progress.batches else ""
    return f"{progress.epoch}: {job.start} → {job.stop}", batches


def _count_by_rung(hidden: Sequence[RunningJob]) -> str:
    rungs = sorted(Counter(entry.job.stop for entry in hidden).items())
    unit = hidden[0].job.unit.removesuffix("s")
    return f"{len(hidden)} more: " + ", ".join(f"{count} to {unit} {stop}" for stop, count in rungs)


def fraction_done(snapshot: Snapshot) -> float | None:
    """Return the share done, by time or by trials, whichever ends first; None if the search has no bound."""
    shares = []
    if snapshot.left is not None:
        shares.append(snapshot.seconds / max(1e-9, snapshot.seconds + snapshot.left))
    if snapshot.most_trials:
        ended = snapshot.trials - len({r.job.trial for r in snapshot.running if r.job.start == 0})
        shares.append(ended / snapshot.most_trials)
    return min(1.0, max(shares)) if shares else None


def _advanced(snapshot: Snapshot, later: float) -> Snapshot:
    """Return a snapshot with its clock advanced by `later` seconds."""
    left = None if snapshot.left is None else max(0.0, snapshot.left - later)
    return replace(snapshot, now=snapshot.now + later, seconds=snapshot.seconds + later, left=left)


def _bar(snapshot: Snapshot, known: Mapping[int, TrialProgress], width: int) -> Table:
    share = fraction_done(snapshot)
    times = format_duration(snapshot.seconds)
    if (left := seconds_left(snapshot, trained_epochs(snapshot.running, known))) is not None:
        times += f", {_time_left(snapshot, left)}"
    grid = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=1.0, completed=share or 0.0, pulse=share is None, width=max(10, min(60, width - 50)))
    grid.add_row(Text(_trials(snapshot), style="bold"), bar, times)
    return grid


def _figures(snapshot: Snapshot, width: int) -> Table:
    """Return the figures of the search in the fewest rows that `width` allows."""
    predicted = predicted_best(snapshot)
    busy = f"{len(snapshot.running)} of {snapshot.slots} ({100 * snapshot.occupancy:.0f} %)"
    volume = "" if snapshot.trial_volume is None else f", hypervolume {snapshot.trial_volume:.3f}"
    figures = (
        ("members", str(snapshot.members), ""),
        ("best", _loss(snapshot.best_loss) + (f" {snapshot.best}" if snapshot.best else ""), "bold green"),
        *([] if predicted is None else [("at the end", f"about {_loss(predicted)}", "")]),
        (f"best {snapshot.top_trials or TOP} trials", _loss(snapshot.top_loss), ""),
        ("slots busy", busy, ""),
        *([("on the front", f"{len(snapshot.trial_front)} trials{volume}", "")] if snapshot.trial_front else []),
        ("queue", str(snapshot.queued), ""),
        ("failed", str(snapshot.failures), "bold red" if snapshot.failures else ""),
    )
    cells = [Text.assemble((f"{name} ", "dim"), (value, style)) for name, value, style in figures]
    columns = next((n for n in (len(cells), 3, 2) if _width(cells, n) <= width), 1)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(columns):
        grid.add_column(no_wrap=True, overflow="ellipsis")
    for first in range(0, len(cells), columns):
        grid.add_row(*cells[first : first + columns])
    return grid


def _row(name: str, words: Text | str) -> Text:
    line = Text.assemble((f"{name} ", "dim"), words)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _width(cells: Sequence[Text], columns: int) -> int:
    return sum(GAP + max(cell.cell_len for cell in cells[n::columns]) for n in range(columns)) - GAP
