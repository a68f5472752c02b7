"""Numbers of the report as CSV tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ripieno.library.bench_records import BenchRecord
from ripieno.reports.column_quality import ColumnQuality
from ripieno.reports.explorer import Evaluation, Explorer
from ripieno.reports.figures import Figures
from ripieno.reports.mask_quality import MaskQuality
from ripieno.reports.plot_files import CsvValue, PlotWriter
from ripieno.reports.run_data import RunData
from ripieno.reports.search import Promotion, SlotInterval, TrialSummary
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, LiveFront


def write_search(
    folder: PlotWriter,
    trials: Sequence[TrialSummary],
    rungs: Sequence[tuple[int, int, int]],
    intervals: Sequence[SlotInterval],
    promotions: Sequence[Promotion],
) -> None:
    """Write the tables `curves`, `rungs`, `promotions`, `slots` and `trials`."""
    names = ("epoch", "train_loss", "valid_loss", "valid_score", "seconds")
    curves = [(t.number, *(getattr(e, name) for name in names)) for t in trials for e in t.curve]
    folder.table("curves", ("trial", *names), curves)
    folder.table("rungs", ("epoch", "came", "stopped"), rungs)
    went_on = [(p.trial, p.start, p.stop, p.rank, p.ranked) for p in promotions]
    folder.table("promotions", ("trial", "from_epoch", "to_epoch", "rank", "of_results"), went_on)
    ran = [(s.slot, s.member, s.start, s.end) for s in intervals]
    folder.table("slots", ("slot", "member", "start_hours", "end_hours"), ran)
    varied = sorted({n for t in trials for n in t.configuration})
    columns = ("trial", "stopped_at_epoch", "valid_loss", "seconds", *varied)
    values = [(t.number, t.stopped, t.loss, t.seconds, *(t.configuration.get(n) for n in varied)) for t in trials]
    folder.table("trials", columns, values)


def write_front_history(folder: PlotWriter, fronts: Sequence[LiveFront]) -> None:
    """Write the tables `hypervolume`, a row for each live front, and `front-history`, one for each ensemble of them."""
    rows = [(f.seconds, f.members, f.hypervolume, len(f.ensembles), f.ensembles[-1].loss) for f in fronts]
    folder.table("hypervolume", ("seconds", "members", "hypervolume", "ensembles", "lowest_loss"), rows)
    each = [(f.seconds, e.cost, e.loss, " ".join(e.members)) for f in fronts for e in f.ensembles]
    folder.table("front-history", ("seconds", f"cost_{fronts[0].cost}", "valid_loss", "members"), each)


def write_members(folder: PlotWriter, reading: RunData, differ: Mapping[str, float]) -> None:
    """Write the table `members`: each with its losses, cost and disagreement."""
    names = sorted({n for m in reading.members for n in m.losses})
    folder.table(
        "members",
        ("member", "trial", "epoch", "parameters", "seconds_trained", f"cost_{reading.kind}", "disagreement", *names),
        [
            (
                m.id, m.trial, m.epoch, m.parameters, m.seconds, reading.costs.get(m.id), differ.get(m.id),
                *(m.losses.get(n) for n in names),
            )
            for m in reading.members
        ],
    )  # fmt: skip


def write_ensembles(folder: PlotWriter, name: str, ensembles: Sequence[Ensemble], reading: RunData) -> None:
    """Write the table `name` of ensembles with their members and the metrics of the task."""
    kind = reading.kind
    metrics = tuple(f"{split}_{name}" for split in ("valid", "test") for name in kind_of(reading.task).metrics)
    folder.table(
        name,
        (
            "ensemble", f"budget_{kind}", f"cost_{kind}", "method", "members", "weights", *metrics,
            "selected_by", "expected_loss", "expected_loss_error", "calibration", "temperatures", "temperature",
        ),
        [
            (
                e.name, e.budget[kind], e.cost[kind], e.method,
                " ".join(e.members), " ".join(f"{w:g}" for w in e.weights),
                *(e.losses.get(n) for n in metrics),
                e.loss, e.expected_loss, e.expected_loss_error,
                e.calibration, " ".join(f"{t:g}" for t in e.temperatures), e.temperature,
            )
            for e in ensembles
        ],
    )  # fmt: skip


def write_explorer(folder: PlotWriter, reading: RunData, explorer: Explorer) -> None:
    """Write the explorer's tables: `front`, `disagreement`, of classes `confusion` and `reliability`, hardest samples.

    The last is named as the samples are: `images`, `series`, `rows`.
    """
    write_ensembles(folder, "front", [s.ensemble for s in explorer.spots], reading)
    evaluations = {s.ensemble.name: s.judged for s in explorer.spots if s.judged is not None} | explorer.faces
    if evaluations:
        _write_evaluations(folder, reading, explorer, evaluations)
    pairs: list[tuple[CsvValue, ...]] = [(a, b, share) for (a, b), share in sorted(explorer.disagreement.items())]
    folder.table("disagreement", ("member", "other", "share_of_samples" if evaluations else "difference"), pairs)
    columns = (
        ("true_class", "answer", "probability_of_true_class") if evaluations else ("true_target", "answer", "loss")
    )
    if explorer.masks is not None:
        columns = ("pixels_right", "most_missed_class", "loss")
    folder.table(
        reading.noun,
        ("ensemble", "why", "row_of_split", *columns),
        [
            (
                s.ensemble.name, reason, sample.row,
                reading.name_of(sample.truth), reading.name_of(sample.answer), sample.probability,
            )
            for s in explorer.spots
            for reason, samples in (("hardest", s.hardest), ("disputed", s.disputed))
            for sample in samples
        ],
    )  # fmt: skip


def _write_evaluations(
    folder: PlotWriter, reading: RunData, explorer: Explorer, evaluations: Mapping[str, Evaluation]
) -> None:
    classes = reading.classes()
    shown = [*(classes[c] for c in explorer.shown), *(["(other classes)"] if explorer.rest else [])]
    folder.table(
        "confusion",
        ("answered_by", "true_class", "answer", "samples"),
        [
            (name, shown[row], shown[column], count)
            for name, evaluation in evaluations.items()
            for row, counts in enumerate(evaluation.confusion)
            for column, count in enumerate(counts)
            if count
        ],
    )
    columns = (
        "answered_by", "bin", "samples", "from", "to", "confidence", "accuracy",
        "calibration_error", "low", "high", "temperature", "error_with_temperature",
    )  # fmt: skip
    bins = [
        (
            name, number, b.count, b.low, b.high, b.confidence, b.accuracy,
            e.calibration.value, e.calibration.low, e.calibration.high, e.temperature, e.cooled,
        )
        for name, e in evaluations.items()
        for number, b in enumerate(e.calibration.bins)
    ]  # fmt: skip
    folder.table("reliability", columns, bins)


def write_masks(folder: PlotWriter, masks: MaskQuality) -> None:
    """Write the tables `by-name`, a row for each class, and `boundary-error`, a row for each distance."""
    folder.table("by-name", tuple(masks.rows[0]), [tuple(row.values()) for row in masks.rows])
    columns = ("distance", "pixels_within", "wrong_within", "pixels_elsewhere", "wrong_elsewhere")
    rows: list[tuple[CsvValue, ...]] = [
        (b.distance, b.near, b.near_wrong, b.far, b.far_wrong, b.near_share, b.far_share, b.share_of_wrong)
        for b in masks.boundaries
    ]
    shares = ("share_wrong_within", "share_wrong_elsewhere", "share_of_all_wrong_within")
    folder.table("boundary-error", (*columns, *shares), rows)


def write_columns(folder: PlotWriter, quality: ColumnQuality) -> None:
    """Write the tables `columns`, in the order of their importance, and `slices`, in the order of the columns."""
    measured = {one.name: one for one in quality.importances.columns} if quality.importances else {}
    kinds = {column.name: column.kind for column in quality.columns}
    rows: list[tuple[CsvValue, ...]] = []
    for name in quality.ordered:
        own = measured.get(name)
        rows.append((name, kinds[name], own.increase if own else None, own.spread if own else None))
    folder.table("columns", ("column", "kind", "increase_of_loss", "spread"), rows)
    columns = ("column", "values", "samples", "loss", "excess_in_standard_errors")
    folder.table("slices", columns, [(s.column, s.values, s.samples, s.loss, s.excess) for s in quality.slices])


def write_figures(folder: PlotWriter, found: Figures) -> None:
    """Write the tables `error-by-time` (figures 3 and 4) and `smobf-and-forward` (figures 5 and 6)."""
    errors = [(b, *pair) for b in found.budgets for pair in zip(found.hours, found.error_by_time[b], strict=True)]
    folder.table("error-by-time", ("budget", "training_hours", "test_error"), errors)
    points = [(p.method, p.label, p.cost, p.members, p.error) for p in found.points]
    folder.table("smobf-and-forward", ("method", "asked", "cost", "members", "test_error"), points)


def write_benches(folder: PlotWriter, benches: Sequence[tuple[str, BenchRecord]]) -> None:
    """Write the table `benches`, one row per benchmark of a deployment; no file without benchmarks."""
    names = ("when", "machine", "isolation", "batch", "in_flight", "seconds", "throughput", "spread", "p50", "p99")
    rows = [(bundle, *(getattr(bench, name) for name in names)) for bundle, bench in benches]
    if rows:
        folder.table("benches", ("deployment", *names), rows)
