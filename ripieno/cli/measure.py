"""The command measure."""

from __future__ import annotations

from typing import Annotated

import typer

from ripieno.cli import console, tables
from ripieno.cli.app import DeviceOpt, FamilyOpt, RunArg, app, examples
from ripieno.commands import command


@app.command(epilog=examples("ripieno measure run"))
def measure(
    run: RunArg,
    device: DeviceOpt = "cpu",
    prune: Annotated[
        float, typer.Option(help="Measure the members that select and front consider with this share")
    ] = 0.2,
    again: Annotated[bool, typer.Option(help="Repeat existing measurements")] = False,
    family: FamilyOpt = None,
) -> None:
    """Measure the cost of each member alone on an idle device."""
    from ripieno import pipeline
    from ripieno.selection import round_budget

    with console.progress() as progress:
        profiles = pipeline.measure(
            run, device=device, prune=prune, again=again, trusted=family or (), progress=progress
        )
    counts = pipeline.static_costs(pipeline.open_run(run), profiles)
    console.out.print(tables.profiles(list(profiles.values()), counts))
    busy = sum(not p.idle for p in profiles.values())
    if busy:
        console.warn(f"the machine was busy during {busy} measurements: repeat with --again on an idle machine")
    costs = sorted(p.cost for p in profiles.values())
    budget = f"{round_budget(4 * costs[len(costs) // 2]):g}"
    console.print_result(
        f"{run}/profiles",
        command("select", run, budget=budget),
        f"{len(profiles)} members",
        costs={member: p.cost for member, p in profiles.items()},
        counts=counts,
    )
