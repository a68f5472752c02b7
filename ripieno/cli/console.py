"""How the command line looks: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 200
"""Columns without a terminal: no line of a table is cut for a reader that is a file or a pipe."""

out = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
log = Console(width=None if sys.stderr.isatty() else WIDTH, stderr=True, highlight=False)

LINE_EVERY = 5.0
"""Seconds between lines of progress without a terminal."""


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total): a bar on a terminal, a line now and then without one."""
    if not log.is_terminal:
        yield _lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
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
    """A table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=True)
    return made


def closing(wrote: str, next_command: str) -> None:
    """The last lines of every verb: what it wrote and the next command to type."""
    if wrote:
        out.print(f"wrote [bold]{wrote}[/]", soft_wrap=True)
    out.print(f"next  [bold cyan]{next_command}[/]", soft_wrap=True)


def number(value: float | None, form: str = ".4g") -> str:
    """`value` formatted, a dash when there is none."""
    return "-" if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A share as percent with two digits."""
    return "-" if value is None else f"{100 * value:.2f} %"
