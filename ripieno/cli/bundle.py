"""The commands on a bundle: bench, cascade and export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ripieno.cli import allocation_view, console, parsing, tables
from ripieno.cli.app import BundleArg, FamilyOpt, IsolationOpt, RunArg, app, examples
from ripieno.durations import check_duration
from ripieno.errors import RipienoError
from ripieno.notes import Notes
from ripieno.shell_command import command, shell
from ripieno.types import TOLERANCE

if TYPE_CHECKING:
    from ripieno.engine.benchmark import BenchResult
    from ripieno.types import Bundle, Placement


@app.command(epilog=examples("ripieno bench bundle", "ripieno bench bundle --images photos --no-cascade"))
def bench(
    bundle: BundleArg,
    seconds: Annotated[float, typer.Option(help="Seconds to measure")] = 3.0,
    batch: Annotated[int, typer.Option(help="Samples per request")] = 64,
    isolation: IsolationOpt = "auto",
    images: Annotated[
        Path | None, typer.Option(help="Samples to send: images or a .npy array", show_default="random samples")
    ] = None,
    cascade: Annotated[
        bool, typer.Option(help="Use the cascade of the bundle; --no-cascade evaluates all members")
    ] = True,
    family: FamilyOpt = None,
) -> None:
    """Measure the throughput, latency and utilisation of a bundle."""
    from ripieno.data.prediction_inputs import read_inputs
    from ripieno.engine import Engine
    from ripieno.engine import bench as run_bench
    from ripieno.engine.config import Isolation
    from ripieno.library import read_bundle
    from ripieno.profiles.timing import CpuInterference

    check_duration(seconds, "--seconds")
    if batch < 1:
        raise RipienoError(f"--batch {batch}: it must be at least 1")
    deployment = read_bundle(bundle)
    array = None if images is None else read_inputs(images, deployment.input, Notes(console.warn))[1]
    known = parsing.parse_choice(Isolation, "--isolation", isolation)
    with (
        console.status(f"running requests of {batch} samples for {seconds:g} s"),
        Engine(deployment, isolation=known, cascade=cascade, trusted=family or ()) as engine,
    ):
        interference = CpuInterference()
        result = run_bench(deployment, seconds=seconds, batch=batch, images=array, engine=engine)
        # CPU time of worker processes cannot be separated from that of other programs
        others = interference.share() if engine.isolation == "thread" else None
    table = console.table(f"{bundle}", "request size", "samples/s", "spread", "p50 (ms)", "p99 (ms)")
    table.add_row(
        f"{batch} samples",
        f"{result.throughput:.0f}",
        console.percent(result.spread),
        f"{1000 * result.p50:.2f}",
        f"{1000 * result.p99:.2f}",
    )
    console.out.print(table)
    console.out.print(tables.utilisation_table(result))
    for note in _bench_warnings(result, deployment.allocation.placements, others):
        console.warn(note)
    if engine.cascade is not None:
        console.out.print(
            f"each sample was evaluated by {result.asked:.2f} of {len(result.members)} members on average"
        )
        if array is None:
            console.warn("random samples end the cascade at other members than real ones: pass yours with --images")
    record = _store_bench(deployment, engine.isolation, result)
    console.print_result(record, command("serve", bundle), bench=result)


def _bench_warnings(result: BenchResult, placements: Sequence[Placement], others: float | None) -> list[str]:
    """Return the reasons why a benchmark measured less than the bundle's capacity, each with its number.

    `others` is the share of the CPUs that other processes used, None where it is unknown.
    """
    busiest = max(worker.computing for worker in result.lanes) / result.seconds
    reasons = allocation_view.reasons(others)
    if result.asked >= len(result.members) and (full := result.filled(placements)) < allocation_view.FULL:
        reasons.append(f"batches were {full:.0%} full: the measured batches are smaller than planned")
    if busiest < allocation_view.FULL:
        reasons.append(f"the busiest worker computed {busiest:.0%} of the time; hand-over and combining took the rest")
    return reasons


def _store_bench(bundle: Bundle, isolation: str, result: BenchResult) -> str:
    """Store a benchmark in its bundle for the report; warn if the folder cannot be written."""
    from ripieno.library.bench_records import BenchRecord, keep_bench

    figures = {name: getattr(result, name) for name in ("batch", "in_flight", "seconds", "throughput", "spread")}
    machine = ", ".join(sorted({d.kind for d in bundle.allocation.devices}))
    try:
        return str(
            keep_bench(
                bundle.path, BenchRecord(time.time(), machine, isolation, p50=result.p50, p99=result.p99, **figures)
            )
        )
    except RipienoError as error:
        console.warn(f"the report will not show this benchmark: {error}")
        return ""


@app.command(
    epilog=examples(
        "ripieno cascade run bundle --tolerance 0.01 --output fast-bundle", "ripieno cascade run bundle --off"
    )
)
def cascade(
    run: RunArg,
    bundle: BundleArg,
    tolerance: Annotated[float, typer.Option(help="Allowed increase of the validation loss, in nats")] = TOLERANCE,
    output: Annotated[Path | None, typer.Option(help="Folder of the new bundle", show_default="BUNDLE-cascade")] = None,
    off: Annotated[bool, typer.Option("--off", help="Remove the cascade: run all members on every sample")] = False,
    family: FamilyOpt = None,
) -> None:
    """Write a bundle with early exit and report the compute saved.

    Members are evaluated in turn, each only on the images on which the mean
    prediction of the earlier members is not confident.
    """
    from ripieno import pipeline

    notes: list[str] = []
    if off and output is not None:
        raise RipienoError("--off changes BUNDLE itself: leave --output out")
    with console.progress() as progress:
        written, plan = pipeline.cascade(
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
    if written.cascade is not None:
        console.out.print(tables.cascade(plan, written.task))
        console.out.print(f"order: {', '.join(plan.order)}", soft_wrap=True)
    elif not off:
        console.warn(f"no cascade saves compute within the tolerance {tolerance:g}: all members evaluate every sample")
    wrote = "" if written.cascade is None and not off else written.path
    console.print_result(wrote, command("bench", written.path), cascade=plan)


@app.command(
    epilog=examples(
        "ripieno export bundle --licence apache-2.0", "ripieno export bundle --form triton --output models --name birds"
    )
)
def export(
    bundle: BundleArg,
    form: Annotated[str, typer.Option(help="Form of the export: onnx, triton or triton-single")] = "onnx",
    output: Annotated[
        Path | None, typer.Option(help="File or folder to write", show_default="BUNDLE/ensemble.onnx or BUNDLE/triton")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the model in Triton")] = "ensemble",
    licence: Annotated[str | None, typer.Option(help="Licence to state in the model card")] = None,
    family: FamilyOpt = None,
) -> None:
    """Export an ensemble to ONNX or to a Triton model repository.

    The form onnx is one file with the members and their combination, triton a
    model repository with one model per member, and triton-single a repository
    with the one file. A model card is written as well.
    """
    from ripieno import pipeline
    from ripieno.library.model_card import CARD
    from ripieno.pipeline.exporting import Form

    known = parsing.parse_choice(Form, "--form", form)
    with console.progress() as progress:
        path = pipeline.export(
            bundle, output, form=known, name=name, licence=licence, trusted=family or (), progress=progress
        )
    card = path.with_suffix(".md") if known == "onnx" else path / CARD
    following = shell("open", card) if known == "onnx" else shell("tritonserver", "--model-repository", path.resolve())
    console.print_result(path, following, f"model card: {card}", form=known, card=str(card))
