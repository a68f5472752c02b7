"""The command soup."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, tables
from ripieno.cli.app import RunArg, app, examples
from ripieno.shell_command import command


@app.command(epilog=examples("ripieno soup run"))
def soup(
    run: RunArg,
    candidates: Annotated[int, typer.Option(help="Best trials to try, per backbone and resolution")] = 20,
    device: Annotated[str, typer.Option(help="Device to evaluate on: auto, cpu or cuda")] = "auto",
) -> None:
    """Average the weights of fine-tuned trials into members of one network's cost.

    Trials on the same pretrained weights and resolution are tried from the
    best on; each stays in the average if its validation loss does not rise.

    Repeat it after more trials: what was tried is not tried again, and
    members stay as they are.
    """
    from ripieno import pipeline

    with console.progress() as progress:
        soups = pipeline.soup(run, candidates=candidates, device=device, progress=progress)
    console.out.print(tables.soups(soups))
    for result in soups:
        if result.member is None:
            console.say(f"{result.backbone}: no average is as good as {result.best.id} alone; none is kept")
    added = [result.member for result in soups if result.member is not None and result.added]
    console.print_result(
        [str(pipeline.open_run(run).member_path(member.id)) for member in added],
        command("measure", run),
        f"{len(added)} new members",
        soups=[tables.soup_dict(result) for result in soups],
    )
