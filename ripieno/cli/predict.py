"""The command predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ripieno.cli import console, parsing
from ripieno.cli.app import BundleArg, FamilyOpt, PriorOpt, SeriesOpt, TimeOpt, ValueOpt, app, examples
from ripieno.errors import RipienoError
from ripieno.notes import Notes
from ripieno.shell_command import command


@app.command(
    epilog=examples(
        "ripieno predict bundle cat.jpg",
        "ripieno predict bundle photos --output predictions.csv",
        "ripieno predict bundle photos --output masks",
        "ripieno predict bundle --environment gym:CartPole-v1 --output episode.png",
    )
)
def predict(
    bundle: BundleArg,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Images, folders of images, .npy or .npz arrays, series, tables, or data sets", metavar="INPUT..."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File: .csv, .parquet, .npy; a folder of masks; an episode: .gif, .png"),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="Environment to run policies in: gym:ID, gem:ID, module:function", metavar="NAME"),
    ] = None,
    episodes: Annotated[int | None, typer.Option(help="Number of episodes", show_default="12")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first episode", show_default="0")] = None,
    top: Annotated[int, typer.Option(help="Number of samples to list")] = 20,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and name images that cannot be used")] = False,
    overlap: Annotated[
        float | None,
        typer.Option(help="Share of a tile that its neighbour covers, too", show_default="0.25"),
    ] = None,
    resize: Annotated[
        bool, typer.Option("--resize", help="Shrink large pictures instead of cutting them into tiles")
    ] = False,
    coverage: Annotated[
        float | None,
        typer.Option(help="Level of sets or intervals, of those that the bundle has", show_default="the first"),
    ] = None,
    prior: PriorOpt = "trained",
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Predict images without a server.

    With --output, predictions are written while images are read: any number of
    images can be predicted. --json then holds only those that are listed.

    --prior auto corrects predictions where classes are more or less frequent
    than in training. It needs all predictions in memory, the more the better.

    A segmentation writes a mask for each picture, an indexed PNG of its size, to
    the folder --output. Pictures that are larger than the network's input are cut
    into tiles that overlap.

    Policies are run in an --environment, in place of INPUT: the returns of
    episodes are listed, and --output gets the video or a plot of the first one.
    """
    from ripieno.data.long_table import SeriesColumns
    from ripieno.data.tiles import OVERLAP
    from ripieno.library import read_bundle
    from ripieno.pipeline.mask_prediction import predict_masks
    from ripieno.pipeline.prediction import PredictionBatch, Prior, check_prior, stream_predictions
    from ripieno.pipeline.prediction_files import check_output, prediction_writer
    from ripieno.pipeline.prediction_tables import TABLES
    from ripieno.pipeline.runs import refuse_policies
    from ripieno.tasks.registry import kind_of

    parsing.at_least("--top", top)
    if environment is not None:
        _run_episodes(bundle, environment, images, output, episodes, seed, family or ())
        return
    if episodes is not None or seed is not None:
        raise RipienoError("--episodes and --seed are for policies: give their --environment")
    if not images:
        raise RipienoError("nothing to predict: give images, series or rows as INPUT, or of policies an --environment")
    deployment = read_bundle(bundle, family or ())
    refuse_policies(deployment.task, "predict without --environment")
    shares = parsing.parse_choice(Prior, "--prior", prior)
    check_prior(deployment, shares)
    if output is not None:
        check_output(output, deployment.task, images)
    has_masks = kind_of(deployment.task).is_pixelwise
    if not has_masks and (resize or overlap is not None):
        option = "--resize" if resize else "--overlap"
        raise RipienoError(f"{option} is for segmentations, but {bundle} is of a {deployment.task.kind}; leave it out")
    if has_masks and coverage is not None:
        raise RipienoError("--coverage is not for segmentations: a server returns sets of pixels; leave it out")
    source = images[0] if len(images) == 1 else images
    form, count = TABLES[deployment.task.kind], 0
    records: list[dict[str, Any]] = []
    kept = top if output is not None or not console.output_mode.json else None
    with ExitStack() as stack:
        append = stack.enter_context(prediction_writer(output, deployment)) if output is not None else None
        progress = stack.enter_context(console.progress())
        notes = Notes(console.warn)
        stream: Iterator[PredictionBatch]
        if has_masks:
            share = OVERLAP if overlap is None else overlap
            stream = predict_masks(
                deployment, source, skip_bad=skip_bad, notes=notes, progress=progress, resize=resize, overlap=share
            )
        else:
            columns = SeriesColumns(series or "", time or "", tuple(parsing.parse_names(value)))
            stream = stream_predictions(
                deployment,
                source,
                skip_bad=skip_bad,
                notes=notes,
                progress=progress,
                columns=columns,
                coverage=coverage,
                prior=shares,
            )
        for batch in stream:
            count += len(batch.names)
            if append is not None:
                append(batch)
            if kept is None or len(records) < kept:
                records += form.records(batch, deployment)
    console.out.print(_table(f"{count} samples", records[:top]))
    console.print_result(output or "", command("serve", bundle), predictions=records[:kept], samples=count)


def _run_episodes(
    bundle: Path,
    environment: str,
    images: Sequence[Path] | None,
    output: Path | None,
    episodes: int | None,
    seed: int | None,
    family: Sequence[str],
) -> None:
    """Run a bundle of policies in an environment, and list the episodes."""
    import statistics

    from ripieno.pipeline.episodes import EPISODES, run_episodes

    if images:
        raise RipienoError(f"--environment and {images[0]}: policies are run in an environment, which needs no INPUT")
    with console.progress() as progress:
        found = run_episodes(
            bundle, environment, episodes=EPISODES if episodes is None else episodes, seed=seed or 0, output=output,
            trusted=(*family, environment), progress=progress,
        )  # fmt: skip
    records = [{"seed": e.seed, "return": e.episode_return, "steps": e.steps} for e in found]
    returns = [e.episode_return for e in found]
    spread = statistics.stdev(returns) if len(returns) > 1 else 0.0
    title = f"{environment}: mean return {statistics.fmean(returns):.5g}, standard deviation {spread:.4g}"
    console.out.print(_table(title, records))
    console.print_result(output or "", command("serve", bundle), episodes=records)


def _table(title: str, records: Sequence[dict[str, Any]]) -> Table:
    """Return a table of records: several values of a field become several columns, several labels one cell."""
    rows = [_flat(record) for record in records]
    view = console.table(title, *rows[0])
    for row in rows:
        view.add_row(*row.values())
    return view


def _flat(record: dict[str, Any]) -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            suffix = "" if name == "values" else f"_{name}"
            cells |= {inner + suffix: f"{number:.5g}" for inner, number in value.items()}
        elif isinstance(value, list):
            cells[name] = ", ".join(value) or "-"
        else:
            cells[name] = f"{value:.4f}" if isinstance(value, float) else str(value)
    return cells
