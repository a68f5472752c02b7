"""How the command line speaks: results on standard output, progress and errors on standard error.

With `--json` standard output is one JSON object and all that people read goes to standard error; with `--quiet` there
are results and errors only. Without a terminal there are lines instead of bars, and no line is cut.
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
"""Columns without a terminal: a row stays in one line for a reader that is a file or a pipe."""

out = PlainConsole(width=None if sys.stdout.isatty() else WIDTH)
log = PlainConsole(width=None if sys.stderr.isatty() else WIDTH, stderr=True)

WORDS = frozenset({"member", "device", "devices", "kind", "class", "for", "version", "brought by"})
"""Columns that hold words, wherever they stand in a table."""

LINE_EVERY = 5.0
"""Seconds between lines of progress without a terminal."""


@dataclass
class _OutputMode:
    json: bool = False
    quiet: bool = False


output_mode = _OutputMode()
"""How this call was asked to speak."""


def set_output_mode(json: bool, quiet: bool) -> None:
    """Speak as asked from here on."""
    output_mode.json, output_mode.quiet = json, quiet
    log.quiet, out.quiet = quiet, quiet and json
    out.file = sys.stderr if json else sys.stdout  # with --json, standard output is for the object


def is_interactive() -> bool:
    """Whether standard error is a terminal that can redraw what it shows."""
    return log.is_terminal and not log.is_dumb_terminal and not log.quiet


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total): a bar on a terminal, a line now and then without one."""
    if not is_interactive():
        yield _lines()
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=log) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            # one bar a stage: what stands before the colon names it, what follows says how it stands
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(what, total=total)
            bars.update(tasks[name], description=what, completed=done, total=total)

        yield show


def _lines() -> Callable[[str, int, int], None]:
    last: dict[str, float] = {}

    def show(what: str, done: int, total: int) -> None:
        name, now = what.partition(":")[0], time.monotonic()
        if done >= total or now - last.get(name, 0.0) >= LINE_EVERY:
            last[name] = now
            log.print(f"{what} {done}/{total}")

    return show


def table(title: str, *columns: str) -> Table:
    """A table of numbers, but for its first column and those named in `WORDS`."""
    made = FittingTable(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number and column not in WORDS else "left", no_wrap=True)
    return made


def print_result(
    wrote: str | Path | Sequence[str | Path], next_command: str, detail: str = "", **result: object
) -> None:
    """The last lines of every verb: what it wrote and the next command to type; with `--json`, the `result` as well."""
    paths = [str(path) for path in ([wrote] if isinstance(wrote, str | Path) else wrote) if str(path)]
    if output_mode.json:
        print_json({**result, "wrote": paths, "next": next_command})
    elif not output_mode.quiet:
        if paths:
            say("wrote ", (", ".join(paths), "bold"), f" ({detail})" if detail else "")
        say("next  ", (next_command, "bold cyan"))


def say(*parts: str | tuple[str, str]) -> None:
    """Print a result in one line: texts, or texts with a style."""
    out.print(_styled(*parts), soft_wrap=True)


def _styled(*parts: str | tuple[str, str]) -> Text:
    texts = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((visible(text), style) for text, style in texts))


@contextmanager
def announcing() -> Iterator[None]:
    """Go on when what the block writes cannot be written: a closed pipe or a full disk must not end a server."""
    try:
        yield
    except (OSError, SystemExit):  # rich leaves by SystemExit when a pipe is closed
        with open(os.devnull, "w") as nowhere:
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except OSError:  # it would fail again at the end of the process
                    os.dup2(nowhere.fileno(), stream.fileno())


def status(text: str) -> Status:
    """What is going on, shown on a terminal while the block runs."""
    return log.status(_styled(text))


def print_json(fields: dict[str, object]) -> None:
    """The one object of `--json`."""
    from ripieno.files import to_json

    sys.stdout.write(to_json(fields).decode())
    sys.stdout.flush()


def warn(text: str) -> None:
    """What is good to know and stops nothing."""
    log.print(f"note: {text}", soft_wrap=True)


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Tell of a run's broken files as notes, each once; other warnings as Python does."""
    told: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", BrokenFileWarning)
        warnings.filterwarnings("ignore", module="PIL")  # of pictures that it reads all the same
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if not issubclass(category, BrokenFileWarning):
                others(message, category, *rest, **named)
            elif str(message) not in told:
                told.add(str(message))
                warn(str(message))

        warnings.showwarning = show
        yield


def print_error(message: str, code: int) -> int:
    """An error in one line, to be seen however quiet it should be; gives back the exit code."""
    log.quiet = False
    log.print(_styled(("error:", "bold red"), f" {message}"), soft_wrap=True)
    if output_mode.json:
        with suppress(OSError):  # standard output may be what failed
            print_json({"error": message, "code": code})
    return code


def print_interrupted(resume: str, code: int) -> int:
    """Ctrl-C: nothing is lost, and this command goes on; gives back the exit code."""
    log.quiet = False
    text = _styled(("stopped.", "yellow"), " What is finished is kept; to go on: ", (resume, "bold cyan"))
    log.print(text, soft_wrap=True)
    if output_mode.json:
        print_json({"error": "stopped", "code": code, "next": resume})
    return code


def number(value: float | None, form: str = ".4g") -> str:
    """`value` formatted, a dash when there is none."""
    return "-" if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A share as percent with two digits."""
    return "-" if value is None else f"{100 * value:.2f} %"
