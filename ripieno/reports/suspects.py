"""Suspects of a run: samples with targets that an ensemble contradicts, as a list in CSV and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ripieno.errors import require
from ripieno.reports import figure_style
from ripieno.reports.column_quality import columns_of
from ripieno.reports.page_assets import page_asset
from ripieno.reports.plot_files import CsvValue, escape_formula
from ripieno.reports.row_values import row_values
from ripieno.reports.series_lines import HEIGHT, WIDTH, SeriesLines, series_lines
from ripieno.reports.thumbnails import thumbnails
from ripieno.types import DataKind, Dataset

LIST, PAGE = "suspects.csv", "suspects.html"
"""Names of the list and of its page in the folder of a run."""
DRAWN = 240
"""Maximum number of suspects on the page, the first of the list."""
BYTES = 3_000_000
"""Maximum bytes of the pictures on the page."""
COLUMNS = ("file", "row", "split", "given", "suggested")
"""Columns of a list before that of `Suspects.measure`; `ripieno.data.leave_out` reads the first two and `given`."""


@dataclass(frozen=True)
class Suspect:
    """Sample with a target that an ensemble contradicts."""

    file: str
    """its name within the source; empty: it is no file of its own"""
    row: int
    """in the data set; in its split where the run has no data set of these samples"""
    split: str
    """`valid`, `test`, or `out-of-fold`"""
    given: str
    suggested: str
    """target that the ensemble would give"""
    score: float
    """see `Suspects.measure`"""


@dataclass(frozen=True)
class Suspects:
    """Suspects of a run, the most suspect first."""

    ensemble: str
    measure: str
    """name of `Suspect.score`: `probability`, the ensemble's of the given target, or `scaled_residual`"""
    found: tuple[Suspect, ...]
    samples: Mapping[str, int]
    """by split, the number of samples looked at"""
    has_rows: bool
    """whether rows are those of the run's data set"""


def suspects_csv(suspects: Suspects) -> bytes:
    """Return the list, a row for each suspect."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, suspects.measure))
    for one in suspects.found:
        cells: tuple[CsvValue, ...] = (
            one.file,
            one.row,
            one.split,
            one.given,
            one.suggested,
            float(f"{one.score:.6g}"),
        )
        writer.writerow([escape_formula(cell) for cell in cells])
    return text.getvalue().encode("utf-8", "replace")


def suspects_page(suspects: Suspects, run: str, dataset: Dataset | None, leave_out: str) -> bytes:
    """Return the page, which opens from disk; `leave_out` is the command that takes the list."""
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = suspects.found[:DRAWN]
    page = environment.from_string(page_asset("suspects.html")).render(
        run=figure_style.plain(run),
        suspects=suspects,
        shown=shown,
        samples=sum(suspects.samples.values()),
        splits=" and ".join(f"{count:,} {split}" for split, count in suspects.samples.items()),
        drawings=_drawings(dataset, [one.row for one in shown]) if dataset and suspects.has_rows else {},
        box=(WIDTH, HEIGHT),
        leave_out=leave_out,
        style=page_asset("style.css"),
    )
    return str(page).encode("utf-8", "replace")


def _drawings(dataset: Dataset, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the drawing of each row, as far as `BYTES` allow: an `image`, `lines` with a `note`, or `values`."""
    draw: Mapping[DataKind, Any] = {
        "image": partial(thumbnails, most=BYTES),
        "series": partial(series_lines, most=BYTES),
        "table": partial(row_values, order=[column.name for column in columns_of(dataset)])
        if dataset.kind == "table"
        else None,
    }
    made: dict[int, dict[str, Any]] = {}
    for row, drawing in draw[dataset.kind](dataset, rows).items():
        if isinstance(drawing, str):
            made[row] = {"image": drawing}
        elif isinstance(drawing, SeriesLines):
            made[row] = {"lines": drawing.lines, "note": drawing.note}
        else:
            made[row] = {"values": drawing}
    return made
