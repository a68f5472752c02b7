"""Report of a run in one HTML file, which opens from disk without a network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ripieno import files
from ripieno.data.folds import validation_words
from ripieno.errors import require
from ripieno.library import Library
from ripieno.library.diversity import disagreement
from ripieno.library.evaluate import evaluate
from ripieno.reports import csv_tables, explorer, figure_style, payload, sections
from ripieno.reports.augmented_samples import augmented_samples
from ripieno.reports.column_quality import ColumnQuality, column_quality
from ripieno.reports.figures import figures
from ripieno.reports.overlays import Overlays, draw_overlays
from ripieno.reports.page_assets import page_asset
from ripieno.reports.pixel_explorer import explore_pixels
from ripieno.reports.plot_files import PlotWriter
from ripieno.reports.row_values import row_values
from ripieno.reports.run_data import RunData, load_run
from ripieno.reports.search import failures, search_terms
from ripieno.reports.series_lines import series_lines
from ripieno.reports.suspects import PAGE
from ripieno.reports.thumbnails import pick, thumbnails
from ripieno.shell_command import command
from ripieno.tasks.display import format_metric
from ripieno.tasks.metrics import METRICS, format_expected, metric_key
from ripieno.tasks.registry import kind_of
from ripieno.types import DataKind, Dataset, ranking_loss, training_unit

LISTED = 20
"""Maximum number of members in the table of the best."""
FAILED = 20
"""Maximum number of failed jobs listed."""


def report(
    run: str | Path | Library, *, progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
) -> Path:
    """Write `report.html`, and `report/` with its plots and numbers, to the run's folder; return the page's path.

    The page needs no other file. It stays under 5 MB for a thousand members, for any data set. Raises LibraryError when
    the run has no members, MissingExtraError without the `report` extra.
    """
    require("jinja2")
    require("matplotlib")
    library = run if isinstance(run, Library) else Library(run)
    files.check_writable(library.path)
    reading = load_run(library)
    has_returns = kind_of(reading.task).has_returns  # and no predictions of samples
    front = () if has_returns else explorer.load_front(reading, progress)
    evaluate(library, sorted({m for e in front for m in e.members}), progress)
    explore = explore_pixels if kind_of(reading.task).is_pixelwise else explorer.explore
    explored = None if has_returns else explore(reading, front, progress)
    quality = column_quality(reading, explored, progress)
    papers = reading.kind == "seconds" and explorer.has_classes(reading.task)
    found = figures(library, reading.table, reading.score, progress) if papers else None
    folder = PlotWriter(library.path / library.report_path.stem)
    chosen = frozenset(m for e in front for m in e.members)
    csv_tables.write_benches(folder, reading.benches)
    with figure_style.style():
        parts = sections.draw(folder, reading, explored, quality, found, disagreement(library), chosen, progress)
    folder.close()
    page = _render(reading, explored, parts, quality)
    files.write_bytes(library.report_path, page.encode("utf-8", "replace"))
    return library.report_path


def _render(
    reading: RunData, explored: explorer.Explorer | None, parts: sections.Sections, quality: ColumnQuality | None
) -> str:
    import jinja2

    script = page_asset("explorer.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    dataset = reading.dataset
    failed = failures(reading.library.journal_path)
    # those of the run, and the best of the front if it is not one of them
    best = explored.spots[-1] if explored else None
    ensembles = [*reading.ensembles, *([best.ensemble] if best and not best.names else [])]
    objectives = [metric_key(e.loss) for e in ensembles if METRICS[metric_key(e.loss)].higher_is_better]
    return environment.from_string(page_asset("report.html")).render(
        run=figure_style.plain(reading.library.path.resolve().name),
        reading=reading,
        dataset=dataset,
        samples={s: len(dataset.rows(s)) for s in ("train", "valid", "test")} if dataset else {},
        folds=validation_words(dataset.fold_count) if dataset and dataset.folds is not None else "",
        explored=explored,
        quality=quality,
        classes=explorer.has_classes(reading.task),
        ensembles=ensembles,
        best=min(ensembles, key=lambda e: math.inf if (loss := ranking_loss(e.losses)) is None else loss, default=None),
        scores=[(score, METRICS[score].title) for score in dict.fromkeys([reading.score, *objectives])],
        names=kind_of(reading.task).names_title,
        training_unit=training_unit(reading.members),
        format_metric=format_metric,
        loss_title=lambda ensemble: METRICS[metric_key(ensemble.loss)].title,
        command=command,
        expected=format_expected,
        parts=parts,
        overlays=_overlays(reading, explored),
        augmented=augmented_samples(reading),
        failed=failed[:FAILED],
        failures=len(failed),
        terms=search_terms(reading.library.path / "run.json"),
        has_suspects=(reading.library.path / PAGE).exists(),
        listed=reading.members[:LISTED],
        style=page_asset("style.css"),
        script=script,
        # the content security policy allows only this script
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=payload.embedded(_data(reading, explored, quality)) if explored else "",
    )


def _overlays(reading: RunData, explored: explorer.Explorer | None) -> Overlays | None:
    if explored is None or explored.masks is None:
        return None
    dataset = reading.dataset
    index = {} if dataset is None else payload.places(explored, dataset)
    return draw_overlays(explored.masks.hardest, reading.classes(), dataset, index)


def _data(reading: RunData, explored: explorer.Explorer, quality: ColumnQuality | None) -> dict[str, Any]:
    drawings: dict[int, payload.Drawing] = {}
    dataset = reading.dataset
    if dataset is not None:
        draw: Mapping[DataKind, Callable[[Dataset, Sequence[int]], Mapping[int, payload.Drawing]]] = {
            "image": thumbnails,
            "series": series_lines,
            "table": partial(row_values, order=quality.ordered if quality else []),
        }
        index = payload.places(explored, dataset)
        rows = [row for row in pick(payload.wanted_rows(explored)) if row in index]
        drawn = draw[dataset.kind](dataset, [index[row] for row in rows])
        drawings = {row: drawn[index[row]] for row in rows if index[row] in drawn}
    return payload.payload(reading, explored, drawings)
