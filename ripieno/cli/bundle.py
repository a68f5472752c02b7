"""The verbs on a deployment and on this machine: bench, cascade, predict, doctor, demo."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ripieno.cli import allocation_view, console, parsing, tables
from ripieno.cli.app import BundlePath, FamilyOpt, RunArg, app
from ripieno.commands import command
from ripieno.durations import check_duration
from ripieno.errors import EXTRAS, RipienoError
from ripieno.notes import Notes
from ripieno.types import TOLERANCE

if TYPE_CHECKING:
    from ripieno.engine.benchmark import BenchResult
    from ripieno.types import Bundle, Placement

Isolation = Annotated[str, typer.Option(help="Lanes in threads or in processes: `auto`, `thread`, `process`.")]


def known_isolation(text: str) -> Any:
    """The isolation that `text` names, or an error that lists them."""
    from ripieno.engine.engine import Isolation as Known

    return parsing.parse_choice(Known, "--isolation", text)


@app.command()
def bench(
    bundle: BundlePath,
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 3.0,
    batch: Annotated[int, typer.Option(help="Images a request.")] = 64,
    isolation: Isolation = "auto",
    images: Annotated[
        Path | None,
        typer.Option(help="Send these, a folder of images or a .npy array; random ones by default: --images photos."),
    ] = None,
    cascade: Annotated[
        bool, typer.Option(help="Ask the members in turn where the deployment has a cascade: --no-cascade asks all.")
    ] = True,
    family: FamilyOpt = None,
) -> None:
    """Throughput and latency of a deployment, and where its time goes: `ripieno bench bundle`."""
    from ripieno.data.prediction_inputs import read_inputs
    from ripieno.engine import Engine
    from ripieno.engine import bench as run_bench
    from ripieno.library import read_bundle
    from ripieno.profiles.timing import CpuInterference

    check_duration(seconds, "--seconds")
    if batch < 1:
        raise RipienoError(f"--batch {batch} must be at least 1")
    deployment = read_bundle(bundle)
    given = None if images is None else read_inputs(images, deployment.input, Notes(console.warn))[1]
    with (
        console.status(f"answering requests of {batch} images for {seconds:g} s"),
        Engine(deployment, isolation=known_isolation(isolation), cascade=cascade, trusted=family or ()) as engine,
    ):
        neighbours = CpuInterference()
        result = run_bench(deployment, seconds=seconds, batch=batch, images=given, engine=engine)
        # processor time of lanes in other processes is not told from that of other programs
        others = neighbours.share() if engine.isolation == "thread" else None
    made = console.table(f"{bundle}", "requests of", "images/s", "spread", "p50 (ms)", "p99 (ms)")
    made.add_row(
        f"{batch} images",
        f"{result.throughput:.0f}",
        console.percent(result.spread),
        f"{1000 * result.p50:.2f}",
        f"{1000 * result.p99:.2f}",
    )
    console.out.print(made)
    console.out.print(tables.utilisation_table(result))
    for note in _doubts(result, deployment.allocation.placements, others):
        console.warn(note)
    if engine.cascade is not None:
        console.out.print(f"a sample was shown to {result.asked:.2f} of {len(result.members)} members, on average")
        if given is None:
            console.warn("random images stop a cascade at other members than real ones: --images sends yours")
    kept = _kept(deployment, engine.isolation, result)
    console.print_result(kept, command("serve", bundle), bench=result)


def _doubts(found: BenchResult, placements: Sequence[Placement], others: float | None) -> list[str]:
    """Return why a bench measured less than the deployment can do, each with its number.

    `others` is the share of the CPUs that other programs took, None where it is not known.
    """
    lanes = max(lane.computing for lane in found.lanes) / found.seconds
    why = allocation_view.reasons(others)
    if found.asked >= len(found.members) and (full := found.filled(placements)) < allocation_view.FULL:
        why.append(f"batches were {full:.0%} full: this measures smaller ones than planned")
    if lanes < allocation_view.FULL:
        why.append(f"the busiest lane computed {lanes:.0%} of the time: the rest went into handing over and combining")
    return why


def _kept(bundle: Bundle, isolation: str, found: BenchResult) -> str:
    """Keep a bench in its deployment, where the report finds it; a folder that cannot be written is no error."""
    from ripieno.library.bench_records import BenchRecord, keep_bench

    figures = {name: getattr(found, name) for name in ("batch", "in_flight", "seconds", "throughput", "spread")}
    machine = ", ".join(sorted({d.kind for d in bundle.allocation.devices}))
    try:
        return str(
            keep_bench(
                bundle.path, BenchRecord(time.time(), machine, isolation, p50=found.p50, p99=found.p99, **figures)
            )
        )
    except RipienoError as error:
        console.warn(f"the bench is not kept for the report: {error}")
        return ""


@app.command()
def cascade(
    run: RunArg,
    bundle: BundlePath,
    tolerance: Annotated[
        float, typer.Option(help="By how much the validation cross-entropy may grow, in nats: --tolerance 0.01.")
    ] = TOLERANCE,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the new deployment; BUNDLE-cascade by default: --output quick.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Ask all members about every image again: --off.")] = False,
    family: FamilyOpt = None,
) -> None:
    """Ask members in turn, each only about images not yet sure, and what that saves: `ripieno cascade run bundle`."""
    from ripieno import pipeline

    notes: list[str] = []
    if off and output is not None:
        raise RipienoError("--off takes the cascade out of BUNDLE: leave --output out")
    with console.progress() as progress:
        made, found = pipeline.cascade(
            run,
            bundle,
            tolerance=None if off else tolerance,
            output=output,
            trusted=family or (),
            progress=progress,
            notes=notes,
        )
    for note in notes:
        console.warn(note)
    if made.cascade is not None:
        console.out.print(tables.cascade(found))
        console.out.print(f"in this order: {', '.join(found.order)}", soft_wrap=True)
    elif not off:
        console.warn(f"nothing can be saved for {tolerance:g} of cross-entropy: every image is shown to all members")
    wrote = "" if made.cascade is None and not off else made.path
    console.print_result(wrote, command("bench", made.path), cascade=found)


@app.command()
def predict(
    bundle: BundlePath,
    images: Annotated[
        list[Path],
        typer.Argument(help="Images, folders of images, .npy or .npz arrays, or data sets.", metavar="INPUT..."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write the probabilities: a table as .csv, or an array as .npy.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many images to list.")] = 20,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out images that cannot be used, and name them."),
    ] = False,
    family: FamilyOpt = None,
) -> None:
    """Class and probability of images, without a server: `ripieno predict bundle cat.jpg`."""
    from ripieno import files, pipeline
    from ripieno.cli.predictions import check_output, write_predictions
    from ripieno.data.prediction_inputs import read_inputs
    from ripieno.library import read_bundle

    parsing.at_least("--top", top)
    check_output(output)
    if output is not None:
        files.check_file(output)
    deployment = read_bundle(bundle)
    source = images[0] if len(images) == 1 else images
    names, array = read_inputs(source, deployment.input, Notes(console.warn), skip_bad=skip_bad)
    probabilities = pipeline.predict(deployment, array, trusted=family or ())
    made = console.table(f"{len(names)} images", "image", "class", "probability")
    for name, row in list(zip(names, probabilities, strict=True))[:top]:
        made.add_row(name, deployment.classes[int(row.argmax())], f"{row.max():.4f}")
    console.out.print(made)
    if output is not None:
        write_predictions(output, names, deployment.classes, probabilities)
    answers = [
        {"image": name, "class": deployment.classes[int(row.argmax())], "probability": float(row.max())}
        for name, row in zip(names, probabilities, strict=True)
    ]
    console.print_result(output or "", command("serve", bundle), predictions=answers)


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
        parts.add_row(part, version or Text("not installed", style="yellow"), f"ripieno[{EXTRAS[part]}]")
    console.out.print(parts)
    if found.missing:
        console.say(f"to add what is missing: pip install 'ripieno[{','.join(found.missing)}]'")
    console.print_result("", "ripieno demo", devices=found.devices, parts=found.parts, missing=found.missing)


@app.command()
def demo(
    run: Annotated[Path, typer.Option(help="Folder of the run; it must be new or a demo's.")] = Path("demo-run"),
    trials: Annotated[int, typer.Option(help="Configurations to try.")] = 30,
) -> None:
    """The whole flow on 1,797 handwritten digits, in a few minutes: `ripieno demo`."""
    from ripieno.cli.demo import run_demo

    run_demo(run, trials)
