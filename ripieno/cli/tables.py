"""Words as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from ripieno.cli.console import number, percent, table
from ripieno.types import Allocation, Ensemble, Member, Profile


def members(rows: Sequence[Member], costs: Mapping[str, float], score: str) -> Table:
    """Members by validation cross-entropy."""
    made = table("members", "id", "epochs", "valid cross-entropy", f"valid {score}", "parameters", "cost (s)")
    for m in rows:
        loss, valid = m.losses["valid_cross_entropy"], m.losses.get(f"valid_{score.replace('-', '_')}")
        cells = str(m.epoch), f"{loss:.4f}", percent(valid), f"{m.parameters:,}", number(costs.get(m.id))
        made.add_row(m.id, *cells)
    return made


def ensembles(rows: Sequence[Ensemble], score: str) -> Table:
    """Ensembles by budget."""
    key = score.replace("-", "_")
    columns = "budget (s)", "cost (s)", "members", "valid cross-entropy", f"valid {score}", f"test {score}"
    made = table("ensembles", "name", *columns)
    for e in rows:
        made.add_row(
            e.name,
            number(e.budget.get("seconds")),
            number(e.cost.get("seconds")),
            str(len(e.members)),
            number(e.losses.get("valid_cross_entropy"), ".4f"),
            percent(e.losses.get(f"valid_{key}")),
            percent(e.losses.get(f"test_{key}")),
        )
    return made


def profiles(rows: Sequence[Profile]) -> Table:
    """Measured costs, cheapest first."""
    made = table("costs", "member", "seconds for 2,000", "best batch", "MiB", "machine")
    for p in sorted(rows, key=lambda p: (p.cost, p.member)):
        memory = max(point.bytes for point in p.points) / 2**20
        made.add_row(p.member, number(p.cost), str(p.best.batch_size), f"{memory:.0f}", "idle" if p.idle else "busy")
    return made


def allocation(made_of: Allocation) -> Table:
    """Who sits where."""
    made = table(f"allocation {made_of.name}", "member", "device", "lane", "batch size")
    for p in made_of.placements:
        made.add_row(p.member, p.device, str(p.lane), str(p.batch_size))
    return made
