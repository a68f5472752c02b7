"""The commands doctor and demo."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ripieno.cli import console
from ripieno.cli.app import app, examples
from ripieno.errors import EXTRAS


@app.command(epilog=examples("ripieno doctor"))
def doctor() -> None:
    """Show the devices of this machine and the packages that are missing."""
    from ripieno import pipeline

    diagnostics = pipeline.doctor()
    devices = console.table("devices", "device", "kind", "cores", "GiB")
    for device in diagnostics.devices:
        devices.add_row(device.name, device.kind, str(len(device.cores)), f"{device.memory / 2**30:.1f}")
    console.out.print(devices)
    packages = console.table(f"ripieno on Python {platform.python_version()}", "package", "version", "extra")
    for package, version in diagnostics.parts.items():
        packages.add_row(package, version or Text("not installed", style="yellow"), f"ripieno[{EXTRAS[package]}]")
    console.out.print(packages)
    if diagnostics.missing:
        console.say(f"install missing packages: pip install 'ripieno[{','.join(diagnostics.missing)}]'")
    console.print_result(
        "", "ripieno demo", devices=diagnostics.devices, parts=diagnostics.parts, missing=diagnostics.missing
    )


@app.command(epilog=examples("ripieno demo"))
def demo(
    run: Annotated[Path, typer.Option(help="Folder of the run: new, or of an earlier demo")] = Path("demo-run"),
    trials: Annotated[int, typer.Option(help="Number of trials")] = 30,
) -> None:
    """Run the whole workflow on 1,797 handwritten digits in a few minutes."""
    from ripieno.cli.demo import run_demo

    run_demo(run, trials)
