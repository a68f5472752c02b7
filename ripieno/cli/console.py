"""Output of the command line: results on standard output, progress and errors on standard error.

With `--json` standard output is one JSON object and all text goes to standard error. With `--quiet` only results and
errors are printed. Without a terminal, lines replace bars and no line is cut.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from ripieno.cli.layout import FittingTable, PlainConsole, visible
from ripieno.errors import BrokenFileWarning

WIDTH = 1000
"""Columns without a terminal: a row stays on one line in a file or a pipe."""

out = PlainConsole(width=None if sys.stdout.isatty() else WIDTH)
log = PlainConsole(width=None if sys.stderr.isatty() else WIDTH, stderr=True)

TEXT_COLUMNS = frozenset(
    {"member", "device", "devices", "kind", "class", "dominated by", "version", "extra", "value", "meaning"}
)
"""Columns of text, aligned left; the first column of a table is one too."""

LINE_EVERY = 5.0
"""Seconds between lines of progress without a terminal."""


@dataclass
class _OutputMode:
    json: bool = False
    quiet: bool = False


output_mode = _OutputMode()
"""The output mode of this process."""


def set_output_mode(json: bool, quiet: bool) -> None:
    """Set the output mode."""
    output_mode.json, output_mode.quiet = json, quiet
    log.quiet, out.quiet = quiet, quiet and json
    out.file = sys.stderr if json else sys.stdout  # with --json, standard output holds only the object


def is_interactive() -> bool:
    """Return whether standard error is a terminal that can redraw."""
    return log.is_terminal and not log.is_dumb_terminal and not log.quiet


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (stage, done, total): a bar on a terminal, a line every `LINE_EVERY` seconds without one."""
    if not is_interactive():
        yield _line_printer()
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=log) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            # one bar per stage: the text before the colon is its name, the text after it its state
            name = stage.partition(":")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(stage, total=total)
            bars.update(tasks[name], description=stage, completed=done, total=total)

        yield show


def _line_printer() -> Callable[[str, int, int], None]:
    last: dict[str, float] = {}

    def show(stage: str, done: int, total: int) -> None:
        name, now = stage.partition(":")[0], time.monotonic()
        if done >= total or now - last.get(name, 0.0) >= LINE_EVERY:
            last[name] = now
            log.print(f"{stage} {done}/{total}")

    return show


def table(title: str, *columns: str) -> Table:
    """Return an empty table; columns are aligned right, the first and those of `TEXT_COLUMNS` left."""
    empty = FittingTable(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for number, column in enumerate(columns):
        empty.add_column(column, justify="right" if number and column not in TEXT_COLUMNS else "left", no_wrap=True)
    return empty


def print_result(
    wrote: str | Path | Sequence[str | Path], next_command: str, detail: str = "", **result: object
) -> None:
    """Print the last lines of a command: the paths it wrote and the next command; with `--json` the `result` too."""
    paths = [str(path) for path in ([wrote] if isinstance(wrote, str | Path) else wrote) if str(path)]
    if output_mode.json:
        print_json({**result, "wrote": paths, "next": next_command})
    elif not output_mode.quiet:
        if paths:
            say("wrote ", (", ".join(paths), "bold"), f" ({detail})" if detail else "")
        say("next  ", (next_command, "bold cyan"))


def say(*parts: str | tuple[str, str]) -> None:
    """Print a result on one line; a part is a text, or a text with a style."""
    out.print(_styled(*parts), soft_wrap=True)


def _styled(*parts: str | tuple[str, str]) -> Text:
    texts = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((visible(text), style) for text, style in texts))


@contextmanager
def announcing() -> Iterator[None]:
    """Ignore write errors of the block: a closed pipe or a full disk must not end a server."""
    try:
        yield
    except (OSError, SystemExit):  # rich raises SystemExit for a closed pipe
        with open(os.devnull, "w") as null:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except OSError:  # it would fail again when the process exits
                    os.dup2(null.fileno(), stream.fileno())


def status(text: str) -> Status:
    """Return a status line that a terminal shows while the block runs."""
    return log.status(_styled(text))


def print_json(fields: dict[str, object]) -> None:
    """Print the object of `--json`."""
    from ripieno.files import to_json

    sys.stdout.write(to_json(fields).decode())
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print a note: the command continues."""
    log.print(f"note: {text}", soft_wrap=True)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print warnings about broken files of a run as notes, each once; others stay Python's."""
    printed: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", BrokenFileWarning)
        warnings.filterwarnings("ignore", module="PIL")  # about images that it reads nevertheless
        show_other = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if not issubclass(category, BrokenFileWarning):
                show_other(message, category, *rest, **named)
            elif str(message) not in printed:
                printed.add(str(message))
                warn(str(message))

        warnings.showwarning = show
        yield


def print_error(message: str, code: int) -> int:
    """Print an error on one line, even with `--quiet`; return the exit code."""
    log.quiet = False
    log.print(_styled(("error:", "bold red"), f" {message}"), soft_wrap=True)
    if output_mode.json:
        with suppress(OSError):  # standard output may be what failed
            print_json({"error": message, "code": code})
    return code


def print_interrupted(resume: str, code: int) -> int:
    """Print the command `resume` that continues after Ctrl-C; return the exit code."""
    log.quiet = False
    text = _styled(("stopped.", "yellow"), " Finished work is kept. Resume with: ", (resume, "bold cyan"))
    log.print(text, soft_wrap=True)
    if output_mode.json:
        print_json({"error": "stopped", "code": code, "next": resume})
    return code


def number(value: float | None, form: str = ".4g") -> str:
    """Return `value` formatted, a dash for None."""
    return "-" if value is None else format(value, form)


def percent(value: float | None) -> str:
    """Return a share as percent with two decimals, a dash for None."""
    return "-" if value is None else f"{100 * value:.2f} %"
