"""The command history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console
from ripieno.cli.app import app, examples
from ripieno.errors import RipienoError
from ripieno.shell_command import command

ACTIONS = ("add", "list", "forget")


@app.command(
    epilog=examples(
        "ripieno history add run --history records",
        "ripieno history list --history records",
        "# then ripieno tune images/ --run next --history records",
    )
)
def history(
    action: Annotated[str, typer.Argument(help="add runs, list the records, or forget some")],
    names: Annotated[list[str] | None, typer.Argument(help="Runs to add, or records to forget")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--history", help="Folder of the records", metavar="DIR", show_default="RIPIENO_HISTORY"),
    ] = None,
) -> None:
    """Keep records of runs, from which later searches learn.

    A record holds the space, configurations, losses and times of a search,
    and the kind, task, numbers and shape of its data; nothing of the data.

    Records of several machines merge by copying their files.
    """
    from ripieno import pipeline
    from ripieno.pipeline.history import find_folder

    if action not in ACTIONS:
        raise RipienoError(f"no action {action!r} of history; there are: {', '.join(ACTIONS)}")
    if bool(names) == (action == "list"):
        what = "takes no names" if names else "needs a run" if action == "add" else "needs the name of a record"
        raise RipienoError(f"history {action} {what}: see ripieno history --help")
    path = find_folder(folder).path
    following = command("tune", "DATA", history=path)
    wrote: list[Path] = []
    if action == "add":
        wrote = pipeline.add_history(names or (), path)
    elif action == "forget":
        pipeline.forget_history(names or (), path)
    records = pipeline.list_history(path)
    if action == "list":
        table = console.table(f"history {path}", "record", "space", "kind", "task", "samples", "classes", "trials")
        for r in records:
            data = r.data
            train = (data.kind, data.task, f"{data.samples.get('train', 0):,}", str(data.classes)) if data else [""] * 4
            table.add_row(r.name, str(r.space.get("name", "")), *train, str(len(r.trials)))
        console.out.print(table)
    if action == "forget":
        console.say(f"forgot {', '.join(names or ())}; {len(records)} left")
    shown = [{**vars(r), "trials": len(r.trials)} for r in records]
    console.print_result(wrote, following, f"{len(records)} record{'' if len(records) == 1 else 's'}", records=shown)
