"""The report's folder of files: each plot as SVG and PNG, its numbers as CSV. The page links to them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ripieno import files
from ripieno.reports import figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CsvValue = str | float | int | bool | None


@dataclass(frozen=True)
class PlotFile:
    """A plot on the page: `name` of its files, `caption`, SVG, and links to its files."""

    name: str
    caption: str
    picture: str
    """an `<svg>` element, empty for a plot that the page draws itself"""
    links: tuple[tuple[str, str], ...]
    """(format, relative address)"""
    note: str = ""


@dataclass
class PlotWriter:
    """Writer of the folder `report/` next to `report.html`; removes the files of a former report."""

    path: Path
    written: list[str] = field(default_factory=list)

    def plot(
        self, name: str, caption: str, figure: Figure, label: str, numbers: str | None = None, note: str = ""
    ) -> PlotFile:
        """Write `name.svg` and `name.png`; `label` describes the plot in words; `numbers` is the name of a CSV file."""
        drawn = figure_style.svg(figure)
        self._write(f"{name}.svg", drawn.encode("utf-8", "replace"))
        self._write(f"{name}.png", figure_style.png(figure))
        links = [("SVG", self._address(f"{name}.svg")), ("PNG", self._address(f"{name}.png"))]
        if numbers is not None:
            links.append(("CSV", self._address(f"{numbers}.csv")))
        return PlotFile(name, caption, figure_style.on_page(drawn, name, label), tuple(links), note)

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[CsvValue]]) -> tuple[str, str]:
        """Write `name.csv`; return its link."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[escape_formula(cell) for cell in row] for row in rows])
        self._write(f"{name}.csv", text.getvalue().encode("utf-8", "replace"))
        return ("CSV", self._address(f"{name}.csv"))

    def tables(self) -> list[tuple[str, str]]:
        """Return (name, address) of the CSV files."""
        return [(name.removesuffix(".csv"), self._address(name)) for name in sorted(self.written) if ".csv" in name]

    def close(self) -> None:
        """Remove plots and tables of a former report that this one has not written."""
        for path in self.path.glob("*"):
            if path.suffix in (".svg", ".png", ".csv") and path.name not in self.written:
                path.unlink()

    def _address(self, name: str) -> str:
        return f"{self.path.name}/{name}"

    def _write(self, name: str, data: bytes) -> None:
        files.write_bytes(self.path / name, data)
        self.written.append(name)


def escape_formula(cell: CsvValue) -> CsvValue:
    """Quote a text that a spreadsheet would run as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
