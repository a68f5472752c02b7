"""The verbs of placing: allocate (here, or planned for devices that are elsewhere), explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ripieno.allocation.plan import Method
from ripieno.cli import allocation_view, console, parsing, tables
from ripieno.cli.app import FamilyOpt, RunArg, app
from ripieno.commands import command, shell
from ripieno.errors import RipienoError

SPEC = (
    "Devices: `auto`, `cpu`, `cpu:2` (the CPU cut in two), `cuda:0,cpu`. Or such as are not here, to plan for: "
    "a file (`cluster.yaml`, .toml, .json, .txt), a description (`'4x V100-16GB, 1x cpu 32 cores'`), "
    "or a Ray cluster (`ray`, `ray:HOST:PORT`, `ray://HOST:10001`)."
)
BACKENDS = (
    "What runs the members: `onnx`, `openvino`, `torch`, `torch-compile`, on GPUs also `tensorrt` and `torch-graphs`. "
    "`auto` takes the quickest for each member and device, proven on validation images to answer the same: "
    "--backend auto --precision auto."
)
PRECISIONS = (
    "`fp32` changes no answer. `bf16`, `fp16`, `int8`, or `auto` (the quickest) change them a little: a member whose "
    "validation loss worsens by more than 1 % stays in fp32, and the ensemble's loss is stated again: --precision bf16."
)


@app.command()
def allocate(
    run: Annotated[Path | None, typer.Argument(help="The run's folder.", metavar="[RUN]")] = None,
    ensemble: Annotated[
        str | None, typer.Argument(help="Name of the ensemble, such as B20.", metavar="[ENSEMBLE]")
    ] = None,
    devices: Annotated[str, typer.Option(help=SPEC)] = "auto",
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the deployment; RUN/bundles/ENSEMBLE by default: --bundle bundle.")
    ] = None,
    max_benches: Annotated[
        int, typer.Option(help="The most benches that may be run; 0 plans by the model only: --max-benches 0.")
    ] = 20,
    backend: Annotated[str, typer.Option(help=BACKENDS)] = "onnx",
    precision: Annotated[str, typer.Option(help=PRECISIONS)] = "fp32",
    method: Annotated[
        str,
        typer.Option(help="`model`, `algorithm-1` (the paper's) or `worst-fit`: --method algorithm-1."),
    ] = "model",
    pin: Annotated[
        list[str] | None,
        typer.Option(
            help="Fix a member's device, batch size or both; once for each: --pin 00042-e027=cuda:0 "
            "--pin 00007-e009=@32 --pin 00001-e003=cpu:0@8."
        ),
    ] = None,
    replicas: Annotated[
        bool, typer.Option(help="Whether a member may run on several devices: --no-replicas is as in the paper.")
    ] = True,
    rate: Annotated[
        float | None,
        typer.Option(help="Plan for the least p99 latency at so many images/s, not for throughput: --rate 50."),
    ] = None,
    explain_it: Annotated[
        bool, typer.Option("--explain", help="Show memory, time and what limits the pace: --explain.")
    ] = False,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            help="Profiles to plan by, beside the run's own: a profile file, another run, or a table of timm's; "
            "KIND= says which devices it stands for: --profiles old/profiles/h100.json --profiles v100-16gb=timm.csv."
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(help="Plan for these members, without an ensemble: --members resnet18,resnet50."),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            help="Plan for 0, 1, 2, 4, ... so many of the first GPU, and say where it ends rising: --scale 64."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of a plan for devices that are not here: --output plan.")
    ] = None,
    family: FamilyOpt = None,
) -> None:
    """Place an ensemble on devices and write a deployment, or plan it for devices that are not here.

    Here: `ripieno allocate run B20 --bundle bundle`. For a cluster: `ripieno allocate run B20 --devices cluster.yaml
    --profiles v100-16gb=v100.json --scale 64`. Without a run: `ripieno allocate --devices '4x rtx-3090 24GB' --profiles
    benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv --members resnet18,resnet50 --scale 64`.
    """
    from ripieno import pipeline
    from ripieno.library import read_proof
    from ripieno.pipeline.offline_plan import is_offline_spec

    known = parsing.parse_choice(Method, "--method", method)
    if profiles or members or scale is not None or is_offline_spec(devices):
        if bundle is not None:
            raise RipienoError("--bundle is a deployment's: a plan for devices that are not here goes to --output")
        _foresee(run, ensemble, devices, profiles or [], members, scale, known, pin or [], replicas, rate, output)
        return
    if run is None or ensemble is None:
        raise RipienoError("which ensemble of which run? ripieno allocate RUN ENSEMBLE (`ripieno show RUN` lists them)")
    if output is not None:
        raise RipienoError("--output is for plans; a deployment goes to --bundle")
    with console.progress() as progress:
        made = pipeline.allocate(
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
    placed = made.allocation
    found = pipeline.explain(run, placed)
    if explain_it:
        allocation_view.show(found, placed.errors, others=placed.others)
    else:
        console.out.print(tables.allocation(placed))
        console.out.print(tables.speed(placed))
        console.out.print(allocation_view.error(placed.errors, others=placed.others, found=found))
    if placed.rate is not None:
        console.out.print(allocation_view.latency(placed))
    if proof := read_proof(made.path):
        console.out.print(tables.backend_table(proof))
    console.print_result(str(made.path), command("serve", made.path), allocation=placed, proof=proof)


def _foresee(
    run: Path | None,
    ensemble: str | None,
    devices: str,
    profiles: list[str],
    members: str | None,
    scale: int | None,
    method: Method,
    pins: list[str],
    replicas: bool,
    rate: float | None,
    output: Path | None,
) -> None:
    from ripieno import pipeline

    with console.status("planning by the model"):
        found = pipeline.plan_offline(
            run,
            ensemble,
            devices=devices,
            profiles=profiles,
            members=[m.strip() for m in members.split(",")] if members else (),
            scale=scale,
            method=method,
            pins=pins,
            replicas=replicas,
            rate=rate,
            output=output,
        )
    allocation_view.show(found.explanation, found.errors, elsewhere=True)
    if rate is not None:
        console.out.print(allocation_view.latency(found.allocation))
    if found.scaling is not None:
        columns = "worst-fit", "one device each", "with replicas", "bound"
        made = console.table("images/s predicted, not measured", found.scaling.gpu, *columns)
        for row in found.scaling.table():
            made.add_row(
                *("does not fit" if v is None else f"{v:,.4g}" if v < 1000 else f"{v:,.0f}" for v in row.values())
            )
        console.out.print(made)
        for sentence in found.scaling.summary_lines():
            console.out.print(sentence)
    wrote = f"{found.path} ({', '.join(found.written)})"
    following = shell("open", found.path / found.written[-1])
    console.print_result(wrote, following, allocation=found.allocation, explanation=found.explanation)


@app.command()
def explain(
    run: RunArg,
    name: Annotated[str, typer.Argument(help="Name of the allocation: that of its ensemble, such as B20.")],
    output: Annotated[
        Path | None, typer.Option(help="The picture; RUN/allocations/NAME.svg by default: --output B20.svg.")
    ] = None,
) -> None:
    """Who sits where, memory and time used and left, and what limits the throughput: `ripieno explain run B20`."""
    from ripieno import files, pipeline
    from ripieno.reports.allocation_svg import allocation_svg

    allocation = pipeline.open_run(run).allocation(name)
    path = output or run / "allocations" / f"{name}.svg"
    files.check_file(path)
    found = pipeline.explain(run, allocation)
    allocation_view.show(found, allocation.errors, others=allocation.others)
    if allocation.rate is not None:
        console.out.print(allocation_view.latency(allocation))
    files.write_bytes(path, allocation_svg(found).encode())
    console.print_result(str(path), command("report", run), explanation=found)
