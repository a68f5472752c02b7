"""The commands select and front."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.app import DeviceOpt, FamilyOpt, RunArg, app, examples
from ripieno.notes import Notes
from ripieno.selection.validation import Calibrate, Loss, SelectionMethod
from ripieno.shell_command import command
from ripieno.types import Combiner

MethodOpt = Annotated[
    str | None,
    typer.Option("--method", help="Method: smobf-r (default), smobf, swap, forward, replacement, top-k, best, exact"),
]
StartsOpt = Annotated[int, typer.Option("--starts", help="Number of best single members that smobf-r starts from")]
CalibrateOpt = Annotated[
    str | None,
    typer.Option("--calibrate", help="Calibration: members (default), joint or none (default with --method)"),
]
CvOpt = Annotated[
    int | None, typer.Option("--cv", help="Folds of the expected loss, 0 for none; by default 5, with --method 0")
]
PixelsOpt = Annotated[
    int | None,
    typer.Option("--pixels", help="Pixels of each image to select a segmentation by", show_default="all"),
]
PruneOpt = Annotated[
    float, typer.Option("--prune", help="Share of the library to consider, best first; at least 20 members")
]
LossOpt = Annotated[str | None, typer.Option("--loss", help="Loss to minimise, of the run's task; by default its own")]
CombinerOpt = Annotated[
    str | None,
    typer.Option(
        "--combiner",
        help="Combiner: mean, vote or median; of policies mean, vote, probability, value",
        show_default="mean; of policies the best that fits",
    ),
]
CoverageOpt = Annotated[
    str,
    typer.Option(
        "--coverage", help="Share of prediction sets or intervals that hold the truth: 0.9,0.95", metavar="SHARES"
    ),
]
PerClassOpt = Annotated[bool, typer.Option("--per-class", help="Hold the coverage for each class or label by itself")]
ScoreOpt = Annotated[
    str | None,
    typer.Option(
        "--score",
        help="Order of answers in a set: lac, aps, raps, fnr, spread, residual, root",
        show_default="by the task",
    ),
]
AbstainOpt = Annotated[
    float | None, typer.Option("--abstain", help="Mark samples, so that the error of the others is at most this")
]


@app.command(epilog=examples("ripieno select run --budget 5 20", "ripieno select run --budget seconds=20 memory=4GiB"))
def select(
    run: RunArg,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Budgets in seconds per 2,000 samples, or one budget of COST=BOUND pairs", metavar="B..."),
    ] = None,
    method: MethodOpt = None,
    prune: PruneOpt = 0.2,
    size: Annotated[int | None, typer.Option(help="Number of members")] = None,
    loss: LossOpt = None,
    combiner: CombinerOpt = None,
    starts: StartsOpt = 8,
    calibrate: CalibrateOpt = None,
    cv: CvOpt = None,
    pixels: PixelsOpt = None,
    coverage: CoverageOpt = "",
    per_class: PerClassOpt = False,
    score: ScoreOpt = None,
    abstain: AbstainOpt = None,
    device: DeviceOpt = "cpu",
    family: FamilyOpt = None,
) -> None:
    """Select the most accurate ensemble for each budget.

    A budget bounds the total cost of all members. Kinds of cost are seconds,
    memory, latency, joules, parameters, flops, bytes and your own.

    --coverage and --abstain are explained by the command coverage.
    """
    from ripieno import pipeline

    with console.progress() as progress:
        ensembles = pipeline.select(
            run,
            parsing.budgets(budget or (), more or ()),
            method=None if method is None else parsing.parse_choice(SelectionMethod, "--method", method),
            prune=prune,
            size=size,
            loss=cast(Loss | None, loss),  # checked there, by the task of the run
            combiner=None if combiner is None else parsing.parse_choice(Combiner, "--combiner", combiner),
            starts=starts,
            calibrate=None if calibrate is None else parsing.parse_choice(Calibrate, "--calibrate", calibrate),
            cv=cv,
            pixels=pixels,
            **parsing.coverage_options(coverage, per_class, score, abstain),
            device=device,
            trusted=family or (),
            progress=progress,
            notes=Notes(console.warn),
        )
    console.out.print(tables.ensembles(ensembles, pipeline.metric_of(pipeline.open_run(run))))
    if any(e.coverage or e.abstain for e in ensembles):
        console.out.print(tables.coverages(ensembles))
    following = command("allocate", run, ensembles[-1].name, bundle="bundle")
    console.print_result([f"{run}/ensembles/{e.name}.json" for e in ensembles], following, ensembles=ensembles)


@app.command(epilog=examples("ripieno front run"))
def front(
    run: RunArg,
    cost: Annotated[
        str | None, typer.Option(help="Kind of cost: seconds, memory, latency, joules, parameters, flops, bytes")
    ] = None,
    points: Annotated[int, typer.Option(help="Number of budgets to try")] = 20,
    method: MethodOpt = None,
    prune: PruneOpt = 0.2,
    loss: LossOpt = None,
    combiner: CombinerOpt = None,
    starts: StartsOpt = 8,
    calibrate: CalibrateOpt = None,
    cv: CvOpt = None,
    pixels: PixelsOpt = None,
    device: DeviceOpt = "cpu",
    family: FamilyOpt = None,
    kind: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Find the best ensemble for every budget in one sweep."""
    from ripieno import pipeline
    from ripieno.selection import round_budget

    if kind is not None:
        console.warn("--kind is now --cost; the old name goes with the next version.")
        cost = kind
    with console.progress() as progress:
        result = pipeline.front(
            run,
            cost=cost,
            points=points,
            method=None if method is None else parsing.parse_choice(SelectionMethod, "--method", method),
            prune=prune,
            loss=cast(Loss | None, loss),  # checked there, by the task of the run
            combiner=None if combiner is None else parsing.parse_choice(Combiner, "--combiner", combiner),
            starts=starts,
            calibrate=None if calibrate is None else parsing.parse_choice(Calibrate, "--calibrate", calibrate),
            cv=cv,
            pixels=pixels,
            device=device,
            trusted=family or (),
            progress=progress,
            notes=Notes(console.warn),
        )
    console.out.print(tables.ensembles(result.ensembles, pipeline.metric_of(pipeline.open_run(run)), result.cost))
    middle = result.ensembles[len(result.ensembles) // 2].cost[result.cost]
    bound = f"{round_budget(middle, 3):g}"
    bound = bound if result.cost == "seconds" else f"{result.cost}={bound}"
    console.print_result(f"{run}/front.json", command("select", run, budget=bound), front=result)
