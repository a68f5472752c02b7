"""The live front of a search in words: one line while it runs, a table and the next command when it ends."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from ripieno.cli import console
from ripieno.library import Library
from ripieno.pipeline.budgets import constrained_budget, kept_budget, needs_no_measurement
from ripieno.reports.front_history import front_budgets
from ripieno.shell_command import command
from ripieno.types import LiveFront

UNITS = {"flops": "FLOPs", "bytes": "B"}
"""Units behind amounts of cost, where the kind of cost is not the unit itself."""
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def front_line(front: LiveFront) -> Text:
    """Return `hypervolume 0.634; loss 0.4123 within 2 members, 0.3877 within 5`, the budget of the search in bold."""
    line = Text(f"hypervolume {front.hypervolume:.3f}; loss ")
    for number, (budget, point) in enumerate(front_budgets(front)):
        unit = "" if number else f" {_unit(front.cost, budget)}"
        style = "bold green" if budget == front.budget else ""
        line.append(", " if number else "").append(f"{point.loss:.4f} within {short_amount(budget)}{unit}", style)
    return line


def front_table(front: LiveFront) -> Table:
    """Return a table of the best ensembles at some budgets; that of the search is green."""
    title = f"front of the search: hypervolume {front.hypervolume:.3f}, of {front.members} members"
    view = console.table(title, f"budget in {UNITS.get(front.cost, front.cost)}", "members", "loss")
    for budget, point in front_budgets(front):
        style = "bold green" if budget == front.budget else ""
        count = str(len(point.members))
        view.add_row(short_amount(budget), count, f"{point.loss:.4f}", style=style)
    return view


def select_command(front: LiveFront, run: Path) -> str:
    """Return the command that selects the best ensemble within the largest budget that is shown."""
    budget = max(budget for budget, _ in front_budgets(front))
    if front.cost == "members":
        return command("select", run, size=f"{budget:g}")
    return command("select", run, budget=f"{front.cost}={short_amount(budget)}")


def next_commands(library: Library, run: Path, front: LiveFront | None, *, has_untried: bool) -> tuple[str, str]:
    """Return the command that selects at once after a search, empty without one, and the one that is next.

    The next one measures, unless the search bounds only costs that are counted: then it selects, and the first is
    empty. Both give way to `soup` where averages of weights are untried.
    """
    bounds = constrained_budget(library)
    selecting = "" if front is None else select_command(front, run)
    if kept_budget(run):  # by which it selects
        selecting = command("select", run)
    elif bounds:
        selecting = f"{command('select', run)} --budget {' '.join(bounds)}"
    if has_untried:
        return selecting, command("soup", run)
    return ("", selecting) if needs_no_measurement(library) else (selecting, command("measure", run))


def _unit(cost: str, amount: float) -> str:
    return "member" if cost == "members" and amount == 1 else UNITS.get(cost, cost)


def short_amount(amount: float) -> str:
    """Return an amount of cost as `--budget` reads it: `12`, `1.5k`, `20M`."""
    factor, prefix = next(((factor, prefix) for factor, prefix in PREFIXES if amount >= factor), (1.0, ""))
    return f"{amount / factor:.6g}{prefix}"
