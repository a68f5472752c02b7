"""Tables that fit their console without cutting cells, and escaping of text that could control a terminal."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = "  "
"""Separator and indent of the cells of a row that is printed as lines."""
BREAK = re.compile(r" |(?<=\w{3}[-/])(?=\w{3})")
"""Positions at which a header may be broken."""


def visible(text: str) -> str:
    """Return `text` with unprintable characters (escape sequences, invalid UTF-8) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class PlainConsole(Console):
    """Console that prints strings verbatim: no markup, no emoji, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return `text` ready to print."""
        return super().render_str(visible(text), **settings)


class FittingTable(Table):
    """Table without cut or wrapped cells: a narrow console breaks headers, a narrower one prints each row as lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the widest form that fits."""
        for form in (self, self._narrow()):
            if form._natural(console, options) <= options.max_width:
                yield from Table.__rich_console__(form, console, options)
                return
        yield from self._rows_as_lines(console, options)

    def _natural(self, console: Console, options: ConsoleOptions) -> int:
        return self.__rich_measure__(console, options.update_width(10**6)).maximum

    def _narrow(self) -> FittingTable:
        narrow = copy.copy(self)
        narrow.columns = [copy.copy(column) for column in self.columns]
        for column in narrow.columns:
            widest = max(
                (cell_len(cell.plain if isinstance(cell, Text) else str(cell)) for cell in column.cells), default=0
            )
            column.header = _broken(str(column.header), widest)
        narrow.padding = (0, 1, 0, 0)
        return narrow

    def _rows_as_lines(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """Yield each row: its first cell on one line, the other cells with their headers below."""
        if self.title:
            yield Text(visible(str(self.title)), style="bold", overflow="fold")
        names = [str(column.header) for column in self.columns[1:]]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            head, *cells = (cell if isinstance(cell, Text) else console.render_str(str(cell)) for cell in row)
            if head.plain:
                yield Text.assemble(head, overflow="fold")
            labelled = [
                Text.assemble((f"{name} ", "dim"), cell) if name else cell
                for name, cell in zip(names, cells, strict=True)
                if cell.plain
            ]
            for line in _pack(labelled, options.max_width - len(GAP)):
                yield Padding(line, (0, 0, 0, len(GAP)), expand=False)


def _broken(header: str, width: int) -> str:
    """Return `header` broken into lines of at most `width`, or of its longest part where that is wider."""
    parts = BREAK.split(header)
    gaps = ["", *(" " if match.group() else "" for match in BREAK.finditer(header))]
    width = max(width, *map(cell_len, parts))
    lines = [""]
    for gap, part in zip(gaps, parts, strict=True):
        if cell_len(lines[-1] + gap + part) <= width:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return "\n".join(lines)


def _pack(cells: list[Text], width: int) -> Iterator[Text]:
    """Yield lines of `cells` filled up to `width`; a longer cell is wrapped when it is printed."""
    line = Text(overflow="fold")
    for cell in cells:
        if line.plain and cell_len(line.plain) + len(GAP) + cell_len(cell.plain) > width:
            yield line
            line = Text(overflow="fold")
        line = Text.assemble(line, GAP if line.plain else "", cell, overflow="fold")
    if line.plain:
        yield line
