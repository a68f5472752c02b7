"""The command report."""

from __future__ import annotations

from ripieno.cli import console
from ripieno.cli.app import RunArg, app, examples
from ripieno.commands import shell


@app.command(epilog=examples("ripieno report run"))
def report(run: RunArg) -> None:
    """Write the report of a run as one HTML file."""
    from ripieno.reports import report as write

    with console.progress() as progress:
        path = write(run, progress=progress)
    console.print_result(path, shell("open", path))
