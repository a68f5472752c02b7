"""Tables of the terminal output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from ripieno.cli.console import number, percent, table
from ripieno.library.bundle import BackendReport
from ripieno.models.cell_config import FAMILY as CELL
from ripieno.models.cell_config import cell_of
from ripieno.models.cell_plan import cell_kind
from ripieno.reports.predictions import prediction_dict, time_front
from ripieno.search.predictions import PredictionChecks, StepCorrelation
from ripieno.tasks.display import format_metric, metric_names
from ripieno.tasks.metrics import METRICS, dashed_name, format_expected, metric_key
from ripieno.tasks.registry import kind_of
from ripieno.types import Allocation, Cascade, Ensemble, Member, Profile, Task, ranking_loss, training_unit

if TYPE_CHECKING:
    from ripieno.engine.benchmark import BenchResult
    from ripieno.engine.inference_result import MemberStats
    from ripieno.pipeline.lower_precision import Variant
    from ripieno.pipeline.soups import Soup

SIZES = 3
"""Widths of intervals shown of an ensemble with many targets."""


def members(
    rows: Sequence[Member],
    costs: Mapping[str, float],
    diversity: Mapping[str, float],
    score: str,
    kind: str = "seconds",
) -> Table:
    """Return a table of members in the given order; columns without values are left out."""
    more = ([kind] if costs else []) + (["diversity"] if diversity else [])
    key = metric_key(score)
    loss = METRICS[metric_names(m.losses for m in rows)[0]].title
    view = table(
        "members (on validation samples)", "id", training_unit(rows), loss, METRICS[key].title, "parameters", *more
    )
    for m in rows:
        valid = format_metric(key, m.losses.get(f"valid_{key}"))
        cells = [str(m.epoch), number(m.loss, ".4f"), valid, f"{m.parameters:,}"]
        cells += [number(costs.get(m.id))] if costs else []
        differ = percent if kind_of(m.task).diversity_is_share else number
        cells += [differ(diversity.get(m.id))] if diversity else []
        view.add_row(m.id, *cells)
    return view


def member_dict(member: Member) -> dict[str, object]:
    """Return a member for `--json`: the fields of `member.json` without the learning curve and the classes."""
    names = (
        "id",
        "trial",
        "epoch",
        "family",
        "configuration",
        "losses",
        "parameters",
        "seconds",
        "format",
        "costs",
        "backbone",
        "averaged",
        "variant_of",
    )
    return {name: getattr(member, name) for name in names}


def backbone_lines(rows: Sequence[Member], costs: Mapping[str, float], kind: str) -> list[str]:
    """Return a line on each backbone that several of the members share: its cost, which an ensemble pays once."""
    counts = Counter(m.backbone for m in rows if m.backbone)
    return [
        f"{count} members share the backbone {backbone}: an ensemble pays its {costs[backbone]:.4g} {kind} once"
        for backbone, count in sorted(counts.items())
        if count > 1 and backbone in costs
    ]


def cell_lines(rows: Sequence[Member]) -> list[str]:
    """Return a line with the cell of each of the members that are networks of cells."""
    of_cells = [m for m in rows if m.family == CELL]
    return [f"cell of {m.id}: {cell_of(m.configuration, cell_kind(m.input))}" for m in of_cells]


def correlations(rows: Sequence[StepCorrelation]) -> Table:
    """Return a table of the rank correlations of predicted and measured values, by step."""
    view = table("predictions against results", "step", "trials", "rank correlation of loss", "of seconds")
    for row in rows:
        view.add_row(str(row.step), str(row.trials), number(row.loss, ".2f"), number(row.seconds, ".2f"))
    return view


def time_front_line(members: Sequence[Member]) -> str:
    """Return a line on the members that no other beats in both loss and seconds of training."""
    front = time_front(members)
    ends = [f"{m.id} {m.loss:.4f} in {m.seconds:.3g} s" for m in (front[0], front[-1])] if front else []
    return f"front of loss and seconds of training: {len(front)} members" + (f", {' to '.join(ends)}" if ends else "")


def predictions_dict(checks: PredictionChecks, members: Sequence[Member]) -> dict[str, object]:
    """Return predictions, their rank correlations by step, and the front of loss and time, for `--json`."""
    return {
        "steps": [asdict(step) for step in checks.correlations()],
        "trials": [prediction_dict(one) for one in checks.compared],
        "front": [m.id for m in time_front(members)],
    }


def soups(rows: Sequence[Soup]) -> Table:
    """Return a table of averages of weights, with their losses and those of the best trial that each has."""
    loss = METRICS[metric_names(result.best.losses for result in rows)[0]].title
    columns = "backbone", "trials averaged", "best trial", f"its {loss}", f"{loss} of the average"
    view = table("soups (on validation samples)", "member", *columns)
    for result in rows:
        made = result.member
        count = f"{len(made.averaged) if made else 0} of {result.tried}"
        own = number(result.best.loss, ".4f"), number(made.loss if made else None, ".4f")
        view.add_row(made.id if made else "-", str(result.backbone), count, result.best.id, *own)
    return view


def soup_dict(result: Soup) -> dict[str, object]:
    """Return the result of a backbone's trials for `--json`."""
    made = result.member
    return {
        "backbone": str(result.backbone),
        "tried": result.tried,
        "best": result.best.id,
        "best_loss": result.best.loss,
        "loss": made.loss if made else None,
        "added": result.added,
        "member": member_dict(made) if made else None,
    }


def variants(rows: Sequence[Variant], sizes: Mapping[str, float]) -> Table:
    """Return a table of members in lower precision, with the losses and sizes in bytes of both."""
    loss = METRICS[metric_names(row.source.losses for row in rows)[0]].title
    columns = "of", f"its {loss}", f"{loss} of the variant", "its KiB", "KiB of the variant"
    view = table("variants (on validation samples)", "member", *columns)
    for row in rows:
        if row.member is not None:
            losses = number(row.source.loss, ".4f"), number(row.member.loss, ".4f")
            known = [sizes.get(m.id) for m in (row.source, row.member)]
            kibibytes = [number(size and size / 2**10, ",.0f") for size in known]
            view.add_row(row.member.id, row.source.id, *losses, *kibibytes)
    return view


def variant_dict(variant: Variant) -> dict[str, object]:
    """Return a variant for `--json`."""
    made = variant.member
    return {
        "source": variant.source.id,
        "precision": variant.precision,
        "source_loss": variant.source.loss,
        "loss": made.loss if made else None,
        "added": variant.added,
        "member": member_dict(made) if made else None,
        "reason": variant.reason,
    }


def stall_line(rows: Sequence[Member]) -> str:
    """Return one line on the time and energy of training and its waiting for data; empty if it is unknown."""
    last = {m.trial: m for m in sorted(rows, key=lambda m: m.epoch)}.values()
    curves = [e for m in last for e in m.curve]
    seconds = sum(e.seconds for e in curves)
    if not seconds:
        return ""
    line, waited = f"training took {seconds:,.0f} s in total", sum(e.waited for e in curves)
    if known := [m.train_joules for m in last if m.train_joules is not None]:
        line += f" and {sum(known) / 1000:,.3g} kJ"
        line += f" (known of {len(known)} of {len(last)} trials)" if len(known) < len(last) else ""
    return f"{line}, {percent(waited / seconds)} of it waiting for data (goal: under 3 %)" if waited else line


def ensembles(rows: Sequence[Ensemble], metric: str, kind: str = "") -> Group:
    """Return a table per score (that of the selection, else `metric`), with costs of a `kind`, by default the first."""
    kind = kind or next((k for e in rows for k in e.budget), "seconds")
    metric = dashed_name(metric)
    shown = [e.loss if METRICS[metric_key(e.loss)].higher_is_better else metric for e in rows]
    return Group(
        *(
            _ensembles([e for e, own in zip(rows, shown, strict=True) if own == score], score, kind)
            for score in dict.fromkeys(shown)
        )
    )


def coverages(rows: Sequence[Ensemble]) -> Table:
    """Return a table of the coverages of ensembles and of their rules of abstention, on validation samples."""
    view = table(
        "coverage (size of a set or width of an interval)", "name", "coverage", "score", "samples", "mean size"
    )
    for e in rows:
        for c in e.coverage:
            score = f"{c.score} by class" if c.per_class else c.score
            sizes = ", ".join(f"{size:.4g}" for size in c.sizes[:SIZES]) + (", ..." if len(c.sizes) > SIZES else "")
            view.add_row(e.name, f"{100 * c.level:g} %", score, f"{c.samples:,}", sizes)
        if e.abstain is not None:
            answered = f"answers {percent(e.abstain.answered)}"
            view.add_row(e.name, f"error {100 * e.abstain.error:g} %", "abstain", f"{e.abstain.samples:,}", answered)
    return view


def _ensembles(rows: Sequence[Ensemble], score: str, kind: str) -> Table:
    key, name = metric_key(score), METRICS[metric_key(score)].title
    expected = any(e.expected_loss is not None for e in rows)
    losses = {e.loss for e in rows}
    ranking = METRICS[metric_names(e.losses for e in rows)[0]].title
    columns = ["budget", "cost", "members", ranking, name, f"test {name}"]
    if expected:
        columns.insert(3, f"expected {METRICS[metric_key(losses.pop())].title if len(losses) == 1 else 'loss'}")
    aimed = all(e.loss == score for e in rows)
    title = f"ensembles{f' selected by {name}' if aimed else ''} (costs in {kind}; on validation samples"
    title += "; expected: cross-validated)" if expected else ")"
    view = table(title, "name", *columns)
    for e in rows:
        view.add_row(
            e.name,
            _bounds(e.budget, kind),
            _bounds(e.cost, kind),
            str(len(e.members)),
            *([format_expected(e)] if expected else []),
            number(ranking_loss(e.losses), ".4f"),
            *(format_metric(key, e.losses.get(f"{split}_{key}")) for split in ("valid", "test")),
        )
    return view


def speed(allocation: Allocation) -> str:
    """Return one line: images per second measured and predicted, the gain over the start and the gap to the bound."""
    parts = []
    if allocation.throughput:
        parts.append(f"{allocation.throughput:.0f} samples/s measured in {allocation.benches} benchmarks")
        if allocation.start_throughput:
            parts.append(f"{allocation.throughput / allocation.start_throughput:.2f} x the start")
    if allocation.predicted:
        parts.append(f"{allocation.predicted:.0f} predicted")
        if allocation.bound:
            gap = max(0.0, 1 - allocation.predicted / allocation.bound)
            parts.append(f"{gap:.1%} below the bound of {allocation.bound:.0f} that no plan can exceed")
    return ", ".join(parts)


def _bounds(values: Mapping[str, float], kind: str) -> str:
    """Return the value of `kind` if it is the only one, else all values with their kinds."""
    return number(values[kind]) if set(values) == {kind} else " ".join(f"{k} {v:.3g}" for k, v in values.items())


def profiles(rows: Sequence[Profile], counts: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of measured costs, cheapest first, with the counts of each network."""
    with_joules = any(p.joules is not None for p in rows)
    columns = "seconds for 2,000", "at batch", "ms for 1", "MiB", "parameters", "MFLOPs", "file MiB", "machine"
    view = table("costs", "member", *columns, *["joules for 2,000"] * with_joules)
    for p in sorted(rows, key=lambda p: (p.cost, p.member)):
        one, count = min(p.points, key=lambda point: point.batch_size), counts.get(p.member, {})
        view.add_row(
            p.member,
            number(p.cost),
            str(p.best.batch_size),
            f"{1000 * one.seconds:.3g}" if one.batch_size == 1 else "-",
            f"{p.best.bytes / 2**20:.0f}",
            number(count.get("parameters"), ",.0f"),
            number(count["flops"] / 1e6 if "flops" in count else None),
            number(count["bytes"] / 2**20 if "bytes" in count else None),
            "idle" if p.idle else "busy",
            *[number(p.joules)] * with_joules,
        )
    return view


def allocation(placed: Allocation) -> Table:
    """Return a table of placements."""
    view = table(f"allocation {placed.name}", "member", "device", "worker", "batch size")
    for p in placed.placements:
        view.add_row(p.member, p.device, str(p.lane), str(p.batch_size))
    return view


def cascade(plan: Cascade, task: Task) -> Table:
    """Return a table of the compute that a cascade saves and of its scores, by split."""
    kind = kind_of(task)
    loss, score = METRICS[kind.metrics[0]].title, METRICS[kind.default_metric].title
    columns = "samples", "members run", "compute saved", loss, "without", score, "without"
    view = table(f"cascade (exit when the mean is {plan.threshold:.4f} confident)", "split", *columns)
    for split, effect in plan.effects.items():
        view.add_row(
            split,
            f"{effect.samples:,}",
            f"{effect.asked:.2f} of {len(plan.order)}",
            percent(effect.saved),
            f"{effect.loss:.4f}",
            f"{effect.whole_loss:.4f}",
            percent(effect.score),
            percent(effect.whole_score),
        )
    return view


def utilisation_table(result: BenchResult) -> Table:
    """Return a table of waiting, computing and combining times, by member and by worker."""
    columns = "samples/s", "samples/batch", "waiting (ms/batch)", "computing", "combining"
    view = table(f"utilisation during {result.seconds:.3g} s", "member or worker", *columns)
    rows: list[tuple[str, MemberStats]] = list(result.members.items())
    rows += [(f"{worker.device} worker {worker.lane}", worker) for worker in result.lanes]
    for name, stats in rows:
        view.add_row(
            name,
            f"{stats.samples / result.seconds:.0f}",
            f"{stats.samples / stats.batches:.1f}" if stats.batches else "-",
            f"{1000 * stats.waiting / stats.batches:.2f}" if stats.batches else "-",
            percent(stats.computing / result.seconds),
            percent(stats.combining / result.seconds),
        )
    return view


def backend_table(report: BackendReport, task: Task) -> Table:
    """Return a table of each member's backend and its effect on the outputs and on the ensemble."""
    kind = kind_of(task)
    loss, score = METRICS[kind.metrics[0]], METRICS[kind.default_metric]
    figures = f"{loss.title} {loss.format(report.reference_loss)} in fp32, {loss.format(report.loss)} now"
    figures += f"; {score.title} {score.format(report.reference_score)}, {score.format(report.score)} now"
    title = f"backends (the ensemble on {report.samples} validation samples: {figures})"
    columns = "device", "backend", "speed-up", "max change", "loss", "loss in fp32", "rejected"
    view = table(title, "member", *columns)
    for fit in report.choices:
        view.add_row(
            fit.member,
            fit.device,
            fit.backend,
            f"{fit.reference_seconds / fit.seconds:.2f}",
            f"{fit.difference:.1g}",
            f"{fit.loss:.4f}",
            f"{fit.reference_loss:.4f}",
            ", ".join(fit.refused),
        )
    return view
