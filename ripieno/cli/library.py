"""The commands on the library of a run: import, measure, show, evict and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.app import (
    ColumnOpt,
    DeviceOpt,
    DropOpt,
    FamilyOpt,
    IgnoreOpt,
    RunArg,
    SeriesOpt,
    SplitByOpt,
    TimeOpt,
    ValueOpt,
    app,
    examples,
)
from ripieno.cli.command import show_configurations
from ripieno.config import pick
from ripieno.notes import Notes
from ripieno.shell_command import command, shell
from ripieno.tasks.display import score_of
from ripieno.types import InputLayout, Member, ModelOutputs

Sort = Literal["loss", "cost", "size", "diversity"]
Splits = Literal["valid", "test"]


@app.command(
    "import",
    epilog=examples(
        "ripieno import a.onnx b.onnx --run run --data images --outputs logits --scale 0.00392 "
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        "ripieno import net.safetensors --run run --data images --family my_nets:plain "
        "--configuration depth=2,width=16",
        "ripieno import predictions.npz --run run",
    ),
)
def import_(
    sources: Annotated[
        list[str], typer.Argument(help="ONNX files, .safetensors, or predictions (.npy .npz .csv .parquet, a folder)")
    ],
    run: Annotated[Path, typer.Option(help="Folder of the run; created when it does not exist")] = Path("run"),
    data: Annotated[str | None, typer.Option(help="Data to evaluate networks on, as for tune")] = None,
    targets: Annotated[
        Path | None, typer.Option("--targets", "--labels", help="Targets of predictions: .npy, .csv or .parquet")
    ] = None,
    costs: Annotated[
        Path | None, typer.Option(help="Table of costs with a column 'name' and one column per kind")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the predictions: valid or test")] = "valid",
    family: Annotated[
        str | None, typer.Option(help="Model factory (module:function) of the network in .safetensors")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Axes of inputs of ONNX files: auto, NHWC or NCHW, of series NLC or NCL")
    ] = "auto",
    outputs: Annotated[str, typer.Option(help="Outputs of ONNX files: probabilities or logits")] = "probabilities",
    tensor: Annotated[str | None, typer.Option(help="Name of the output of ONNX files to use")] = None,
    configuration: Annotated[str, typer.Option(help="Configuration that --family reads, as name=value pairs")] = "",
    scale: Annotated[float, typer.Option(help="Factor of the input values, applied before --mean and --std")] = 1.0,
    mean: Annotated[str, typer.Option(help="Mean per channel, subtracted after scaling")] = "",
    std: Annotated[str, typer.Option(help="Divisor per channel, applied after the mean")] = "",
    half: Annotated[bool, typer.Option(help="Store predictions as float16")] = False,
    replace: Annotated[bool, typer.Option(help="Replace members of the same name")] = False,
    size: Annotated[int | None, typer.Option(help="Resize images of --data to this many pixels per side")] = None,
    task: Annotated[
        str | None, typer.Option(help="Task of --data or of predictions: classification, multilabel or regression")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Column of targets of --data; repeatable")] = None,
    kind: Annotated[str | None, typer.Option(help="Kind of --data: image, series or table")] = None,
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    drop: DropOpt = None,
    column: ColumnOpt = None,
    split_by: SplitByOpt = None,
    ignore: IgnoreOpt = None,
) -> None:
    """Import trained models or their predictions into a run."""
    given = locals()
    from ripieno.pipeline.importing import ImportOptions, import_models

    given["split"] = parsing.parse_choice(Splits, "--split", split)
    given |= parsing.parse_data_options(given)
    given["layout"] = parsing.parse_choice(InputLayout, "--layout", layout)
    given["outputs"] = parsing.parse_choice(ModelOutputs, "--outputs", outputs)
    given["configuration"] = parsing.values("--configuration", configuration) or None
    given["mean"], given["std"] = parsing.numbers("--mean", mean), parsing.numbers("--std", std)
    notes = Notes(console.warn)
    with console.progress() as progress:
        added = import_models(run, sources, pick(ImportOptions, given), progress, notes)
    ranked = sorted(added, key=lambda m: (m.loss, m.id))
    costs_by_id = {m.id: m.costs["seconds"] for m in ranked if "seconds" in m.costs}
    console.out.print(tables.members(ranked[:10], costs_by_id, {}, score_of(ranked[0].task if ranked else None)))
    runnable = any(m.format != "predictions" for m in added)
    following = command("measure", run) if runnable else command("select", run, budget="B")
    console.print_result(run, following, f"{len(added)} members", added=[tables.member_dict(m) for m in ranked])


@app.command(epilog=examples("ripieno measure run"))
def measure(
    run: RunArg,
    device: DeviceOpt = "cpu",
    prune: Annotated[
        float, typer.Option(help="Measure the members that select and front consider with this share")
    ] = 0.2,
    again: Annotated[bool, typer.Option(help="Repeat existing measurements")] = False,
    energy: Annotated[bool, typer.Option(help="Measure joules too, by the device's energy counter")] = False,
    family: FamilyOpt = None,
) -> None:
    """Measure the cost of each member alone on an idle device."""
    from ripieno import pipeline
    from ripieno.pipeline.budgets import kept_budget
    from ripieno.selection import round_budget

    with console.progress() as progress:
        profiles = pipeline.measure(
            run, device=device, prune=prune, again=again, energy=energy, trusted=family or (), progress=progress
        )
    counts = pipeline.static_costs(pipeline.open_run(run), profiles)
    console.out.print(tables.profiles(list(profiles.values()), counts))
    busy = sum(not p.idle for p in profiles.values())
    if busy:
        console.warn(f"the machine was busy during {busy} measurements: repeat with --again on an idle machine")
    table = pipeline.measured_costs(pipeline.open_run(run), profiles)
    costs = table.alone("seconds")
    ordered = sorted(costs.values())
    # a search under a budget selects under it
    budget = None if kept_budget(run) else f"{round_budget(4 * ordered[len(ordered) // 2]):g}"
    console.print_result(
        f"{run}/profiles",
        command("select", run, budget=budget),
        f"{len(costs)} members",
        costs=costs,
        backbones={backbone: cost["seconds"] for backbone, cost in table.shared.items()},
        counts=counts,
    )


@app.command(epilog=examples("ripieno show run --sort cost"))
def show(
    run: RunArg,
    top: Annotated[int, typer.Option(help="Number of members to list")] = 10,
    sort: Annotated[str, typer.Option(help="Sort by loss, cost, size or diversity")] = "loss",
) -> None:
    """List the members and ensembles of a run."""
    from ripieno import pipeline
    from ripieno.cli.front_view import front_line
    from ripieno.data.folds import validation_words
    from ripieno.library.command_record import is_command_run
    from ripieno.library.import_predictions import NO_TRIAL
    from ripieno.pipeline.budgets import kept_budget, same_ensembles

    if is_command_run(run):
        show_configurations(run, top)
        return
    parsing.at_least("--top", top)
    order = parsing.parse_choice(Sort, "--sort", sort)
    summary = pipeline.show(run)
    infinite = float("inf")
    keys: dict[str, Callable[[Member], float]] = {
        "loss": lambda m: m.loss,
        "cost": lambda m: summary.costs.get(m.id, infinite),
        "size": lambda m: m.parameters,
        "diversity": lambda m: -summary.diversity[m.id],
    }
    ranked = sorted(summary.members, key=lambda m: (keys[order](m), m.id))
    trials = len({m.trial for m in summary.members} - {NO_TRIAL})
    console.out.print(f"{run}: {len(summary.members)} members of {trials} trials")
    if summary.folds:
        console.out.print(f"validation: {validation_words(summary.folds)}")
    if summary.live_front is not None:
        console.out.print("front of the search:", front_line(summary.live_front), soft_wrap=True)
    correlations = summary.predictions.correlations()
    predictions: dict[str, Any] = {}
    for policy in summary.policies:
        console.say(f"augmentation by policy: {policy}")
    if stalls := tables.stall_line(summary.members):
        console.out.print(stalls)
    console.out.print(tables.members(ranked[:top], summary.costs, summary.diversity, summary.metric, summary.cost_kind))
    for line in tables.backbone_lines(summary.members, summary.backbones, summary.cost_kind):
        console.out.print(line)
    for line in tables.cell_lines(ranked[:top]):
        console.out.print(line, soft_wrap=True)
    if correlations:
        predictions["predictions"] = tables.predictions_dict(summary.predictions, summary.members)
        console.out.print(tables.correlations(correlations))
        console.out.print(tables.time_front_line(summary.members), soft_wrap=True)
    for origin in summary.weights.values():
        console.out.print(f"weights of {origin.name}: {origin.source}, licence {origin.licence or 'not stated'}")
    if summary.ensembles:
        console.out.print(tables.ensembles(summary.ensembles, summary.metric))
    for note in same_ensembles(summary.ensembles):
        console.warn(note)
    for allocation in summary.allocations:
        console.out.print(tables.allocation(allocation))
    if summary.ensembles:
        following = command("allocate", run, summary.ensembles[-1].name, bundle="bundle")
    else:
        budget = None if kept_budget(run) else "B"
        following = command("select", run, budget=budget) if summary.costs else command("measure", run)
        if not summary.costs and all(m.format == "predictions" for m in summary.members):
            # predictions cannot be measured: their costs must be imported too
            following = command("import", "PREDICTIONS", run=run, costs="costs.csv") + " --replace"
    console.print_result(
        "",
        following,
        members=[tables.member_dict(m) for m in ranked],
        costs=summary.costs,
        cost_kind=summary.cost_kind,
        backbones=summary.backbones,
        diversity=summary.diversity,
        ensembles=summary.ensembles,
        allocations=summary.allocations,
        weights=list(summary.weights.values()),
        folds=summary.folds,
        live_front=summary.live_front,
        policies=list(summary.policies),
        **predictions,
    )


@app.command(epilog=examples("ripieno evict run --quota 2GiB"))
def evict(
    run: RunArg,
    quota: Annotated[str, typer.Option(help="Maximum size of all members, in bytes or with a unit (MiB, GiB)")],
) -> None:
    """Remove dominated members, worst first, until the library fits.

    A member is dominated when another is better in both loss and cost.
    """
    from ripieno import pipeline

    evicted, left = pipeline.evict(run, int(parsing.parse_quantity("--quota", quota)))
    evictions = console.table("evicted", "member", "dominated by", "MiB")
    for e in evicted:
        evictions.add_row(e.member, e.by, f"{e.bytes / 2**20:.1f}")
    if evicted:
        console.out.print(evictions)
    console.out.print(f"{len(evicted)} evicted, {left / 2**20:.1f} MiB left")
    if left > parsing.parse_quantity("--quota", quota):
        console.warn("the library exceeds the quota: the members left are in an ensemble or not dominated")
    console.print_result("", command("show", run), evicted=evicted, left=left)


@app.command(epilog=examples("ripieno report run"))
def report(run: RunArg) -> None:
    """Write the report of a run as one HTML file."""
    from ripieno.reports import report as write

    with console.progress() as progress:
        path = write(run, progress=progress)
    console.print_result(path, shell("open", path))
