"""The command augment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console, parsing
from ripieno.cli.app import app, examples
from ripieno.notes import Notes
from ripieno.pipeline.execution import ExecutionConfig, PoolName
from ripieno.pipeline.policy_search import EPOCHS, PolicyOptions, search_policy
from ripieno.shell_command import command
from ripieno.tasks.metrics import METRICS
from ripieno.types import DataKind


@app.command(epilog=examples("ripieno augment run --minutes 10", "ripieno augment images/ --run run --trials 40"))
def augment(
    data: Annotated[str | None, typer.Argument(help="Folder of a run, or data as tune takes them")] = None,
    run: Annotated[Path, typer.Option(help="Folder of the run")] = Path("run"),
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of search and comparison", show_default="5 without --trials")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Number of policies to try")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the policy", show_default="augmentation.json in the run")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs of a small network")] = EPOCHS,
    seed: Annotated[int, typer.Option(help="Seed")] = 0,
    slots: Annotated[
        int | None, typer.Option(help="Networks to train at a time", show_default="one per core or GPU")
    ] = None,
    pool: Annotated[str, typer.Option(help="Pool: local (a process per slot), inline or ray")] = ExecutionConfig.pool,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu or cuda")] = ExecutionConfig.device,
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels per side")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task: classification, multilabel, regression or segmentation", show_default="inferred, or the run's"
        ),
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Column of targets; repeatable")] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of data: image, series or table", show_default="by the data, or the run's"),
    ] = None,
) -> None:
    """Learn a policy of augmentation, and compare it with none.

    Small networks, trained for a few epochs on a part of the training samples,
    search three operations with their probabilities and magnitudes. The best
    policy is compared with none on validation samples that the search has not
    seen. tune --augmentation FILE trains with it.

    Repeat a command that was stopped: it goes on where it was. Its files are in
    RUN/augment; the small networks are no members of the run.
    """
    from ripieno.cli.progress import progress_callback
    from ripieno.pipeline.preparation import DataOptions

    if data is not None and (Path(data) / "dataset" / "dataset.json").exists():
        run, data = Path(data), None
    options = PolicyOptions(minutes, trials, epochs, seed, out)
    execution = ExecutionConfig(pool=parsing.parse_choice(PoolName, "--pool", pool), device=device, slots=slots)
    kept = None if kind is None else parsing.parse_choice(DataKind, "--kind", kind)
    wanted = DataOptions(size=size, task=task, target=target or None, kind=kept)
    notes = Notes(console.warn)
    with console.progress() as progress, progress_callback(run / "augment" / "search") as watch:
        result = search_policy(data, run, options, execution, wanted, progress, notes, watch)
    view = console.table(f"policy of {result.trials} tried", "operation", "probability", "magnitude")
    for step in result.policy.steps:
        view.add_row(step.operation, f"{step.probability:.2f}", f"{step.magnitude:.2f}")
    console.out.print(view)
    low, high = result.interval
    title = METRICS[result.metric].title
    console.say(
        f"{title} of {result.samples:,} held-out samples: {result.loss:.4f} with the policy, "
        f"{result.loss_without:.4f} without; difference {result.difference:+.4f} "
        f"(95 % interval {low:+.4f} to {high:+.4f}, {result.pairs} pairs of networks)"
    )
    console.say(result.verdict)
    following = command("tune", run=run, augmentation=result.path)
    if (run / "run.json").exists():  # whose search has other settings
        following = command("tune", run / "dataset", run=f"{run}-augmented", augmentation=result.path)
    fields = ("metric", "loss", "loss_without", "difference", "interval", "pairs", "samples", "trials", "is_better")
    console.print_result(
        result.path,
        following,
        f"a policy of {len(result.policy.steps)} steps",
        policy=result.policy,
        **{name: getattr(result, name) for name in fields},
    )
