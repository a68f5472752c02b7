"""The commands reselect and reweight."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ripieno.cli import console, parsing
from ripieno.cli.app import BundleArg, FamilyOpt, IgnoreOpt, SeriesOpt, TimeOpt, ValueOpt, app, examples
from ripieno.errors import RipienoError
from ripieno.notes import Notes
from ripieno.shell_command import command
from ripieno.tasks.metrics import METRICS

if TYPE_CHECKING:
    from ripieno.pipeline.reselection import Reselection

RecentOpt = Annotated[Path, typer.Option("--recent", help="Recent data with targets, as for evaluate", metavar="DATA")]
ServerOpt = Annotated[str | None, typer.Option("--server", help="URL of the server to reload", metavar="URL")]
ModelOpt = Annotated[str, typer.Option("--model", help="Name of the server's model")]
ServerTokenOpt = Annotated[
    str | None,
    typer.Option("--token", envvar="RIPIENO_TOKEN", help="Token of the server; safer in the environment variable"),
]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write no bundle")]
SeedOpt = Annotated[int, typer.Option("--seed", help="Seed of the two halves")]
SplitOpt = Annotated[str, typer.Option("--split", help="Samples: train, valid, test, all, or auto as for evaluate")]
TargetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="Column of targets of a table of rows; repeatable", show_default="all but the inputs"
    ),
]


@app.command(
    epilog=examples(
        "ripieno reselect run bundle --recent labelled --dry-run",
        "# bundle is a link: ln -s bundle-1 bundle",
        "ripieno reselect run newer-run bundle --recent labelled --server http://127.0.0.1:8000",
    )
)
def reselect(
    folders: Annotated[
        list[Path], typer.Argument(help="Runs to select from, then the bundle", metavar="RUN... BUNDLE")
    ],
    recent: RecentOpt,
    server: ServerOpt = None,
    model: ModelOpt = "ensemble",
    token: ServerTokenOpt = None,
    dry_run: DryRunOpt = False,
    seed: SeedOpt = 0,
    split: SplitOpt = "all",
    target: TargetOpt = None,
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    ignore: IgnoreOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Select a bundle's ensemble again by recent labelled data.

    All members of the runs that fit the bundle's budget predict the data. One
    half selects, the other judges. The new bundle is another folder.

    If BUNDLE is a link, it is turned to the new one, and the server reloads it,
    but only if the paired gain on the judging half exceeds 1.64 standard errors.
    Otherwise the commands that do it are printed.
    """
    from ripieno import pipeline

    *runs, bundle = folders
    if not runs:
        raise RipienoError(
            "reselect needs a run and a bundle: ripieno reselect RUN BUNDLE; of the deployed members alone: "
            f"{command('reweight', bundle, recent=recent)}"
        )
    options = _options(model, token, dry_run, seed, split, target, series, time, value, ignore, family)
    _run(functools.partial(pipeline.reselect, runs, bundle, recent, server=server, **options), bundle, recent, dry_run)


@app.command(epilog=examples("ripieno reweight bundle --recent labelled"))
def reweight(
    bundle: BundleArg,
    recent: RecentOpt,
    server: ServerOpt = None,
    model: ModelOpt = "ensemble",
    token: ServerTokenOpt = None,
    dry_run: DryRunOpt = False,
    seed: SeedOpt = 0,
    split: SplitOpt = "all",
    target: TargetOpt = None,
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    ignore: IgnoreOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Weigh a bundle's members again by recent labelled data.

    It is reselect with the deployed members only: no run is needed. Members of
    weight 0 are left out; of a median, which has no weights, some are chosen.
    """
    from ripieno import pipeline

    options = _options(model, token, dry_run, seed, split, target, series, time, value, ignore, family)
    _run(functools.partial(pipeline.reweight, bundle, recent, server=server, **options), bundle, recent, dry_run)


def _options(
    model: str,
    token: str | None,
    dry_run: bool,
    seed: int,
    split: str,
    target: list[str] | None,
    series: str | None,
    time: str | None,
    value: list[str] | None,
    ignore: list[str] | None,
    family: list[str] | None,
) -> dict[str, Any]:
    """Return the arguments that both functions share."""
    from ripieno.data.evaluation_data import EvaluationSplit
    from ripieno.data.long_table import SeriesColumns

    if seed < 0:
        raise RipienoError(f"--seed {seed}: it must be at least 0")
    return {
        "model": model,
        "token": token,
        "dry_run": dry_run,
        "seed": seed,
        "split": parsing.parse_choice(EvaluationSplit, "--split", split),
        "columns": SeriesColumns(series or "", time or "", tuple(parsing.parse_names(value))),
        "target": target or (),
        "ignore": ignore or (),
        "trusted": family or (),
    }


def _run(call: Callable[..., Reselection], bundle: Path, recent: Path, dry_run: bool) -> None:
    """Run `call` and print its result."""
    with console.progress() as progress:
        found = call(progress=progress, notes=Notes(console.warn))
    samples = f"{found.judging_samples:,} recent samples that chose neither"
    table = console.table(samples, "ensemble", *(METRICS[name].title for name in found.scores), "members")
    for title, scores, ensemble in (
        ("deployed", found.deployed_scores, found.deployed),
        ("new", found.scores, found.ensemble),
    ):
        cells = (METRICS[name].format(score) for name, score in scores.items())
        table.add_row(title, *cells, ", ".join(ensemble.members))
    console.out.print(table)
    console.say(
        f"{found.candidates} members, selected by {found.selection_samples:,} samples; gain {found.gain:.4g} in "
        f"{found.loss}, {found.standard_error:.2g} standard error"
    )
    _say_verdict(found, bundle, dry_run)
    following = command("evaluate", bundle, recent)
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    result = {**fields, "gain": found.gain, "is_better": found.is_better}
    console.print_result(found.path or "", following, **result)


def _say_verdict(found: Reselection, bundle: Path, dry_run: bool) -> None:
    """Print what was done and what was not, with the commands that do or undo it."""
    if not found.differs:
        console.say("the deployed ensemble is selected again: nothing changes")
        return
    verdict = (
        "better beyond chance"
        if found.is_better
        else "not better beyond chance (1.64 standard errors, and no more errors)"
    )
    console.say(f"the new ensemble is {verdict}")
    if dry_run:
        turns = bundle.is_symlink() and found.is_better
        console.say("without --dry-run a new bundle would be written, " + ("and served" if turns else "but not served"))
    elif found.switched:
        console.say(f"{bundle} is now the new bundle" + (", which the server loaded" if found.reloaded else ""))
        console.say("back  ", (" && ".join(found.back), "bold"))
    else:
        why = "" if bundle.is_symlink() or not found.is_better else f": {bundle} is a folder, no link"
        console.say(f"{bundle} is served as before{why}; to serve the new one:")
        console.say("      ", (" && ".join(found.switch), "bold"))
        console.say("back  ", (" && ".join(found.back), "bold"))
