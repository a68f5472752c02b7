"""The command algorithm, and the options of an algorithm that `tune` has too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ripieno import files
from ripieno.cli import console
from ripieno.cli.app import app, examples
from ripieno.config import settings
from ripieno.errors import SearchError
from ripieno.shell_command import command

StepOpt = Annotated[
    float | None,
    typer.Option(help="Ratio of the epochs of two rungs, above 1", show_default="3, or the algorithm's or the run's"),
]
KeepOpt = Annotated[
    int | None,
    typer.Option(
        help="One in this many trials of a rung trains on to the next",
        show_default="3, or the algorithm's or the run's",
    ),
]
EtaOpt = Annotated[int | None, typer.Option(help="Sets --step and --keep")]
FirstOpt = Annotated[
    int | None, typer.Option(help="Of popnas: first trials, of cells of one block", show_default="32, or the run's")
]
BeamOpt = Annotated[
    int | None, typer.Option(help="Of popnas: trials of each further step", show_default="24, or the run's")
]
MacroOpt = Annotated[
    str | None,
    typer.Option(help="Of popnas: other hyperparameters along with cells, or after", show_default="along"),
]


@app.command(
    epilog=examples(
        "ripieno algorithm hyperband",
        "ripieno algorithm bohb --step 2 --keep 4 --output mine.json",
        "# then ripieno tune images/ --run run --algorithm mine.json",
    )
)
def algorithm(
    name: Annotated[str, typer.Argument(help="Name, SCHEDULER+SAMPLER, or a JSON file")] = "hyperband",
    step: StepOpt = None,
    keep: KeepOpt = None,
    eta: EtaOpt = None,
    first: FirstOpt = None,
    beam: BeamOpt = None,
    macro: MacroOpt = None,
    output: Annotated[Path | None, typer.Option(help="JSON file to write, for tune --algorithm")] = None,
) -> None:
    """Show all options of a search algorithm, or write them to a file to change.

    The last lines list all names, and the schedulers and samplers of pairs.
    """
    from ripieno.search.algorithms import (
        ALGORITHMS,
        LADDERS,
        SCHEDULERS,
        algorithm_to_plain,
        change_algorithm,
        find_algorithm,
    )
    from ripieno.search.samplers import SAMPLERS

    growth: dict[str, Any] = {"first": first, "beam": beam, "macro": macro}
    found = change_algorithm(find_algorithm(name), eta=eta, step=step, keep=keep, **growth)
    plain = algorithm_to_plain(found)
    if output is not None:
        if output.suffix != ".json":
            raise SearchError(f"{output}: the file of an algorithm ends in .json")
        if output.exists():
            raise SearchError(f"{output} exists: give another name, or remove it")
        plain["name"] = output.stem
        files.write_bytes(output, (json.dumps(plain, indent=2) + "\n").encode())
    table = console.table(f"algorithm {plain['name']}", "option", "value", "meaning")
    for setting in settings(found):
        value = plain.get(setting.key[0])
        table.add_row(setting.key[0], "" if value is None else str(value), setting.help.replace("`", ""))
    console.out.print(table)
    for what, names in (("names", ALGORITHMS), ("schedulers", (*LADDERS, *SCHEDULERS)), ("samplers", SAMPLERS)):
        console.say(f"{what:<12}", ", ".join(names))
    ratios = {"step": step, "keep": keep, "eta": eta, **growth} if output is None else {}  # a file has them
    following = command("tune", "DATA", algorithm=output or name, **ratios)
    console.print_result(output or "", following, algorithm=plain)
