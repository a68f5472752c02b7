"""The verbs on a deployment and on this machine: bench, serve, predict, doctor, demo."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from ripieno.cli import console, words
from ripieno.cli.app import BundlePath, app
from ripieno.errors import EXTRAS

Isolation = Annotated[str, typer.Option(help="Lanes in threads or in processes: `auto`, `thread`, `process`.")]


def known_isolation(text: str) -> Any:
    """The isolation that `text` names, or an error that lists them."""
    from ripieno.engine.engine import Isolation as Known

    return words.one_of(Known, "--isolation", text)


@app.command()
def bench(
    bundle: BundlePath,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 3.0,
    batch: Annotated[int, typer.Option(help="Images a request.")] = 64,
    isolation: Isolation = "auto",
) -> None:
    """Measure throughput and latency of a deployment: `ripieno bench bundle`."""
    from ripieno.engine import bench as run_bench

    with console.log.status(f"answering requests of {batch} images for {seconds:g} s"):
        result = run_bench(bundle, seconds=seconds, batch=batch, isolation=known_isolation(isolation))
    made = console.table(f"{bundle}", "requests of", "images/s", "spread", "p50 (ms)", "p99 (ms)")
    made.add_row(
        f"{batch} images",
        f"{result.throughput:.0f}",
        console.percent(result.spread),
        f"{1000 * result.p50:.2f}",
        f"{1000 * result.p99:.2f}",
    )
    console.out.print(made)
    console.closing("", f"ripieno serve {bundle}", bench=result)


@app.command()
def predict(
    bundle: BundlePath,
    images: Annotated[Path, typer.Argument(help="An image, a folder of images, or a .npy array.", metavar="INPUT")],
    output: Annotated[Path | None, typer.Option(help="Write the probabilities as .npy.")] = None,
    top: Annotated[int, typer.Option(help="How many images to list.")] = 20,
) -> None:
    """Class and probability of images, without a server: `ripieno predict bundle cat.jpg`."""
    from ripieno import files, pipeline
    from ripieno.data.inputs import read_inputs
    from ripieno.library import read_bundle

    deployment = read_bundle(bundle)
    names, array = read_inputs(images, deployment.input)
    probabilities = pipeline.predict(deployment, array)
    made = console.table(f"{len(names)} images", "image", "class", "probability")
    for name, row in list(zip(names, probabilities, strict=True))[:top]:
        made.add_row(name, deployment.classes[int(row.argmax())], f"{row.max():.4f}")
    console.out.print(made)
    if output is not None:
        files.write_array(output, probabilities)
    answers = [
        {"image": name, "class": deployment.classes[int(row.argmax())], "probability": float(row.max())}
        for name, row in zip(names, probabilities, strict=True)
    ]
    console.closing(output or "", f"ripieno serve {bundle}", predictions=answers)


@app.command()
def doctor() -> None:
    """What this machine has and what is not installed: `ripieno doctor`."""
    from ripieno import pipeline

    found = pipeline.doctor()
    made = console.table("devices", "device", "kind", "cores", "GiB")
    for device in found.devices:
        made.add_row(device.name, device.kind, str(len(device.cores)), f"{device.memory / 2**30:.1f}")
    console.out.print(made)
    parts = console.table(f"ripieno on Python {platform.python_version()}", "part", "version", "brought by")
    for part, version in found.parts.items():
        parts.add_row(part, version or "[yellow]not installed[/]", f"ripieno\\[{EXTRAS[part]}]")
    console.out.print(parts)
    if found.missing:
        console.out.print(f"to add what is missing: pip install 'ripieno\\[{','.join(found.missing)}]'", soft_wrap=True)
    console.closing("", "ripieno demo", devices=found.devices, parts=found.parts, missing=found.missing)


@app.command()
def demo(
    run: Annotated[Path, typer.Option(help="Folder of the run; it must be new or a demo's.")] = Path("demo-run"),
    trials: Annotated[int, typer.Option(help="Configurations to try.")] = 30,
) -> None:
    """The whole flow on 1,797 handwritten digits, in a few minutes: `ripieno demo`."""
    from ripieno.cli.demo import run_demo

    run_demo(run, trials)
