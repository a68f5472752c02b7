"""The verbs on what a run keeps: import, show, evict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.app import RunArg, app
from ripieno.commands import command
from ripieno.notes import Notes
from ripieno.types import Member

Sort = Literal["loss", "cost", "size", "diversity"]
Layout = Literal["auto", "NHWC", "NCHW"]
Outputs = Literal["probabilities", "logits"]
Splits = Literal["valid", "test"]


@app.command("import")
def import_(
    sources: Annotated[
        list[str], typer.Argument(help="ONNX files, .safetensors, or predictions (.npy .npz .csv .parquet, a folder).")
    ],
    run: Annotated[Path, typer.Option(help="Folder of the run; it may be new.")] = Path("run"),
    data: Annotated[str | None, typer.Option(help="Images to judge networks by, as for `tune`.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels of predictions: .npy, .csv or .parquet.")] = None,
    costs: Annotated[Path | None, typer.Option(help="Table with a column `name` and one for each kind.")] = None,
    split: Annotated[str, typer.Option(help="Split that predictions belong to: `valid` or `test`.")] = "valid",
    family: Annotated[str | None, typer.Option(help="`module:function` that builds the network of weights.")] = None,
    layout: Annotated[str, typer.Option(help="Of images in ONNX files: `auto`, `NHWC`, `NCHW`.")] = "auto",
    outputs: Annotated[str, typer.Option(help="Of ONNX files: `probabilities` or `logits`.")] = "probabilities",
    tensor: Annotated[str | None, typer.Option(help="Output of ONNX files that holds the answers, by name.")] = None,
    configuration: Annotated[str, typer.Option(help="Values that --family reads, such as depth=2,width=16.")] = "",
    scale: Annotated[float, typer.Option(help="Images are multiplied by this first, such as 0.00392.")] = 1.0,
    mean: Annotated[str, typer.Option(help="Then a mean per channel is subtracted: 0.485,0.456,0.406.")] = "",
    std: Annotated[str, typer.Option(help="Then each channel is divided by this: 0.229,0.224,0.225.")] = "",
    half: Annotated[bool, typer.Option(help="Keep predictions as float16.")] = False,
    replace: Annotated[bool, typer.Option(help="Replace members of the same name.")] = False,
    size: Annotated[int | None, typer.Option(help="Resize images of --data to this many pixels a side.")] = None,
) -> None:
    """Add models that others trained: `ripieno import a.onnx b.onnx --run run --data images`."""
    from ripieno import pipeline

    notes = Notes(console.warn)
    with console.progress() as progress:
        added = pipeline.import_(
            run,
            sources,
            data=data,
            labels=labels,
            costs=costs,
            split=parsing.parse_choice(Splits, "--split", split),
            family=family,
            layout=parsing.parse_choice(Layout, "--layout", layout),
            outputs=parsing.parse_choice(Outputs, "--outputs", outputs),
            tensor=tensor,
            configuration=parsing.values("--configuration", configuration) or None,
            scale=scale,
            mean=parsing.numbers("--mean", mean),
            std=parsing.numbers("--std", std),
            half=half,
            replace=replace,
            size=size,
            progress=progress,
            notes=notes,
        )
    ranked = sorted(added, key=lambda m: (m.losses["valid_cross_entropy"], m.id))
    priced = {m.id: m.costs["seconds"] for m in ranked if "seconds" in m.costs}
    console.out.print(tables.members(ranked[:10], priced, {}, "accuracy"))
    runnable = any(m.format != "predictions" for m in added)
    following = command("measure", run) if runnable else command("select", run, budget="B")
    console.print_result(run, following, f"{len(added)} members", added=[tables.member_dict(m) for m in ranked])


@app.command()
def show(
    run: RunArg,
    top: Annotated[int, typer.Option(help="How many members to list.")] = 10,
    sort: Annotated[str, typer.Option(help="`loss`, `cost`, `size` or `diversity`.")] = "loss",
) -> None:
    """List a run's members and ensembles: `ripieno show run --sort cost`."""
    from ripieno import pipeline
    from ripieno.pipeline.budgets import same_ensembles

    parsing.at_least("--top", top)
    order = parsing.parse_choice(Sort, "--sort", sort)
    held = pipeline.show(run)
    infinite = float("inf")
    keys: dict[str, Callable[[Member], float]] = {
        "loss": lambda m: m.losses["valid_cross_entropy"],
        "cost": lambda m: held.costs.get(m.id, infinite),
        "size": lambda m: m.parameters,
        "diversity": lambda m: -held.diversity[m.id],
    }
    ranked = sorted(held.members, key=lambda m: (keys[order](m), m.id))
    trials = len({m.trial for m in held.members})
    console.out.print(f"{run}: {len(held.members)} members of {trials} trials")
    if waited := tables.stall_line(held.members):
        console.out.print(waited)
    console.out.print(tables.members(ranked[:top], held.costs, held.diversity, held.metric, held.cost_kind))
    if held.ensembles:
        console.out.print(tables.ensembles(held.ensembles, held.metric))
    for note in same_ensembles(held.ensembles):
        console.warn(note)
    for allocation in held.allocations:
        console.out.print(tables.allocation(allocation))
    if held.ensembles:
        following = command("allocate", run, held.ensembles[-1].name, bundle="bundle")
    else:
        following = command("select", run, budget="B") if held.costs else command("measure", run)
        if not held.costs and all(m.format == "predictions" for m in held.members):
            # nothing of them can be measured: costs must come with them
            following = command("import", "PREDICTIONS", run=run, costs="costs.csv") + " --replace"
    console.print_result(
        "",
        following,
        members=[tables.member_dict(m) for m in ranked],
        costs=held.costs,
        cost_kind=held.cost_kind,
        diversity=held.diversity,
        ensembles=held.ensembles,
        allocations=held.allocations,
    )


@app.command()
def evict(run: RunArg, quota: Annotated[str, typer.Option(help="Bytes all members may take, such as 2GiB.")]) -> None:
    """Remove members that another beats in both loss and cost, the worst first, until the library fits:
    `ripieno evict run --quota 2GiB`.
    """
    from ripieno import pipeline

    evicted, left = pipeline.evict(run, int(parsing.parse_quantity("--quota", quota)))
    made = console.table("evicted", "member", "for", "MiB")
    for e in evicted:
        made.add_row(e.member, e.by, f"{e.bytes / 2**20:.1f}")
    if evicted:
        console.out.print(made)
    console.out.print(f"{len(evicted)} evicted, {left / 2**20:.1f} MiB left")
    if left > parsing.parse_quantity("--quota", quota):
        console.warn("more than the quota is left: the rest is in an ensemble, or no other beats it in loss and cost")
    console.print_result("", command("show", run), evicted=evicted, left=left)
