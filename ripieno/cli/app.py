"""The typer application and the option types that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.cli import console
from ripieno.cli.commands import CommandGroup

SUMMARY = "Search, select, allocate and serve ensembles of deep networks under a budget"

app = CommandGroup(
    help=SUMMARY,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

RunArg = Annotated[Path, typer.Argument(help="Folder of the run", metavar="RUN")]
BundleArg = Annotated[Path, typer.Argument(help="Folder of the bundle", metavar="BUNDLE")]
DeviceOpt = Annotated[
    str, typer.Option("--device", help="Devices: auto, cpu, cpu:2 (the CPU split in two) or cuda:0,cpu")
]
FamilyOpt = Annotated[
    list[str] | None,
    typer.Option("--family", help="Model factory (module:function) that may be imported; repeatable"),
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
