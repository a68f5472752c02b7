"""The verbs that choose: select, front."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.app import Devices, FamilyOpt, RunArg, app
from ripieno.commands import command
from ripieno.selection.validation import Loss, Method
from ripieno.types import Combiner

MethodOption = Annotated[
    str, typer.Option("--method", help="`smobf`, `swap`, `forward`, `replacement`, `top-k`, `best` or `exact`.")
]
Prune = Annotated[float, typer.Option(help="Look at the best share of the library, at least 20 members.")]
LossOption = Annotated[str, typer.Option("--loss", help="`cross-entropy`, `accuracy`, `macro-f1`: what is minimised.")]
CombinerOption = Annotated[str, typer.Option("--combiner", help="`mean`, `vote` or `median`.")]


@app.command()
def select(
    run: RunArg,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Seconds all members together may need for 2,000 images; several may follow. "
            "Or one with several bounds: seconds=20 memory=4GiB (also latency, parameters, flops, or your own).",
            metavar="B...",
        ),
    ] = None,
    method: MethodOption = "smobf",
    prune: Prune = 0.2,
    size: Annotated[int | None, typer.Option(help="How many members.")] = None,
    loss: LossOption = "cross-entropy",
    combiner: CombinerOption = "mean",
    device: Devices = "cpu",
    family: FamilyOpt = None,
) -> None:
    """Choose the most accurate ensemble for each budget: `ripieno select run --budget 5 20`."""
    from ripieno import pipeline

    notes: list[str] = []
    with console.progress() as progress:
        ensembles = pipeline.select(
            run,
            parsing.budgets(budget or (), more or ()),
            method=parsing.parse_choice(Method, "--method", method),
            prune=prune,
            size=size,
            loss=parsing.parse_choice(Loss, "--loss", loss),
            combiner=parsing.parse_choice(Combiner, "--combiner", combiner),
            device=device,
            trusted=family or (),
            progress=progress,
            notes=notes,
        )
    for note in notes:
        console.warn(note)
    console.out.print(tables.ensembles(ensembles, pipeline.metric_of(pipeline.open_run(run))))
    wrote = [f"{run}/ensembles/{e.name}.json" for e in ensembles]
    following = command("allocate", run, ensembles[-1].name, bundle="bundle")
    console.print_result(wrote, following, ensembles=ensembles)


@app.command()
def front(
    run: RunArg,
    kind: Annotated[str | None, typer.Option(help="Kind of cost: seconds, memory, latency, parameters, flops.")] = None,
    points: Annotated[int, typer.Option(help="Budgets that the sweep tries.")] = 20,
    method: MethodOption = "smobf",
    prune: Prune = 0.2,
    loss: LossOption = "cross-entropy",
    combiner: CombinerOption = "mean",
    device: Devices = "cpu",
    family: FamilyOpt = None,
) -> None:
    """The best ensemble for every budget, in one sweep: `ripieno front run`."""
    from ripieno import pipeline
    from ripieno.selection import round_budget

    notes: list[str] = []
    with console.progress() as progress:
        found = pipeline.front(
            run,
            kind=kind,
            points=points,
            method=parsing.parse_choice(Method, "--method", method),
            prune=prune,
            loss=parsing.parse_choice(Loss, "--loss", loss),
            combiner=parsing.parse_choice(Combiner, "--combiner", combiner),
            device=device,
            trusted=family or (),
            progress=progress,
            notes=notes,
        )
    for note in notes:
        console.warn(note)
    console.out.print(tables.ensembles(found.ensembles, pipeline.metric_of(pipeline.open_run(run)), found.kind))
    middle = found.ensembles[len(found.ensembles) // 2].cost[found.kind]
    bound = f"{round_budget(middle, 3):g}"
    bound = bound if found.kind == "seconds" else f"{found.kind}={bound}"
    console.print_result(f"{run}/front.json", command("select", run, budget=bound), front=found)
