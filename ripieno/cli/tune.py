"""The command tune."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console, parsing, tables
from ripieno.cli.algorithm import BeamOpt, EtaOpt, FirstOpt, KeepOpt, MacroOpt, StepOpt
from ripieno.cli.app import ColumnOpt, DropOpt, IgnoreOpt, SeriesOpt, SplitByOpt, TimeOpt, ValueOpt, app, examples
from ripieno.cli.command import tune_configuration
from ripieno.config import pick
from ripieno.notes import Notes
from ripieno.pipeline.execution import ExecutionConfig


@app.command(
    epilog=examples(
        "ripieno tune images/ --run run --hours 1",
        "ripieno tune images/ --run run --budget 5",
        "ripieno tune faces.csv --target age --run run",
        "ripieno tune GunPoint_TRAIN.ts --run run",
        "ripieno tune streets/ --ignore void --run run",
        "ripieno tune adult.csv --target income --run run",
        "ripieno tune letters/ --run next --from run",
        "ripieno tune gym:CartPole-v1 --task policy --run run",
        "ripieno tune --command 'solver {instance} --a {a}' --instances cnf --cutoff 60 --space space.json",
        "ripieno tune --run run",
    )
)
def tune(
    data: Annotated[
        str | None,
        typer.Argument(help="Images (and masks), series, tables, .npz, CIFAR, idx, prepared; or gym:ID"),
    ] = None,
    run: Annotated[Path, typer.Option(help="Folder of the run; a run that exists is resumed")] = Path("run"),
    hours: Annotated[
        float | None, typer.Option(help="Hours to search", show_default="1 without --trials, or the run's")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Number of trials to start")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of epochs (or the trainer's steps or rounds) of a trial",
            show_default="27, fewer for a short fine-tuning, or the run's",
        ),
    ] = None,
    space: Annotated[str, typer.Option(help="Search space: auto, a name or a JSON file")] = "auto",
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="Algorithm: a name, SCHEDULER+SAMPLER, or a JSON file: see ripieno algorithm",
            show_default="hyperband, or the run's",
        ),
    ] = None,
    step: StepOpt = None,
    keep: KeepOpt = None,
    eta: EtaOpt = None,
    first: FirstOpt = None,
    beam: BeamOpt = None,
    macro: MacroOpt = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed; the same seed and trials give the same library", show_default="0, or the run's"),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(help="Trials to run at a time", show_default="one per core or GPU")
    ] = None,
    pool: Annotated[str, typer.Option(help="Pool: local (a process per slot), inline or ray")] = ExecutionConfig.pool,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu or cuda")] = ExecutionConfig.device,
    per_device: Annotated[int, typer.Option(help="Trials that share a GPU")] = ExecutionConfig.per_device,
    address: Annotated[
        str, typer.Option(help="Address of the Ray cluster; local starts one for the run")
    ] = ExecutionConfig.address,
    cpus: Annotated[float, typer.Option(help="Cores per trial on the Ray cluster")] = ExecutionConfig.cpus,
    limit: Annotated[
        float | None, typer.Option(help="Timeout in seconds per epoch; the trial fails when it is exceeded")
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Bound of each trial, such as bytes<=4MiB or latency<=0.01; repeatable"),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Networks: timm:NAME, unet, smp:NET/ENCODER, or yours (module:function)"),
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            help="Trainer: network, trees:NAME (trees:lightgbm), policy, or your module:Class",
            show_default="network, or the space's",
        ),
    ] = None,
    free: Annotated[
        str, typer.Option(help="Begin a search of small inputs with trees, which take seconds: on or off")
    ] = "on",
    without: Annotated[
        list[str] | None,
        typer.Option(help="Augmentation to leave out, such as flip or rotate; repeatable"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Pretrained weights of timm and smp networks: file, folder, or hub (downloads)",
            show_default="the run's, or random",
        ),
    ] = None,
    augmentation: Annotated[
        Path | None,
        typer.Option(help="Policy of augmentation (.json), such as of ripieno augment", show_default="the run's"),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="What an ensemble may cost, as select takes it: 5, or seconds=20,memory=4GiB",
            show_default="none, or the run's",
            metavar="B",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Objectives, such as loss,flops; promotes what no other trial dominates",
            show_default="loss, or the run's",
        ),
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option("--from", help="Earlier run of the same space to learn from, or built-in; repeatable"),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Folder of records of runs to learn from: see history", show_default="RIPIENO_HISTORY"),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Resize images to this many pixels per side")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of train, validation and test",
            show_default="0.72,0.08,0.20 with 20 validation images a class, or the run's",
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds in place of a validation split: auto, 0 for none, or 2 to 20",
            show_default="auto (small sets of series and tables), or the run's",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Score to show, such as accuracy, macro-f1 or rmse; trials are ranked by loss",
            show_default="the task's first, or the run's",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task: classification, multilabel, regression, segmentation or policy",
            show_default="inferred, or the run's",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Column of targets; repeatable", show_default="of images and series: all but file and split"),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="Kind of data: image, series or table", show_default="by the data, or the run's"),
    ] = None,
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    drop: DropOpt = None,
    column: ColumnOpt = None,
    split_by: SplitByOpt = None,
    leave_out: Annotated[
        Path | None,
        typer.Option(help="List (.csv) of samples to leave out of training and validation: see suspects"),
    ] = None,
    ignore: IgnoreOpt = None,
    episodes: Annotated[
        int | None,
        typer.Option(help="Episodes that validate a policy, and as many that test it", show_default="12, or the run's"),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="Program to configure, with {instance} and a {NAME} for each range of --space"),
    ] = None,
    instances: Annotated[Path | None, typer.Option(help="Folder of the instances of --command")] = None,
    cutoff: Annotated[float | None, typer.Option(help="Seconds after which a run of --command is killed")] = None,
    measure: Annotated[
        str | None,
        typer.Option(help="What --command makes small: runtime (PAR10) or its last output", show_default="runtime"),
    ] = None,
    skip_bad: Annotated[bool, typer.Option(help="Skip broken and missing images and count them")] = False,
    log: Annotated[
        list[str] | None, typer.Option(help="Log trials to tensorboard (RUN/tensorboard) or mlflow; repeatable")
    ] = None,
) -> None:
    """Search hyperparameters and keep every trained network.

    A run that exists is resumed with its data and settings; it needs no DATA.

    Search spaces are resnet, resnet-small, resnet-tiny, resnet-paper, timm,
    timm-small, series, table, segmentation, segmentation-small,
    segmentation-pretrained, cell, cell-series, cell-segmentation, lightgbm,
    random-forest, extra-trees and policy; auto takes the run's, or one that
    suits the trainer, the family, the data and the device.

    With --task policy, DATA is an environment: gym:ID of Gymnasium, gem:ID of
    gym-electric-motor, or your own module:function.

    --budget trains no network that costs more alone: see select for the kinds.

    Objectives are loss, metrics of the task, numbers that your own trainer
    reports, and the costs train_seconds, flops, parameters, bytes, seconds,
    latency and memory.

    A new search learns from the runs of --from and the records of --history:
    their best configurations are its first trials. built-in is the portfolio
    that comes with a built-in space.

    With --command there is no DATA: trials run a program, an instance a unit. See
    docs/commands.md.

    --log mlflow writes to the server in the variable MLFLOW_TRACKING_URI.
    """
    given = locals()
    if tune_configuration(given, {name: one.default for name, one in inspect.signature(tune).parameters.items()}):
        return
    given["split"] = None if split is None else parsing.parse_ratios("--split", split)
    given["folds"] = None if folds is None else parsing.parse_folds("--folds", folds)
    given |= parsing.parse_data_options(given)
    given["budget"] = parsing.one_budget(budget)
    given["skip_bad"] = skip_bad or None
    given["without"] = without or None
    from ripieno import pipeline
    from ripieno.cli.front_view import front_table, next_commands
    from ripieno.cli.progress import logging_callbacks, progress_callback, summary, to_dict
    from ripieno.pipeline.preparation import DataOptions
    from ripieno.pipeline.search_options import SearchOptions
    from ripieno.pipeline.soups import has_untried
    from ripieno.pipeline.tuning import search_library
    from ripieno.search.callbacks import combine_callbacks

    notes = Notes(console.warn)  # printed at once: skipped data is reported before the search starts
    loggers, view_commands = logging_callbacks(log or (), run)
    with console.progress() as progress, progress_callback(run) as watch:
        library = search_library(
            data,
            run,
            search=pick(SearchOptions, given),
            execution=pick(ExecutionConfig, given),
            data_options=pick(DataOptions, given),
            progress=progress,
            notes=notes,
            watch=combine_callbacks(watch, *loggers, lost=notes.append),
        )
    ranked = sorted(library.members(), key=lambda m: (m.loss, m.id))
    console.out.print(summary(watch, run))
    console.out.print(tables.members(ranked[:5], {}, {}, pipeline.metric_of(library)))
    console.out.print(tables.stall_line(ranked))
    if watch.last is not None and watch.last.front is not None:
        console.out.print(front_table(watch.last.front))
    front = None if watch.last is None else watch.last.front
    selecting, following = next_commands(library, run, front, has_untried=has_untried(library))
    if selecting:
        console.say("select ", (selecting, "bold cyan"))
    for line in view_commands:
        console.say("view  ", (line, "bold cyan"))
    members = [tables.member_dict(m) for m in ranked]
    console.print_result(run, following, f"{len(ranked)} members", **to_dict(watch), library=members)
