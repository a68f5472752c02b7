"""The command compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ripieno.cli import console
from ripieno.cli.app import app, examples
from ripieno.shell_command import command, shell


@app.command(epilog=examples("ripieno compare run-a run-b", "ripieno compare run-a run-b run-c --html comparison.html"))
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of two runs or more on the same data", metavar="RUN...")],
    csv: Annotated[Path | None, typer.Option(help="Write a table with a row for each run")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with curves, fronts and tables")] = None,
) -> None:
    """Show runs on the same data side by side.

    Figures, ensembles by budget, and the settings and hyperparameters that
    differ. Runs may be unfinished; they are only read.
    """
    from ripieno import pipeline
    from ripieno.reports.comparison import comparison_tables

    found = pipeline.compare(runs, csv=csv, html=html)
    for table in comparison_tables(found):
        view = console.table(table.title, "", *table.columns)
        for row in table.rows:
            cells = (Text(cell, "bold") if i in row.best else cell for i, cell in enumerate(row.cells))
            view.add_row(row.label, *cells)
        console.out.print(view)
    if found.reference is not None:
        cost, loss = found.reference
        console.out.print(f"hypervolume: of {found.fronts}, up to {cost:.4g} {found.cost} and a loss of {loss:.4g}")
    for note in found.notes:
        console.warn(note)
    best = min(found.runs, key=lambda run: run.loss)
    console.print_result(
        [path for path in (csv, html) if path is not None],
        shell("open", html) if html is not None else command("report", best.path),
        **vars(found),
    )
