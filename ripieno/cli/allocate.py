"""The commands allocate (on this machine, or an offline plan for other hardware) and explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ripieno.allocation.plan import AllocationMethod, AllocationOptions
from ripieno.cli import allocation_view, console, parsing, tables
from ripieno.cli.app import FamilyOpt, RunArg, app, examples
from ripieno.errors import RipienoError
from ripieno.shell_command import command, shell

if TYPE_CHECKING:
    from ripieno.pipeline.offline_plan import OfflinePlan


@app.command(
    epilog=examples(
        "# on this machine",
        "ripieno allocate run B20 --bundle bundle --explain",
        "# with the fastest backends and precisions",
        "ripieno allocate run B20 --backend auto --precision auto",
        "# with pinned members",
        "ripieno allocate run B20 --pin 00042-e027=cuda:0 --pin 00007-e009=@32 --pin 00001-e003=cpu:0@8",
        "# for a cluster",
        "ripieno allocate run B20 --devices cluster.yaml --profiles v100-16gb=v100.json --scale 64",
        "# without a run",
        "ripieno allocate --devices '4x rtx-3090 24GB' --profiles benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv "
        "--members resnet18,resnet50 --scale 64 --output plan",
    )
)
def allocate(
    run: Annotated[Path | None, typer.Argument(help="Folder of the run", metavar="[RUN]")] = None,
    ensemble: Annotated[
        str | None, typer.Argument(help="Name of the ensemble, such as B20", metavar="[ENSEMBLE]")
    ] = None,
    devices: Annotated[
        str, typer.Option(help="Devices of this machine, or other hardware to plan for: see above")
    ] = "auto",
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the bundle", show_default="RUN/bundles/ENSEMBLE")
    ] = None,
    max_benches: Annotated[
        int, typer.Option(help="Maximum number of benchmarks; 0 plans with the model only")
    ] = AllocationOptions.max_benches,
    backend: Annotated[
        str, typer.Option(help="Backend: auto, onnx, openvino, torch, torch-compile, tensorrt, torch-graphs")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="Precision: fp32, bf16, fp16, int8 or auto (the fastest)")] = "fp32",
    method: Annotated[str, typer.Option(help="Method: model, algorithm-1 (the paper's) or worst-fit")] = "model",
    pin: Annotated[
        list[str] | None,
        typer.Option(help="Pin a member: ID=DEVICE, ID=@BATCH_SIZE or ID=DEVICE@BATCH_SIZE; repeatable"),
    ] = None,
    replicas: Annotated[
        bool, typer.Option(help="Allow a member on several devices; --no-replicas is as in the paper")
    ] = True,
    rate: Annotated[
        float | None, typer.Option(help="Minimise p99 latency at this many samples/s instead of throughput")
    ] = None,
    explain_it: Annotated[
        bool, typer.Option("--explain", help="Show memory, time and the throughput bottleneck")
    ] = False,
    profiles: Annotated[
        list[str] | None, typer.Option(help="Further profiles: file, run or timm table; KIND=PATH sets the device kind")
    ] = None,
    members: Annotated[
        str | None, typer.Option(help="Members to plan for without an ensemble, separated by commas")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(help="Plan for 0, 1, 2, 4, ..., N GPUs of the first type; report the plateau")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the offline plan")] = None,
    family: FamilyOpt = None,
) -> None:
    """Place an ensemble on devices and write a bundle, or plan for other hardware.

    --devices takes auto, cpu, cpu:2 (the CPU split in two) or cuda:0,cpu. For an
    offline plan it takes a file (.yaml, .toml, .json, .txt), a description such
    as '4x V100-16GB, 1x cpu 32 cores', or a Ray cluster (ray, ray:HOST:PORT,
    ray://HOST:10001).

    --backend auto takes the fastest backend for each member and device, of those
    with the reference outputs on validation images. The backends tensorrt and
    torch-graphs need a GPU.

    A precision other than fp32 changes the outputs slightly. A member stays in
    fp32 if its validation loss worsens by more than 1 %. The loss of the ensemble
    is reported again.
    """
    from ripieno import pipeline
    from ripieno.library import read_backend_report
    from ripieno.pipeline.offline_plan import is_offline_spec

    known = parsing.parse_choice(AllocationMethod, "--method", method)
    if profiles or members or scale is not None or is_offline_spec(devices):
        if bundle is not None:
            raise RipienoError("--bundle does not apply to an offline plan: pass --output")
        with console.status("planning with the model"):
            plan = pipeline.plan_offline(
                run,
                ensemble,
                devices=devices,
                profiles=profiles or (),
                members=[m.strip() for m in members.split(",")] if members else (),
                scale=scale,
                method=known,
                pins=pin or (),
                replicas=replicas,
                rate=rate,
                output=output,
            )
        _print_offline(plan)
        return
    if run is None or ensemble is None:
        raise RipienoError(
            "RUN and ENSEMBLE are missing: type ripieno allocate RUN ENSEMBLE (`ripieno show RUN` lists the ensembles)"
        )
    if output is not None:
        raise RipienoError("--output applies to offline plans only: pass --bundle")
    with console.progress() as progress:
        written = pipeline.allocate(
            run,
            ensemble,
            devices=devices,
            bundle=bundle,
            max_benches=max_benches,
            backend=backend,
            precision=precision,
            method=known,
            pins=pin or (),
            replicas=replicas,
            rate=rate,
            trusted=family or (),
            progress=progress,
        )
    allocation = written.allocation
    explanation = pipeline.explain(run, allocation)
    if explain_it:
        allocation_view.show(explanation, allocation, allocation.errors)
    else:
        console.out.print(tables.allocation(allocation))
        console.out.print(tables.speed(allocation))
        console.out.print(allocation_view.error(allocation.errors, others=allocation.others, explanation=explanation))
        if allocation.rate is not None:
            console.out.print(allocation_view.latency(allocation))
    if proof := read_backend_report(written.path):
        console.out.print(tables.backend_table(proof, written.task))
    console.print_result(str(written.path), command("serve", written.path), allocation=allocation, proof=proof)


def _print_offline(plan: OfflinePlan) -> None:
    allocation_view.show(plan.explanation, plan.allocation, plan.errors, offline=True)
    if plan.scaling is not None:
        columns = "worst-fit", "one device each", "with replicas", "bound"
        table = console.table("samples/s predicted, not measured", plan.scaling.gpu, *columns)
        for row in plan.scaling.table():
            cells = ("does not fit" if v is None else f"{v:,.4g}" if v < 1000 else f"{v:,.0f}" for v in row.values())
            table.add_row(*cells)
        console.out.print(table)
        for sentence in plan.scaling.summary_lines():
            console.out.print(sentence)
    wrote = f"{plan.path} ({', '.join(plan.written)})"
    following = shell("open", plan.path / plan.written[-1])
    console.print_result(wrote, following, allocation=plan.allocation, explanation=plan.explanation)


@app.command(epilog=examples("ripieno explain run B20"))
def explain(
    run: RunArg,
    name: Annotated[str, typer.Argument(help="Name of the allocation: the name of its ensemble, such as B20")],
    output: Annotated[
        Path | None, typer.Option(help="File of the figure", show_default="RUN/allocations/NAME.svg")
    ] = None,
) -> None:
    """Show placements, memory, utilisation and the throughput bottleneck."""
    from ripieno import files, pipeline
    from ripieno.reports.allocation_svg import allocation_svg

    allocation = pipeline.open_run(run).allocation(name)
    path = output or run / "allocations" / f"{name}.svg"
    files.check_file(path)
    explanation = pipeline.explain(run, allocation)
    allocation_view.show(explanation, allocation, allocation.errors)
    files.write_bytes(path, allocation_svg(explanation).encode())
    console.print_result(str(path), command("report", run), explanation=explanation)
