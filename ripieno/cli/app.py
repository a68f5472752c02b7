"""The typer application, and what all commands share: option types, `--json` and `--quiet`, order and examples."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ripieno.cli import console

OUTPUT_OPTIONS = {
    "json": "Print one JSON object to standard output, all else to standard error",
    "quiet": "Print only results and errors",
}
"""The options of every command, with their help."""
STAGES = {
    "Library": ("tune", "augment", "algorithm", "history", "import", "soup", "variants", "measure", "show", "evict"),
    "Ensemble": ("select", "front", "coverage"),
    "Bundle": ("allocate", "explain", "bench", "cascade", "evaluate", "predict", "export", "reselect", "reweight"),
    "Server": ("serve", "deploy", "top"),
    "Other": ("report", "compare", "suspects", "doctor", "demo"),
}
"""The commands in the order of the workflow, by their headings in the help."""
_ORDER = [name for names in STAGES.values() for name in names]


def examples(*lines: str) -> str:
    """Return the epilog of a command that shows `lines`: commands to copy, or comments that begin with `#`."""
    return "\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))


class CommandGroup(typer.Typer):
    """A typer application that sorts its commands by stage and gives each `--json` and `--quiet`."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        """Register a command; see typer. The first line of the docstring loses its full stop in the help."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            command_name = name or function.__name__
            stage = next(stage for stage, names in STAGES.items() if command_name in names)
            summary, newline, body = (inspect.getdoc(function) or "").partition("\n")
            settings.setdefault("help", summary.removesuffix(".") + newline + body)
            settings.setdefault("rich_help_panel", stage)
            super(CommandGroup, self).command(command_name, **settings)(_with_output_options(function))
            self.registered_commands.sort(key=lambda registered: _ORDER.index(registered.name or ""))
            return function

        return decorate


def _with_output_options(function: Callable[..., None]) -> Callable[..., None]:

    @functools.wraps(function)
    def wrapper(json: bool, quiet: bool, **options: Any) -> None:
        console.set_output_mode(json, quiet)
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    parameters = list(signature.parameters.values())
    for name, text in OUTPUT_OPTIONS.items():
        kind = Annotated[bool, typer.Option(f"--{name}", help=text, rich_help_panel="Output")]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind))
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


SUMMARY = "Search, select, allocate and serve ensembles of deep networks under a budget"

app = CommandGroup(
    help=SUMMARY, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode="rich"
)

RunArg = Annotated[Path, typer.Argument(help="Folder of the run", metavar="RUN")]
BundleArg = Annotated[Path, typer.Argument(help="Folder of the bundle", metavar="BUNDLE")]
DeviceOpt = Annotated[
    str, typer.Option("--device", help="Devices: auto, cpu, cpu:2 (the CPU split in two) or cuda:0,cpu")
]
FamilyOpt = Annotated[
    list[str] | None, typer.Option("--family", help="Model factory (module:function) that may be imported; repeatable")
]
SeriesOpt = Annotated[
    str | None,
    typer.Option("--series", help="Column of a table that names the series of a row", show_default="series or id"),
]
TimeOpt = Annotated[
    str | None,
    typer.Option("--time", help="Column of times in a table of series", show_default="time, or the order of rows"),
]
ValueOpt = Annotated[
    list[str] | None,
    typer.Option("--value", help="Columns V[,V2] of values in a table of series; repeatable", show_default="value"),
]
DropOpt = Annotated[list[str] | None, typer.Option("--drop", help="Column of a table to leave out; repeatable")]
ColumnOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="NAME=KIND: take a column of a table for a number, category or date; repeatable",
        show_default="inferred",
    ),
]
IgnoreOpt = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="Value or class of masks whose pixels do not count; repeatable", show_default="255"),
]
SplitByOpt = Annotated[
    str | None,
    typer.Option(
        "--split-by", help="Column of a table that orders or groups the rows of the splits", show_default="random"
    ),
]
PriorOpt = Annotated[
    str, typer.Option("--prior", help="Shares of classes: trained, or auto (estimated from all predictions)")
]
IsolationOpt = Annotated[
    str, typer.Option("--isolation", help="Run workers in threads or processes: auto, thread or process")
]


def _print_version(requested: bool) -> None:
    if requested:
        from ripieno import __version__

        console.say(f"ripieno {__version__}")
        raise typer.Exit


@app.callback(help=SUMMARY)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Handle the options of `ripieno` itself."""
