"""The command coverage."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.app import FamilyOpt, RunArg, app, examples
from ripieno.cli.select import AbstainOpt, CoverageOpt, PerClassOpt, ScoreOpt
from ripieno.notes import Notes
from ripieno.shell_command import command


@app.command(
    epilog=examples(
        "ripieno coverage run B5 --coverage 0.9,0.95",
        "ripieno coverage run B5 --coverage 0.9 --per-class",
        "ripieno coverage run B5 --abstain 0.02",
    )
)
def coverage(
    run: RunArg,
    ensemble: Annotated[str, typer.Argument(help="Name of the ensemble", metavar="ENSEMBLE")],
    coverage: CoverageOpt = "",
    per_class: PerClassOpt = False,
    score: ScoreOpt = None,
    abstain: AbstainOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Fit prediction sets, intervals and abstention of an ensemble.

    With --coverage 0.9, requests can ask for the classes, labels or range of
    values that hold the truth for 9 of 10 samples like those of validation.
    The first of several is the default of requests.

    With --abstain 0.02, answers say which samples to leave to a person, so
    that at most 2 % of the other ones are wrong.

    All validation samples are used. Allocate the ensemble afterwards.
    """
    from ripieno import pipeline

    fitted = pipeline.coverage(
        run,
        ensemble,
        **parsing.coverage_options(coverage, per_class, score, abstain),
        trusted=family or (),
        notes=Notes(console.warn),
    )
    console.out.print(tables.coverages([fitted]))
    following = command("allocate", run, fitted.name, bundle="bundle")
    console.print_result(f"{run}/ensembles/{fitted.name}.json", following, ensemble=fitted)
