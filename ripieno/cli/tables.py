"""Words as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from rich.console import Group
from rich.table import Table

from ripieno.cli.console import number, percent, table
from ripieno.library.backend_report import BackendReport
from ripieno.types import Allocation, Cascade, Ensemble, Member, Metric, Profile

if TYPE_CHECKING:
    from ripieno.engine.benchmark import BenchResult
    from ripieno.engine.inference_result import MemberStats


def score_name(score: str) -> str:
    """A score as people write it."""
    return {"macro-f1": "macro-F1"}.get(score, score)


def members(
    rows: Sequence[Member],
    costs: Mapping[str, float],
    diversity: Mapping[str, float],
    score: str,
    kind: str = "seconds",
) -> Table:
    """Members, in the order given; without the columns that nothing is known for."""
    more = ([kind] if costs else []) + (["diversity"] if diversity else [])
    name = score_name(score)
    made = table("members (on validation samples)", "id", "epochs", "cross-entropy", name, "parameters", *more)
    for m in rows:
        loss, valid = m.losses["valid_cross_entropy"], m.losses.get(f"valid_{score.replace('-', '_')}")
        cells = [str(m.epoch), f"{loss:.4f}", percent(valid), f"{m.parameters:,}"]
        cells += [number(costs.get(m.id))] if costs else []
        cells += [percent(diversity.get(m.id))] if diversity else []
        made.add_row(m.id, *cells)
    return made


def member_dict(member: Member) -> dict[str, object]:
    """A member for scripts: what `member.json` says of it, but for its learning curve and its classes."""
    names = ("id", "trial", "epoch", "family", "configuration", "losses", "parameters", "seconds", "format", "costs")
    return {name: getattr(member, name) for name in names}


def stall_line(rows: Sequence[Member]) -> str:
    """One line: how long training waited for data; empty when nobody knows."""
    last = {m.trial: m for m in sorted(rows, key=lambda m: m.epoch)}.values()
    curves = [e for m in last for e in m.curve]
    seconds = sum(e.seconds for e in curves)
    if not seconds:
        return ""
    share = sum(e.waited for e in curves) / seconds
    return f"trained for {seconds:,.0f} s, {percent(share)} of them waiting for data (goal: under 3 %)"


def ensembles(rows: Sequence[Ensemble], metric: str, kind: str = "") -> Group:
    """Ensembles by budget, in one kind of cost: by default that of the first; a table for each score they aim at.

    Those chosen by a score are shown with it, the others with the run's `metric`.
    """
    kind = kind or next((k for e in rows for k in e.budget), "seconds")
    shown = [e.loss if e.loss in get_args(Metric) else metric for e in rows]
    return Group(
        *(
            _ensembles([e for e, own in zip(rows, shown, strict=True) if own == score], score, kind)
            for score in dict.fromkeys(shown)
        )
    )


def _ensembles(rows: Sequence[Ensemble], score: str, kind: str) -> Table:
    key, name = score.replace("-", "_"), score_name(score)
    columns = "budget", "cost", "members", "cross-entropy", name, f"test {name}"
    aimed = all(e.loss == score for e in rows)
    title = f"ensembles{f' chosen by {name}' if aimed else ''} (costs in {kind}; on validation samples)"
    made = table(title, "name", *columns)
    for e in rows:
        made.add_row(
            e.name,
            _bounds(e.budget, kind),
            _bounds(e.cost, kind),
            str(len(e.members)),
            number(e.losses.get("valid_cross_entropy"), ".4f"),
            percent(e.losses.get(f"valid_{key}")),
            percent(e.losses.get(f"test_{key}")),
        )
    return made


def speed(allocation: Allocation) -> str:
    """One line: images per second predicted, measured, of worst-fit, and how far from the bound they are."""
    parts = []
    if allocation.throughput:
        parts.append(f"{allocation.throughput:.0f} images/s measured in {allocation.benches} benches")
        if allocation.start_throughput:
            parts.append(f"{allocation.throughput / allocation.start_throughput:.2f} x the start")
    if allocation.predicted:
        parts.append(f"{allocation.predicted:.0f} predicted")
        if allocation.bound:
            short = max(0.0, 1 - allocation.predicted / allocation.bound)
            parts.append(f"{short:.1%} below the bound of {allocation.bound:.0f} that no plan can exceed")
    return ", ".join(parts)


def _bounds(values: Mapping[str, float], kind: str) -> str:
    """The value of `kind`, or all values with their kinds where that one is not among them."""
    return number(values[kind]) if set(values) == {kind} else " ".join(f"{k} {v:.3g}" for k, v in values.items())


def profiles(rows: Sequence[Profile], counts: Mapping[str, Mapping[str, float]]) -> Table:
    """Measured costs, cheapest first, beside what is counted in the network."""
    columns = "seconds for 2,000", "at batch", "ms for 1", "MiB", "parameters", "MFLOPs", "machine"
    made = table("costs", "member", *columns)
    for p in sorted(rows, key=lambda p: (p.cost, p.member)):
        one, count = min(p.points, key=lambda point: point.batch_size), counts.get(p.member, {})
        made.add_row(
            p.member,
            number(p.cost),
            str(p.best.batch_size),
            f"{1000 * one.seconds:.3g}" if one.batch_size == 1 else "-",
            f"{p.best.bytes / 2**20:.0f}",
            number(count.get("parameters"), ",.0f"),
            number(count["flops"] / 1e6 if "flops" in count else None),
            "idle" if p.idle else "busy",
        )
    return made


def allocation(made_of: Allocation) -> Table:
    """Who sits where."""
    made = table(f"allocation {made_of.name}", "member", "device", "lane", "batch size")
    for p in made_of.placements:
        made.add_row(p.member, p.device, str(p.lane), str(p.batch_size))
    return made


def cascade(turns: Cascade) -> Table:
    """What a cascade spares and what it costs, by split."""
    columns = "samples", "members asked", "compute saved", "cross-entropy", "of all members", "accuracy", "of all"
    made = table(f"members are asked in turn until their mean is {turns.threshold:.4f} sure", "on", *columns)
    for split, effect in turns.effects.items():
        made.add_row(
            split,
            f"{effect.samples:,}",
            f"{effect.asked:.2f} of {len(turns.order)}",
            percent(effect.saved),
            f"{effect.cross_entropy:.4f}",
            f"{effect.whole_cross_entropy:.4f}",
            percent(effect.accuracy),
            percent(effect.whole_accuracy),
        )
    return made


def utilisation_table(result: BenchResult) -> Table:
    """Who waited, computed and combined for how long, by member and by lane."""
    columns = "samples/s", "samples/batch", "waited (ms/batch)", "computing", "combining"
    made = table(f"where the time of {result.seconds:.3g} s went", "member or lane", *columns)
    rows: list[tuple[str, MemberStats]] = list(result.members.items())
    rows += [(f"{lane.device} lane {lane.lane}", lane) for lane in result.lanes]
    for name, done in rows:
        made.add_row(
            name,
            f"{done.samples / result.seconds:.0f}",
            f"{done.samples / done.batches:.1f}" if done.batches else "-",
            f"{1000 * done.waiting / done.batches:.2f}" if done.batches else "-",
            percent(done.computing / result.seconds),
            percent(done.combining / result.seconds),
        )
    return made


def backend_table(made: BackendReport) -> Table:
    """What each member is run by, and what that does to its answers and to the ensemble's."""
    figures = f"cross-entropy {made.reference_loss:.4f} in fp32, {made.loss:.4f} now"
    figures += f"; accuracy {percent(made.reference_accuracy)}, {percent(made.accuracy)} now"
    title = f"backends (the ensemble on {made.samples} validation images: {figures})"
    columns = "device", "backend", "x quicker", "most a probability differs", "loss", "in fp32", "refused"
    made_of = table(title, "member", *columns)
    for fit in made.fits:
        made_of.add_row(
            fit.member,
            fit.device,
            fit.backend,
            f"{fit.reference_seconds / fit.seconds:.2f}",
            f"{fit.difference:.1g}",
            f"{fit.loss:.4f}",
            f"{fit.reference_loss:.4f}",
            ", ".join(fit.refused),
        )
    return made_of
