"""The command evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table

from ripieno.cli import console, parsing
from ripieno.cli.app import BundleArg, FamilyOpt, IgnoreOpt, PriorOpt, SeriesOpt, TimeOpt, ValueOpt, app, examples
from ripieno.notes import Notes
from ripieno.shell_command import command
from ripieno.tasks.metrics import METRICS
from ripieno.tasks.registry import kind_of

if TYPE_CHECKING:
    from ripieno.pipeline.evaluation import BundleEvaluation
    from ripieno.tasks.observed_coverage import ObservedCoverage
    from ripieno.types import Ints

MOST_CLASSES = 20
"""Classes of the confusion matrix at most, however wide the terminal."""
GAP = 2
"""Blanks between columns."""
OTHERS = "others"
"""Name of the classes that do not fit, in the confusion matrix."""


@app.command(epilog=examples("ripieno evaluate bundle photos", "ripieno evaluate bundle run/dataset --split test"))
def evaluate(
    bundle: BundleArg,
    data: Annotated[
        Path,
        typer.Argument(help="Data with targets, as for tune: a folder of class folders, a data set", metavar="DATA"),
    ],
    split: Annotated[
        str, typer.Option(help="Samples: train, valid, test or all; auto: test where there is one, else all")
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(help="Column of targets of a table of rows; repeatable", show_default="all but the inputs"),
    ] = None,
    unknown: Annotated[
        Path | None,
        typer.Option(help="Inputs unlike those of training: measure how well uncertainty tells them"),
    ] = None,
    prior: PriorOpt = "trained",
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    ignore: IgnoreOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Compare a bundle's predictions with the targets of a data set.

    Scores have 95 % intervals from 1,000 bootstrap resamples of the samples. The
    confusion matrix shows as many classes as fit, those most often confused. The
    calibration error and the coverage of prediction sets are measured, too.
    """
    from ripieno import pipeline
    from ripieno.data.evaluation_data import EvaluationSplit
    from ripieno.data.long_table import SeriesColumns
    from ripieno.pipeline.prediction import Prior

    known = parsing.parse_choice(EvaluationSplit, "--split", split)
    columns = SeriesColumns(series or "", time or "", tuple(parsing.parse_names(value)))
    with console.progress() as progress:
        found = pipeline.evaluate(
            bundle,
            data,
            split=known,
            trusted=family or (),
            notes=Notes(console.warn),
            columns=columns,
            target=target or (),
            ignore=ignore or (),
            unknown=unknown,
            prior=parsing.parse_choice(Prior, "--prior", prior),
            progress=progress,
        )
    console.out.print(_scores(found))
    console.out.print(_rows(found))
    for level, rows in found.coverage.items():
        console.out.print(_coverage(found, level, rows))
    if found.unknown:
        console.out.print(_unknown(found))
    if found.prior is not None:
        console.out.print(_shares(found))
    counts = found.confusion()
    if counts is not None:
        console.out.print(confusion_table(found, counts, console.out.width))
    console.print_result(
        "",
        command("predict", bundle, data),
        split=found.split,
        samples=found.samples,
        resamples=found.resamples,
        scores=found.scores,
        rows=list(found.rows),
        calibration=found.calibration,
        risk_coverage_area=found.risk_coverage_area,
        coverage={f"{level:g}": list(rows) for level, rows in found.coverage.items()},
        unknown={name: area._asdict() for name, area in found.unknown.items()},
        unknown_samples=found.unknown_samples,
        prior=None if found.prior is None else dict(zip(found.task.names, found.prior.estimated.tolist(), strict=True)),
        confusion=None if counts is None else counts.tolist(),
    )


def _scores(found: BundleEvaluation) -> Table:
    view = console.table(f"scores on {found.samples:,} samples ({found.split})", "score", "value", "95 % interval")
    for name, score in found.scores.items():
        value, low, high = map(METRICS[name].format, (score.value, score.low, score.high))
        view.add_row(METRICS[name].title, value, f"{low} to {high}")
    if (area := found.risk_coverage_area) is not None:
        view.add_row("area under risk-coverage", f"{area.value:.4g}", f"{area.low:.4g} to {area.high:.4g}")
    return view


def _coverage(found: BundleEvaluation, level: float, rows: Sequence[ObservedCoverage]) -> Table:
    """Return the coverage of one level; the interval is binomial."""
    has_classes = kind_of(found.task).activation != "identity"
    name, size = (next(iter(found.rows[0])), "set size") if has_classes else ("target", "width")
    view = console.table(f"coverage of {level:.4g}", name, "samples", "coverage", "95 % interval", size)
    for row in rows:
        held = f"{row.value:.1%}", f"{row.low:.1%} to {row.high:.1%}"
        view.add_row(row.name, f"{row.samples:,}", *held, f"{row.size:.4g}")
    return view


def _unknown(found: BundleEvaluation) -> Table:
    """Return the areas under the ROC curves of known against unknown samples."""
    title = f"{found.samples:,} known samples against {found.unknown_samples:,} unknown ones"
    view = console.table(title, "by", "AUROC", "95 % interval")
    for name, area in found.unknown.items():
        view.add_row(name, f"{area.value:.4f}", f"{area.low:.4f} to {area.high:.4f}")
    return view


def _shares(found: BundleEvaluation) -> Table:
    """Return the shares of the classes that predictions were corrected to, those that changed most first."""
    assert found.prior is not None
    trained, estimated = found.prior.trained, found.prior.estimated
    title = f"shares of classes, estimated from {found.prior.answers:,} predictions without their targets"
    view = console.table(title, "class", "trained" if found.prior.known else "assumed", "estimated")
    for i in np.argsort(-np.abs(estimated - trained), kind="stable")[:MOST_CLASSES]:
        view.add_row(found.task.names[i], f"{trained[i]:.1%}", f"{estimated[i]:.1%}")
    return view


def _rows(found: BundleEvaluation) -> Table:
    view = console.table("by " + next(iter(found.rows[0])), *found.rows[0])
    for row in found.rows:
        view.add_row(*map(_cell, row.values()))
    return view


def _cell(value: str | int | float | None) -> str:
    """Return a figure as text; a dash for one that is not defined."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def confusion_table(found: BundleEvaluation, counts: Ints, width: int) -> Table:
    """Return the confusion matrix, `counts` of true and predicted classes, with as many classes as fit `width` columns.

    The classes shown are those most often confused, at least two; the rest are merged. Of pixels it has shares of the
    true class.
    """
    from ripieno.reports.confusion import merge_classes, most_wrong

    names, pixelwise = found.task.names, kind_of(found.task).is_pixelwise
    digits = len("100.0") if pixelwise else len(f"{found.samples:,}")
    for count in range(min(MOST_CLASSES, len(names)), 1, -1):
        shown = most_wrong(counts, count)
        columns = [names[c] for c in shown] + [OTHERS] * (count < len(names))
        if max(map(len, columns)) + sum(GAP + max(len(name), digits) for name in columns) <= width:
            break
    rows = "true, in % of its pixels" if pixelwise else "true"
    most = f", the {len(shown)} of {len(names)} most often confused" if len(shown) < len(names) else ""
    view = console.table(f"confusion of classes (rows: {rows}{most})", "", *columns)
    for name, row in zip(columns, merge_classes(counts, shown), strict=True):
        shares = 100 * row / max(1, row.sum())
        view.add_row(name, *(f"{n:.1f}" if pixelwise else f"{n:,}" for n in (shares if pixelwise else row)))
    return view
