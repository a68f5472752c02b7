"""The verbs. Each reads what an earlier one left on disk, and ends with what it wrote and the next command to type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.commands import CommandGroup
from ripieno.commands import command, shell
from ripieno.notes import Notes
from ripieno.pipeline.execution import PoolName
from ripieno.types import Metric

app = CommandGroup(
    help="Ensembles of deep networks that fit a budget: search, select, allocate and serve them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

RunArg = Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN")]
BundlePath = Annotated[Path, typer.Argument(help="The deployment's folder.", metavar="BUNDLE")]
Devices = Annotated[str, typer.Option(help="`auto`, `cpu`, `cpu:2` (the CPU cut in two), `cuda:0,cpu`.")]
FamilyOpt = Annotated[
    list[str] | None,
    typer.Option("--family", help="`module:function` that built the members, to let ripieno import it."),
]


def _version(asked: bool) -> None:
    if asked:
        from ripieno import __version__

        console.say(f"ripieno {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Ensembles of deep networks that fit a budget: search, select, allocate and serve them."""


@app.command()
def tune(
    data: Annotated[
        str | None,
        typer.Argument(
            help="Image folder, .npz, CIFAR archive, idx folder or prepared data set; a run that goes on needs none."
        ),
    ] = None,
    run: Annotated[
        Path,
        typer.Option(
            help="Folder of the run; the same folder goes on where it stopped, with its own data and settings."
        ),
    ] = Path("run"),
    hours: Annotated[
        float | None, typer.Option(help="Time to search; 1 when neither this nor --trials is given, or as last time.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to start.")] = None,
    epochs: Annotated[int | None, typer.Option(help="The most epochs any trial trains; 27, or the run's.")] = None,
    space: Annotated[
        str,
        typer.Option(
            help="`auto` (the run's, or by device), `resnet`, `resnet-small`, `resnet-tiny`, `resnet-table`, "
            "`resnet-paper` or a JSON file."
        ),
    ] = "auto",
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="`hyperband` (unless the run has another), `asha`, `random`, `bohb`, `tpe`, `gp`, `smac`, `genetic`."
        ),
    ] = None,
    eta: Annotated[int | None, typer.Option(help="Halving factor; 3, or the run's.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed and trials give the same library; 0, or the run's.")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Trials at a time; by default one a core or a GPU.")] = None,
    pool: Annotated[str, typer.Option(help="`local` (a process a slot), `inline` or `ray`.")] = "local",
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    per_device: Annotated[int, typer.Option(help="Trials that share a GPU.")] = 1,
    address: Annotated[str, typer.Option(help="Of the Ray cluster; `local` starts one for the run.")] = "local",
    cpus: Annotated[float, typer.Option(help="Cores of a trial on the Ray cluster.")] = 1.0,
    limit: Annotated[float | None, typer.Option(help="Seconds after which an epoch is taken to hang.")] = None,
    family: Annotated[str | None, typer.Option(help="Your own networks: `module:function`.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels a side.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares of train, validation and test; 0.72,0.08,0.20, or the run's.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Score that is shown, `accuracy` (unless the run has another) or `macro-f1`; trials are ranked by "
            "cross-entropy."
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Leave broken images out and count them.")] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Tell `tensorboard` (files in RUN/tensorboard) or `mlflow` (MLFLOW_TRACKING_URI) too; repeat."
        ),
    ] = None,
) -> None:
    """Search hyperparameters and keep every network: `ripieno tune images/ --run run --hours 1`."""
    from ripieno import pipeline
    from ripieno.cli.progress import logging_callbacks, progress_callback, summary, to_dict
    from ripieno.search.callbacks import combine_callbacks

    notes = Notes(console.warn)  # at once: what was left out of the data is told before the search
    loggers, show_with = logging_callbacks(log or (), run)
    with console.progress() as progress, progress_callback() as watch:
        library = pipeline.tune(
            data,
            run,
            hours=hours,
            trials=trials,
            epochs=epochs,
            space=space,
            algorithm=algorithm,
            eta=eta,
            seed=seed,
            slots=slots,
            pool=parsing.parse_choice(PoolName, "--pool", pool),
            device=device,
            per_device=per_device,
            address=address,
            cpus=cpus,
            limit=limit,
            family=family,
            size=size,
            split=None if split is None else parsing.parse_ratios("--split", split),
            metric=None if metric is None else parsing.parse_choice(Metric, "--metric", metric),
            skip_bad=skip_bad or None,
            progress=progress,
            notes=notes,
            watch=combine_callbacks(watch, *loggers, lost=notes.append),
        )
    ranked = sorted(library.members(), key=lambda m: (m.losses["valid_cross_entropy"], m.id))
    console.out.print(summary(watch, run))
    console.out.print(tables.members(ranked[:5], {}, {}, pipeline.metric_of(library)))
    console.out.print(tables.stall_line(ranked))
    for line in show_with:
        console.say("to see it  ", (line, "bold cyan"))
    members = [tables.member_dict(m) for m in ranked]
    console.print_result(run, command("measure", run), f"{len(ranked)} members", **to_dict(watch), library=members)


@app.command()
def measure(
    run: RunArg,
    device: Devices = "cpu",
    prune: Annotated[float, typer.Option(help="Measure what `select` and `front` with this share look at.")] = 0.2,
    again: Annotated[bool, typer.Option(help="Measure again what was measured before.")] = False,
    family: FamilyOpt = None,
) -> None:
    """Time members alone on an idle device: `ripieno measure run`."""
    from ripieno import pipeline
    from ripieno.selection import round_budget

    with console.progress() as progress:
        profiles = pipeline.measure(
            run, device=device, prune=prune, again=again, trusted=family or (), progress=progress
        )
    counts = pipeline.static_costs(pipeline.open_run(run), profiles)
    console.out.print(tables.profiles(list(profiles.values()), counts))
    busy = sum(not p.idle for p in profiles.values())
    if busy:
        console.warn(f"the machine was busy while {busy} were measured: --again on an idle one")
    costs = sorted(p.cost for p in profiles.values())
    budget = f"{round_budget(4 * costs[len(costs) // 2]):g}"
    console.print_result(
        f"{run}/profiles",
        command("select", run, budget=budget),
        f"{len(profiles)} members",
        costs={member: p.cost for member, p in profiles.items()},
        counts=counts,
    )


@app.command()
def report(run: RunArg) -> None:
    """Write a run's report, one HTML file: `ripieno report run`."""
    from ripieno.reports import report as write

    with console.progress() as progress:
        path = write(run, progress=progress)
    console.print_result(path, shell("open", path))


# the other verbs stand in files of their own; importing them registers them
