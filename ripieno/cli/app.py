"""The verbs. Each reads what an earlier one left on disk, and ends with what it wrote and the next command to type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from ripieno.cli import console, tables
from ripieno.errors import RipienoError
from ripieno.selection.check import Method
from ripieno.types import Metric

app = typer.Typer(
    help="Ensembles of deep networks that fit a budget: search, select, allocate and serve them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Run = Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN")]
BundlePath = Annotated[Path, typer.Argument(help="The deployment's folder.", metavar="BUNDLE")]
Devices = Annotated[str, typer.Option(help="`auto`, `cpu`, `cpu:2` (the CPU cut in two), `cuda:0,cpu`.")]
Trust = Annotated[
    list[str] | None,
    typer.Option("--family", help="`module:function` that built the members, to let ripieno import it."),
]


def _version(asked: bool) -> None:
    if asked:
        from ripieno import __version__

        console.out.print(f"ripieno {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Ensembles of deep networks that fit a budget: search, select, allocate and serve them."""


@app.command()
def tune(
    data: Annotated[str, typer.Argument(help="Image folder, .npz, CIFAR archive, idx folder or prepared data set.")],
    run: Annotated[Path, typer.Option(help="Folder of the run; the same folder goes on where it stopped.")] = Path(
        "run"
    ),
    hours: Annotated[
        float | None, typer.Option(help="Time to search; 1 when neither this nor --trials is given.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to start.")] = None,
    epochs: Annotated[int, typer.Option(help="The most epochs any trial trains.")] = 27,
    space: Annotated[
        str,
        typer.Option(
            help="`auto` (by device), `resnet`, `resnet-small`, `resnet-tiny`, `resnet-paper` or a JSON file."
        ),
    ] = "auto",
    algorithm: Annotated[str, typer.Option(help="`hyperband`, `asha` or `random`.")] = "hyperband",
    eta: Annotated[int, typer.Option(help="Halving factor.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed and trials give the same library.")] = 0,
    slots: Annotated[int | None, typer.Option(help="Trials at a time; by default one a core.")] = None,
    pool: Annotated[str, typer.Option(help="`local` (a process a slot) or `inline`.")] = "local",
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    family: Annotated[str | None, typer.Option(help="Your own networks: `module:function`.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels a side.")] = None,
    split: Annotated[str, typer.Option(help="Shares of train, validation and test.")] = "0.72,0.08,0.20",
    metric: Annotated[str, typer.Option(help="`accuracy` or `macro-f1`.")] = "accuracy",
    skip_bad: Annotated[bool, typer.Option(help="Leave broken images out and count them.")] = False,
) -> None:
    """Search hyperparameters and keep every network: `ripieno tune images/ --run run --hours 1`."""
    from ripieno import pipeline
    from ripieno.cli.watch import watching

    notes: list[str] = []
    with console.progress() as progress, watching() as watch:
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
            pool=pool,
            device=device,
            family=family,
            size=size,
            split=_shares(split),
            metric=one_of(Metric, "--metric", metric),
            skip_bad=skip_bad,
            progress=progress,
            notes=notes,
            watch=watch,
        )
    for note in notes:
        console.log.print(f"note: {note}")
    ranked = sorted(library.members(), key=lambda m: (m.losses["valid_cross_entropy"], m.id))
    console.out.print(tables.members(ranked[:5], {}, metric))
    console.closing(f"{run} ({len(ranked)} members)", f"ripieno measure {run}")


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, valid, test = (float(part) for part in text.split(","))
    except ValueError:
        raise RipienoError(f"--split {text!r} must be three shares, such as 0.72,0.08,0.20") from None
    return train, valid, test


def _budgets(first: list[str] | None, more: list[str] | None) -> list[float] | None:
    """`--budget 5 20 80`: what follows the option arrives as further arguments."""
    if more and not first:
        raise RipienoError(f"{more[0]!r} is not expected here: budgets follow --budget")
    budgets = []
    for text in [*(first or ()), *(more or ())]:
        try:
            budgets.append(float(text))
        except ValueError:
            raise RipienoError(f"--budget {text!r} must be a number of seconds, such as 20") from None
    return budgets or None


def one_of(words: Any, option: str, text: str) -> Any:
    """`text`, which must be one of a Literal's words."""
    known = get_args(words)
    if text not in known:
        raise RipienoError(f"{option} {text!r} must be one of {', '.join(known)}")
    return text


@app.command()
def show(run: Run, top: Annotated[int, typer.Option(help="How many members to list.")] = 10) -> None:
    """List a run's members and ensembles: `ripieno show run`."""
    from ripieno import pipeline

    held = pipeline.show(run)
    trials = len({m.trial for m in held.members})
    console.out.print(f"{run}: {len(held.members)} members of {trials} trials")
    console.out.print(tables.members(held.members[:top], held.costs, held.metric))
    if held.ensembles:
        console.out.print(tables.ensembles(held.ensembles, held.metric))
    for allocation in held.allocations:
        console.out.print(tables.allocation(allocation))
    if held.ensembles:
        following = f"ripieno allocate {run} {held.ensembles[-1].name} --bundle bundle"
    else:
        following = f"ripieno select {run} --budget B" if held.costs else f"ripieno measure {run}"
    console.closing("", following)


@app.command()
def measure(
    run: Run,
    device: Devices = "cpu",
    prune: Annotated[float, typer.Option(help="Measure the best share of the library only.")] = 0.4,
    family: Trust = None,
) -> None:
    """Time members alone on an idle device: `ripieno measure run`."""
    from ripieno import pipeline

    with console.progress() as progress:
        profiles = pipeline.measure(run, device=device, prune=prune, trusted=family or (), progress=progress)
    console.out.print(tables.profiles(list(profiles.values())))
    costs = sorted(p.cost for p in profiles.values())
    budget = f"{4 * costs[len(costs) // 2]:.2g}"
    console.closing(f"{run}/profiles ({len(profiles)} members)", f"ripieno select {run} --budget {budget}")


@app.command()
def select(
    run: Run,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Seconds that all members together may need for 2,000 images; several may follow.", metavar="B..."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="How members are chosen.")] = "smobf",
    prune: Annotated[float, typer.Option(help="Keep the best share of the library by validation loss.")] = 0.2,
    device: Devices = "cpu",
    family: Trust = None,
) -> None:
    """Choose the most accurate ensemble for each budget: `ripieno select run --budget 5 20`."""
    from ripieno import pipeline

    with console.progress() as progress:
        ensembles = pipeline.select(
            run,
            _budgets(budget, more),
            method=one_of(Method, "--method", method),
            prune=prune,
            device=device,
            trusted=family or (),
            progress=progress,
        )
    console.out.print(tables.ensembles(ensembles, pipeline.show(run).metric))
    wrote = ", ".join(f"{run}/ensembles/{e.name}.json" for e in ensembles)
    console.closing(wrote, f"ripieno allocate {run} {ensembles[-1].name} --bundle bundle")


@app.command()
def allocate(
    run: Run,
    ensemble: Annotated[str, typer.Argument(help="Name of the ensemble, such as B20.")],
    devices: Devices = "auto",
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the deployment; RUN/bundles/ENSEMBLE by default.")
    ] = None,
    max_benches: Annotated[int, typer.Option(help="The most benches algorithm 1 may run.")] = 20,
    backend: Annotated[str, typer.Option(help="`onnx` or `torch`.")] = "onnx",
    family: Trust = None,
) -> None:
    """Place an ensemble on devices and write a deployment: `ripieno allocate run B20 --bundle bundle`."""
    from ripieno import pipeline

    with console.progress() as progress:
        made = pipeline.allocate(
            run,
            ensemble,
            devices=devices,
            bundle=bundle,
            max_benches=max_benches,
            backend=backend,
            trusted=family or (),
            progress=progress,
        )
    console.out.print(tables.allocation(made.allocation))
    if made.allocation.throughput and made.allocation.start_throughput:
        gain = made.allocation.throughput / made.allocation.start_throughput
        console.out.print(
            f"{made.allocation.throughput:.0f} images/s, {gain:.2f} x worst-fit, {made.allocation.benches} benches"
        )
    console.closing(str(made.path), f"ripieno serve {made.path}")


@app.command()
def report(run: Run) -> None:
    """Write a run's report, one HTML file: `ripieno report run`."""
    from ripieno.reports import report as write

    path = write(run)
    console.closing(str(path), f"open {path}")


# verbs on a deployment stand in a file of their own; importing it registers them
from ripieno.cli import deployed as deployed  # noqa: E402
