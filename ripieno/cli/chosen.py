"""The verbs that choose: select, front."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, tables, words
from ripieno.cli.app import Devices, Run, Trust, app
from ripieno.commands import command
from ripieno.selection.check import Loss, Method
from ripieno.types import Combiner

MethodOption = Annotated[
    str, typer.Option("--method", help="`smobf`, `swap`, `forward`, `replacement`, `top-k`, `best` or `exact`.")
]
Prune = Annotated[float, typer.Option(help="Look at the best share of the library, at least 20 members.")]
LossOption = Annotated[str, typer.Option("--loss", help="`cross-entropy`, `accuracy`, `macro-f1`: what is minimised.")]
CombinerOption = Annotated[str, typer.Option("--combiner", help="`mean`, `vote` or `median`.")]


@app.command()
def select(
    run: Run,
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
    family: Trust = None,
) -> None:
    """Choose the most accurate ensemble for each budget: `ripieno select run --budget 5 20`."""
    from ripieno import pipeline

    notes: list[str] = []
    with console.progress() as progress:
        ensembles = pipeline.select(
            run,
            words.budgets(budget or (), more or ()),
            method=words.one_of(Method, "--method", method),
            prune=prune,
            size=size,
            loss=words.one_of(Loss, "--loss", loss),
            combiner=words.one_of(Combiner, "--combiner", combiner),
            device=device,
            trusted=family or (),
            progress=progress,
            notes=notes,
        )
    for note in notes:
        console.note(note)
    console.out.print(tables.ensembles(ensembles, pipeline.metric_of(pipeline.open_run(run))))
    wrote = [f"{run}/ensembles/{e.name}.json" for e in ensembles]
    following = command("allocate", run, ensembles[-1].name, bundle="bundle")
    console.closing(wrote, following, ensembles=ensembles)


@app.command()
def front(
    run: Run,
    kind: Annotated[str | None, typer.Option(help="Kind of cost: seconds, memory, latency, parameters, flops.")] = None,
    points: Annotated[int, typer.Option(help="Budgets that the sweep tries.")] = 20,
    method: MethodOption = "smobf",
    prune: Prune = 0.2,
    loss: LossOption = "cross-entropy",
    combiner: CombinerOption = "mean",
    device: Devices = "cpu",
    family: Trust = None,
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
            method=words.one_of(Method, "--method", method),
            prune=prune,
            loss=words.one_of(Loss, "--loss", loss),
            combiner=words.one_of(Combiner, "--combiner", combiner),
            device=device,
            trusted=family or (),
            progress=progress,
            notes=notes,
        )
    for note in notes:
        console.note(note)
    console.out.print(tables.ensembles(found.ensembles, pipeline.metric_of(pipeline.open_run(run)), found.kind))
    middle = found.ensembles[len(found.ensembles) // 2].cost[found.kind]
    bound = f"{round_budget(middle, 3):g}"
    bound = bound if found.kind == "seconds" else f"{found.kind}={bound}"
    console.closing(f"{run}/front.json", command("select", run, budget=bound), front=found)
