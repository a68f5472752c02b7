"""The search of a command: a part of the commands tune and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ripieno.cli import console, parsing
from ripieno.errors import SearchError
from ripieno.notes import Notes
from ripieno.shell_command import command as shell_command

if TYPE_CHECKING:
    from ripieno.pipeline.command_search import RankedConfiguration

HEEDED = {
    "run", "hours", "trials", "epochs", "space", "algorithm", "step", "keep", "eta", "seed", "slots", "pool", "command",
    "instances", "cutoff", "measure",
}  # fmt: skip
"""Options of tune that a search of a command heeds."""
SHOWN = 5
"""Configurations that are listed at the end of a search."""


def tune_configuration(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
    """Run or resume the search of a command, where the options of tune ask for one; return whether they do.

    `given` are the values of the options, `defaults` those where the user gives none.

    Raises SearchError for options that it does not heed.
    """
    from ripieno.library.command_record import is_command_run, read_command_record
    from ripieno.pipeline.command_search import tune_command

    run = Path(given["run"])
    asked = [f"--{name}" for name in ("instances", "cutoff", "measure") if given[name] is not None]
    resumed = given["data"] is None and is_command_run(run)
    if given["command"] is None and not resumed:
        if asked:
            raise SearchError(f"{asked[0]} is an option of --command: give the program to configure")
        return False
    _refuse_others(given, defaults)
    from ripieno.cli.progress import progress_callback, summary, to_dict
    from ripieno.search.algorithms import change_algorithm

    algorithm = given["algorithm"]
    if any(given[name] is not None for name in ("step", "keep", "eta")):
        options = {name: given[name] for name in ("step", "keep", "eta")}
        algorithm = change_algorithm(algorithm or "hyperband", **options)
    measure = given["measure"]
    with progress_callback(run) as watch:
        found = tune_command(
            given["command"], run, instances=given["instances"], cutoff=given["cutoff"],
            space=None if given["space"] == "auto" else given["space"], measure=measure, hours=given["hours"],
            trials=given["trials"], epochs=given["epochs"], algorithm=algorithm, seed=given["seed"],
            slots=given["slots"], pool=given["pool"], notes=Notes(console.warn), watch=watch,
        )  # fmt: skip
    record = read_command_record(run)
    console.out.print(summary(watch, run, has_library=False))
    _print(run, found, SHOWN, record)
    best = _best_line(run, found)
    console.print_result(run, best, f"{len(found)} configurations", **to_dict(watch), **_plain(found, best))
    return True


def show_configurations(run: Path, top: int) -> None:
    """List the configurations of a search of a command."""
    from ripieno.library.command_record import read_command_record
    from ripieno.pipeline.command_search import ranked_configurations

    parsing.at_least("--top", top)
    found = ranked_configurations(run)
    record = read_command_record(run)
    console.out.print(f"{run}: {len(found)} configurations of {record.command}", soft_wrap=True)
    _print(run, found, top, record)
    best = _best_line(run, found) if found else shell_command("tune", run=run)
    console.print_result("", best, **_plain(found, best))


def _refuse_others(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise SearchError for an option that a search of a command does not heed."""
    for name, value in given.items():
        if name in defaults and name not in HEEDED and value != defaults[name]:
            option = "DATA" if name == "data" else f"--{name.strip('_').replace('_', '-')}"
            raise SearchError(f"{option} does not go with --command: trials run a program, and need no data")


def _best_line(run: Path, found: Sequence[RankedConfiguration]) -> str:
    from ripieno.library.command_record import read_command_record
    from ripieno.pipeline.command_search import command_line

    return command_line(read_command_record(run), found[0].configuration)


def _plain(found: Sequence[RankedConfiguration], best: str) -> dict[str, Any]:
    return {"configurations": [asdict(one) for one in found], "configured": best}


def _print(run: Path, found: Sequence[RankedConfiguration], top: int, record: Any) -> None:
    """Print the best configurations."""
    title = "mean PAR10 (s)" if record.measure == "runtime" else "mean output"
    names = list(found[0].configuration) if found else []
    unsolved = ["unsolved"] if record.measure == "runtime" else []
    view: Table = console.table(f"configurations of {run}", title, "instances", *unsolved, *names)
    for one in found[:top]:
        values = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in one.configuration.values()]
        view.add_row(f"{one.loss:.4g}", str(one.instances), *([str(one.unsolved)] if unsolved else []), *values)
    console.out.print(view)
