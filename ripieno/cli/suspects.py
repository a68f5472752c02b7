"""The command suspects."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console
from ripieno.cli.app import FamilyOpt, RunArg, app, examples
from ripieno.notes import Notes
from ripieno.shell_command import shell

SHOWN = 10
"""Suspects that are printed, the first."""


@app.command(epilog=examples("ripieno suspects run", "ripieno suspects run B20"))
def suspects(
    run: RunArg,
    ensemble: Annotated[
        str | None, typer.Argument(help="Name of the ensemble; by default that of the least validation loss")
    ] = None,
    family: FamilyOpt = None,
) -> None:
    """List labels that an ensemble contradicts, the most suspect first.

    They are those of validation, test and out-of-fold samples, which the members
    were not trained on. RUN/suspects.csv has all of them, RUN/suspects.html the
    first with pictures. Remove from the list what is right; a new search leaves
    the rest out with tune --leave-out.
    """
    from ripieno import pipeline
    from ripieno.reports.suspects import LIST, PAGE

    with console.progress() as progress:
        found = pipeline.suspects(run, ensemble, trusted=family or (), progress=progress, notes=Notes(console.warn))
    looked = " and ".join(f"{count:,} {split}" for split, count in found.samples.items())
    title = f"{found.ensemble} contradicts {len(found.found):,} of {looked} samples"
    view = console.table(title, "sample", "split", "given", "suggested", found.measure.replace("_", " "))
    for one in found.found[:SHOWN]:
        words = one.file or f"row {one.row}", one.split, one.given or "-", one.suggested or "-"
        view.add_row(*words, f"{one.score:.3g}")
    console.out.print(view if found.found else title)
    console.print_result(
        [run / LIST, run / PAGE],
        shell("open", run / PAGE),
        f"{len(found.found):,} suspects",
        ensemble=found.ensemble,
        samples=found.samples,
        suspects=list(found.found),
    )
