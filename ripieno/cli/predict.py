"""The command predict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ripieno.cli import console, parsing
from ripieno.cli.app import BundleArg, FamilyOpt, SeriesOpt, TimeOpt, ValueOpt, app, examples
from ripieno.notes import Notes
from ripieno.shell_command import command


@app.command(
    epilog=examples("ripieno predict bundle cat.jpg", "ripieno predict bundle photos --output predictions.csv")
)
def predict(
    bundle: BundleArg,
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Images, folders of images, .npy or .npz arrays, series, tables, or data sets", metavar="INPUT..."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File for all predictions: a .csv or .parquet table, or a .npy array")
    ] = None,
    top: Annotated[int, typer.Option(help="Number of samples to list")] = 20,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and name images that cannot be used")] = False,
    series: SeriesOpt = None,
    time: TimeOpt = None,
    value: ValueOpt = None,
    family: FamilyOpt = None,
) -> None:
    """Predict images without a server.

    With --output, predictions are written while images are read: any number of
    images can be predicted. --json then holds only those that are listed.
    """
    from ripieno.data.long_table import SeriesColumns
    from ripieno.library import read_bundle
    from ripieno.pipeline.prediction import stream_predictions
    from ripieno.pipeline.prediction_files import check_output, prediction_writer
    from ripieno.pipeline.prediction_tables import TABLES

    parsing.at_least("--top", top)
    if output is not None:
        check_output(output)
    deployment = read_bundle(bundle, family or ())
    source = images[0] if len(images) == 1 else images
    form, count = TABLES[deployment.task.kind], 0
    records: list[dict[str, Any]] = []
    kept = top if output is not None or not console.output_mode.json else None
    with ExitStack() as stack:
        append = stack.enter_context(prediction_writer(output, deployment)) if output is not None else None
        progress = stack.enter_context(console.progress())
        notes = Notes(console.warn)
        columns = SeriesColumns(series or "", time or "", tuple(parsing.parse_names(value)))
        stream = stream_predictions(
            deployment, source, skip_bad=skip_bad, notes=notes, progress=progress, columns=columns
        )
        for batch in stream:
            count += len(batch.names)
            if append is not None:
                append(batch)
            if kept is None or len(records) < kept:
                records += form.records(batch, deployment)
    console.out.print(_table(f"{count} samples", records[:top]))
    console.print_result(output or "", command("serve", bundle), predictions=records[:kept], samples=count)


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
            cells |= {inner: f"{number:.5g}" for inner, number in value.items()}
        elif isinstance(value, list):
            cells[name] = ", ".join(value) or "-"
        else:
            cells[name] = f"{value:.4f}" if isinstance(value, float) else str(value)
    return cells
