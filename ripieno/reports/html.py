"""The report: everything a run knows, in one HTML file that opens from disk without a network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ripieno import files
from ripieno.data import open_dataset
from ripieno.errors import LibraryError, need
from ripieno.library import Library
from ripieno.reports import plots
from ripieno.reports.figures import figures


def report(run: str | Path | Library) -> Path:
    """Write `report.html` into the run's folder and return its path.

    Raises LibraryError when the run has no members, MissingExtraError without the `report` extra.
    """
    library = run if isinstance(run, Library) else Library(run)
    members = library.members()
    if not members:
        raise LibraryError(f"{library.path} has no members: `ripieno tune DATA --run {library.path}` makes some")
    jinja2 = need("jinja2")
    device = library.usual_device()
    profiles = library.profiles(device) if device else {}
    costs = {m: p.cost for m, p in profiles.items()}
    ensembles = [e for e in library.ensembles() if set(e.budget) == {"seconds"}]
    dataset = open_dataset(library.dataset_path) if (library.dataset_path / "dataset.json").exists() else None
    metric = dataset.metric if dataset else "accuracy"

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(resources.files("ripieno.reports").joinpath("report.html").read_text("utf-8"))
    by_loss = sorted(members, key=lambda m: (m.losses["valid_cross_entropy"], m.id))
    found = figures(library, costs, metric.replace("-", "_"))
    page = template.render(
        run=library.path.resolve().name,
        dataset=dataset,
        samples={s: len(dataset.rows(s)) for s in ("train", "valid", "test")} if dataset else {},
        members=by_loss,
        trials=len({m.trial for m in members}),
        device=device,
        costs=costs,
        ensembles=ensembles,
        allocations=library.allocations(),
        metric=metric,
        score=metric.replace("-", "_"),
        curves=plots.learning_curves(members),
        scatter=plots.library(members, costs, ensembles),
        front=plots.front(ensembles, metric),
        by_time=plots.error_by_time(found, metric) if found else "",
        rivals=plots.smobf_and_forward(found, metric) if found else "",
    )
    files.write_bytes(library.report_path, page.encode())
    return library.report_path
